"""The demo's gateway process: its own stores and nobody else's, and a clear word when it does not start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway.config import load_config
from gateway.demo import process
from gateway.demo.api import wait_for
from gateway.demo.errors import DemoError, GatewayNotReady, NotInTime
from gateway.demo.process import GatewayProcess, Home


def _speaker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another program in the place of `fl-gateway`."""
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-c", code])


def test_every_store_lies_in_the_home(tmp_path: Path) -> None:
    """Whatever the folder is called, the settings are good TOML, and all stores are inside."""
    home = Home(tmp_path / 'a "quoted" \\ home')

    home.settle()

    config = load_config({}, home.settings_path)
    urls = [config.database_url, config.blob_url, config.keystore_url, config.state_url, config.siem_sinks]
    assert all(str(home.path) in url for url in urls)
    assert config.evaluate == "gateway.demo.evaluate:evaluate"


def test_no_setting_of_a_real_gateway_reaches_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An operator may run the demo where FLG_DATABASE_URL names the production database."""
    monkeypatch.setenv("FLG_DATABASE_URL", "postgresql+psycopg://production/")
    _speaker(monkeypatch, "import os; print([name for name in os.environ if name.startswith('FLG_')])")

    said = Home(tmp_path).run("client", "add")

    assert said == "[]\n"
    assert "FLG_DATABASE_URL" in os.environ


def test_the_address_is_the_one_that_the_gateway_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`serve` prints one line `ready http://...`; leaving the block ends the process."""
    _speaker(monkeypatch, "import time; print('ready http://127.0.0.1:4711'); time.sleep(60)")

    with GatewayProcess(Home(tmp_path)) as gateway:
        address = gateway.wait_until_ready()

    assert address == "http://127.0.0.1:4711"
    assert not gateway.is_running()


def test_a_gateway_that_ends_at_once_is_reported_with_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the exit code and the file with the reason."""
    _speaker(monkeypatch, "import sys; sys.stderr.write('no'); sys.exit(3)")

    with GatewayProcess(Home(tmp_path)) as gateway, pytest.raises(GatewayNotReady, match="code 3") as caught:
        gateway.wait_until_ready()

    assert Path(caught.value.log_path).read_text() == "no"


def test_a_failing_command_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command's own words, not a traceback of ours."""
    _speaker(monkeypatch, "import sys; sys.exit('the key store is locked')")

    with pytest.raises(DemoError, match="client add failed: the key store is locked"):
        Home(tmp_path).run("client", "add")


def test_waiting_ends() -> None:
    """What never happens is an error, not a hanging demo."""
    with pytest.raises(NotInTime, match="The sunrise did not happen"):
        wait_for("The sunrise", lambda: None, timeout_s=0.05, pause_s=0.01)
