"""docs/backup.md: the commands are given as they stand there, in order, to a gateway on the embedded defaults."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from living.driver import BARE
from living.home import Home, clean_environment, home_in
from living.threads import local_gateway_in
from services.checkout import ROOT
from services.pages import run_shown

from gateway.storage.durable import replace_file

PAGE = (ROOT / "docs" / "backup.md").read_text("utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A gateway that had a round and rests; its master key lies where the default puts it."""
    with home_in(tmp_path / "home") as made:
        with local_gateway_in(made) as gateway:
            gateway.add_model()
            gateway.run_round([gateway.register() for _ in range(2)], BARE)
        replace_file(made.directory / "keys" / "master.key", b"5a" * 32)
        yield made


def section(title: str) -> list[str]:
    """The shell blocks below a heading."""
    text = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (found,) = [part for part in text if part.startswith(title)]
    return re.findall(r"^```console\n(.*?)^```", found, re.MULTILINE | re.DOTALL)


def give(home: Home, *blocks: str) -> subprocess.CompletedProcess[str]:
    """Give the commands of some blocks to a shell in the home, which stops at the first that fails."""
    script = "\n".join(line.removeprefix("$ ") for block in blocks for line in block.splitlines())
    return run_shown(script, home.directory, clean_environment(), timeout_s=240)


def test_the_page_s_backups_are_drilled_and_restored(home: Home) -> None:
    """Make them; check one; restore it in a folder of its own; lose the database, and restore it with the log."""
    check, drill = section("Drill")
    lost, _new_origin = section("The database is lost")

    made = give(home, *section("Make them"))
    checked, drilled, restored = give(home, check), give(home, drill), give(home, lost)

    assert made.returncode == 0, made.stderr
    assert "sound: " in checked.stdout, checked.stderr
    assert drilled.returncode == 0, drilled.stderr
    assert "completed" in drilled.stdout
    assert restored.returncode == 0, restored.stderr
    assert "goes on" in restored.stdout
    with local_gateway_in(home) as gateway:
        assert gateway.round(1)["status"] == "completed"


def test_the_page_s_way_without_the_missing_entries_is_needed_and_works(home: Home) -> None:
    """Refused first; with the word for it a new log begins."""
    lost, new_origin = section("The database is lost")
    assert give(home, *section("Make them")).returncode == 0
    with local_gateway_in(home) as gateway:
        gateway.register()

    refused, ended = give(home, lost), give(home, new_origin)

    assert (refused.returncode, "--new-origin" in refused.stderr) == (2, True)
    assert ended.returncode == 0, ended.stderr
    assert "succeeds it" in ended.stdout
    assert (home.directory / "data.old-log.zip").exists()
    with local_gateway_in(home) as gateway:
        assert gateway.entries()[0]["event_type"] == "log.succeeded"
