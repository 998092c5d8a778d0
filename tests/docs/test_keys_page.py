"""docs/keys.md: the commands are given as they stand there, to a gateway on the embedded defaults."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from living.home import Home, clean_environment, home_in
from living.threads import local_gateway_in
from services.kms import CREDENTIALS, envelope_service, signing_service
from services.pages import blocks, run_shown

from compliance.keyring.keys import SigningUse
from gateway.storage.durable import replace_file

BLOCKS = blocks("keys.md", "console")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A gateway that was started once; its master key lies where the default puts it."""
    with home_in(tmp_path / "home") as made:
        replace_file(made.directory / "keys" / "master.key", b"5a" * 32)
        with local_gateway_in(made) as gateway:
            gateway.client_add("auditor")
        yield made


def shown(words: str) -> str:
    """The block with these words, as a script; what takes a minute takes none."""
    (block,) = [one for one in BLOCKS if words in one]
    lines = "\n".join(line.removeprefix("$ ") for line in block.splitlines())
    return lines.replace("keys rotate master", "keys rotate master --grace 0s")


def give(home: Home, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Give the script in the home, on the embedded defaults."""
    done = run_shown(script, home.directory, clean_environment() | more, timeout_s=120)
    assert done.returncode == 0, done.stderr
    return done


def kids(home: Home, use: SigningUse) -> list[str]:
    """The keys of a use that sign now, the newest first."""
    with home.stores() as services:
        return [row.kid for row in services.keystore.signing.in_force(use)]


def settings(home: Home, **changed: str) -> Home:
    """The same home with other settings."""
    return Home(home.directory, home.database_url, settings={**home.settings, **changed})


def test_signing_keys_are_changed_beside_a_running_gateway(home: Home) -> None:
    """List, change all three, back the keys up; the running sequencer takes the new key up."""
    before = kids(home, SigningUse.LOG)
    with local_gateway_in(home) as gateway:
        listed = give(home, shown("keys list"))
        changed = give(home, shown("keys rotate receipt"))
        gateway.client_add("auditor")
        after = kids(home, SigningUse.LOG)

    assert before[0] in listed.stdout
    assert "both sign until" in changed.stdout
    assert after[1:] == before
    assert (home.directory / "keys.zip").exists()
    assert home.verify_log().ok


@pytest.mark.parametrize(
    "words", ["$NEW,$OLD", "$ fl-gateway keys rotate master\n"], ids=["given", "in a file"]
)
def test_the_master_key_is_changed(home: Home, words: str) -> None:
    """In its file by the one command, in the configuration by the operator."""
    (block,) = [one for one in BLOCKS if (one == words if "\n" in words else words in one)]
    script = "\n".join(line.removeprefix("$ ") for line in block.splitlines())
    script = script.replace("keys rotate master", "keys rotate master --grace 0s") + "\nfl-gateway keys list"

    done = give(home, script, OLD="5a" * 32)

    assert "were wrapped anew" in done.stdout
    assert done.stdout.count("master   ") == 1


def test_the_log_s_key_goes_into_a_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made with OpenSSL, announced, and taken up by the sequencer."""
    monkeypatch.chdir(home.directory)
    before = kids(home, SigningUse.LOG)
    with local_gateway_in(home):
        done = give(home, shown("openssl genpkey"))

    assert "both sign until" in done.stdout
    assert kids(home, SigningUse.LOG)[1:] == before
    assert home.verify_log().ok


def kms(url: str) -> Mapping[str, str]:
    """The environment of a gateway that uses this KMS."""
    return {**CREDENTIALS, "FLG_KMS_ENDPOINT_URL": url}


def test_the_master_key_moves_into_kms(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the file is not needed any more."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    script = shown("rm keys/master.key") + "\nfl-gateway keys list\nfl-gateway doctor"
    with envelope_service() as service:
        service.client().create_alias(AliasName="alias/flg-master", TargetKeyId=service.key_id)
        done = give(home, script, **kms(service.url))

    assert done.stdout.count("master   ") == 1
    assert "ok    master key:      set" in done.stdout
    assert (home.directory / "keys" / "master.kms").exists()


def test_the_log_s_key_moves_into_kms(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It signs there; a checkpoint bears its signature first."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with signing_service() as service:
        service.keys["alias/flg-log"] = service.keys.pop(service.new_key())
        with local_gateway_in(settings(home, kms_endpoint_url=service.url)):
            done = give(home, shown("aws-kms:alias/flg-log"), **kms(service.url))

    assert "both sign until" in done.stdout
    assert len(kids(home, SigningUse.LOG)) == 2
    assert home.verify_log().ok
