"""Which settings of witnesses are taken, and what the doctor finds out about those that are set."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from witnesses import SIGNER, address, asker_of, key_of, witness_of

from audit.checkpoint import NoteSigner, NoteVerifier
from audit.witness import Memory
from gateway.config import Config
from gateway.doctor.errors import Ailing
from gateway.doctor.witnesses import witnesses as examined
from gateway.errors import ConfigError
from gateway.services import Services
from gateway.witnessing import WitnessAddress, witnesses_of

GOOD = f"https://w.example {SIGNER.vkey}"


@pytest.mark.parametrize(
    ("witnesses", "quorum", "said"),
    [
        ("https://w.example", 1, "a URL, a blank"),
        (f"https://w.example {SIGNER.vkey} more", 1, "a URL, a blank"),
        (f"w.example {SIGNER.vkey}", 1, "has a host"),
        (f"ftp://w.example {SIGNER.vkey}", 1, "has a host"),
        (f"https://user:secret@w.example {SIGNER.vkey}", 1, "neither user"),
        (f"https://w.example?token=secret {SIGNER.vkey}", 1, "nor query"),
        (f"http://w.example {SIGNER.vkey}", 1, "must be https"),
        (f"https://[w.example {SIGNER.vkey}", 1, "a URL, a blank"),
        ("https://w.example x+00000000+AAAA", 1, "cannot be used"),
        (f"{GOOD}, https://other.example {SIGNER.vkey}", 1, "one key twice"),
        (GOOD, 0, "from 1 to that"),
        (GOOD, 2, "there are 1 witnesses"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(witnesses: str, quorum: int, said: str) -> None:
    """At the start, with a sentence; a secret in a URL is not repeated."""
    with pytest.raises(ConfigError, match=said) as refused:
        witnesses_of(Config(witnesses=witnesses, witness_quorum=quorum))

    assert "secret" not in str(refused.value)


def test_no_witnesses_are_none() -> None:
    """The default, with whatever quorum."""
    assert witnesses_of(Config(witnesses=" , ", witness_quorum=7)) == ()


def _diagnosis(services: Services, *witnesses: WitnessAddress, quorum: int = 1) -> str:
    named = ", ".join(f"{witness.url} {witness.verifier.vkey}" for witness in witnesses)
    return examined(replace(services.config, witnesses=named, witness_quorum=quorum))


def test_the_doctor_asks_each_witness_and_has_nothing_cosigned(services: Services, tmp_path: Path) -> None:
    """It says how much each has cosigned; what it sends must be refused by whoever follows the log."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        before = _diagnosis(services, witness)
        with asker_of(services, witness) as asker:
            asker.ask()
        after = _diagnosis(services, witness)

    assert before == "witness.example/w1 has cosigned 0 of 3 entries; 1 of 1 are needed"
    assert after == "witness.example/w1 has cosigned 3 of 3 entries; 1 of 1 are needed"
    assert Memory(tmp_path / "w" / "witness.db").last(key_of(services).name).size == 3


def test_the_doctor_tells_what_is_wrong_with_a_witness(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not there; not told our key; not cosigning for minutes; settings that cannot be meant."""
    stranger = NoteVerifier.parse(NoteSigner("example.com/other", Ed25519PrivateKey.generate()).vkey)

    with pytest.raises(Ailing, match="cannot be asked: it does not answer"):
        _diagnosis(services, address("http://127.0.0.1:1"))
    with (
        witness_of(tmp_path / "w1", stranger) as witness,
        pytest.raises(Ailing, match="must give it the key"),
    ):
        _diagnosis(services, witness)
    with witness_of(tmp_path / "w2", key_of(services)) as witness:
        monkeypatch.setattr("gateway.doctor.witnesses._PATIENCE", timedelta(0))
        with pytest.raises(Ailing, match="0 of 3 entries, and nothing for minutes"):
            _diagnosis(services, witness)
    with pytest.raises(ConfigError, match="FLG_WITNESS_QUORUM"):
        _diagnosis(services, witness, quorum=2)
    with pytest.raises(Ailing, match="FLG_WITNESS_INTERVAL_S"):
        examined(replace(services.config, witness_interval_s=0.0))


def test_the_doctor_makes_no_database(tmp_path: Path) -> None:
    """Before the first start there is nothing to compare."""
    config = Config(database_url=f"sqlite:///{tmp_path}/none.db", witnesses=GOOD)

    assert examined(config) == "1 of them; the log is made at the first start"
    assert examined(Config()).startswith("none")
    assert list(tmp_path.iterdir()) == []
