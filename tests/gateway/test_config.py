"""Settings: one place reads them, a wrong one is named, a secret is never repeated."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, load_config
from gateway.errors import ConfigError
from gateway.storage.master_key import MasterKeys


def test_the_environment_comes_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    """DESIGN: `FLG_*` or `fl-gateway.toml`."""
    toml = tmp_path / "fl-gateway.toml"
    toml.write_text("token_ttl_s = 60\nweb_threads = 4\n", "utf-8")

    found = load_config({"FLG_TOKEN_TTL_S": "30"}, toml)

    assert (found.token_ttl_s, found.web_threads) == (30, 4)
    assert found.upload_threads == Config().upload_threads


def test_a_secret_never_shows_in_a_representation() -> None:
    """Promise 8: whatever a traceback or a log line shows of the settings, a secret is not in it."""
    secrets = [setting.name for setting in fields(Config) if setting.metadata["secret"]]
    canaries: dict[str, Any] = dict.fromkeys(secrets, "canary")

    shown = repr(Config(**canaries))

    assert {"master_key", "database_url", "webhook_secret"} <= {*secrets}
    assert "canary" not in shown
    assert "blob_url" in shown


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    """DESIGN: secrets also from files (`FLG_X_FILE`), as containers do."""
    secret = tmp_path / "master"
    secret.write_text("ab" * 32 + "\n", "utf-8")

    assert load_config({"FLG_MASTER_KEY_FILE": str(secret)}).master_key == "ab" * 32


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"FLG_WEB_THREADS": "many"}, "FLG_WEB_THREADS must be a int"),
        ({"FLG_MASTER_KEY": "a", "FLG_MASTER_KEY_FILE": "b"}, "keep one"),
        ({"FLG_MASTER_KEY_FILE": "/nowhere/at/all"}, "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], said: str) -> None:
    """Errors name the setting and the remedy."""
    with pytest.raises(ConfigError, match=said):
        load_config(environ)


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    """A misspelt setting must not be passed over in silence."""
    toml = tmp_path / "fl-gateway.toml"
    toml.write_text("tokn_ttl_s = 60\n", "utf-8")

    with pytest.raises(ConfigError, match="tokn_ttl_s"):
        load_config({}, toml)


def test_the_master_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """DESIGN: made on first start, 0600."""
    path = tmp_path / "keys" / "master.key"

    (first,), (again,) = MasterKeys(Config(), file=path).load(), MasterKeys(Config(), file=path).load()

    assert first == again
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_master_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Promise 8: private keys are on disk 0600, or not used."""
    path = tmp_path / "master.key"
    MasterKeys(Config(), file=path).load()
    path.chmod(0o644)

    with pytest.raises(ConfigError, match="chmod 600"):
        MasterKeys(Config(), file=path).load()


@pytest.mark.parametrize("key", ["zz" * 32, "ab" * 31, "ab" * 33])
def test_a_master_key_of_another_form_is_refused_without_being_repeated(key: str) -> None:
    """A secret is in no exception."""
    with pytest.raises(ConfigError, match="64 hex digits") as caught:
        MasterKeys(Config(master_key=key))

    assert key not in str(caught.value)
