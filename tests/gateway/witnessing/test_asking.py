"""The gateway asks its witnesses: what is sent, what is kept, and how it goes on when one is away."""

from __future__ import annotations

import logging
import socketserver
import threading
import time
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from living.home import Home
from services.witness import running
from witnesses import OTHER, address, asker_of, cosigned, grow, kept, key_of, liar, witness_of

from audit.cosignature import CosignatureSigner
from audit.reading import reading
from audit.store import newest_checkpoint, witnessed_checkpoint
from audit.tables import audit_cosignatures
from audit.witness import parse_submission
from audit.witness.submission import Submission
from gateway.api.audit import log_vkey
from gateway.config import Config
from gateway.services import Services
from gateway.witnessing import Standing, run_witnesses, witnesses_of
from gateway.witnessing.part import Companion


def test_the_newest_checkpoint_is_cosigned_and_kept(services: Services, tmp_path: Path) -> None:
    """From nothing, then from the tree that was cosigned last; what readers get bears both signatures."""
    with (
        witness_of(tmp_path / "w", key_of(services)) as witness,
        asker_of(services, witness) as asker,
    ):
        found = [asker.ask(), asker.ask()]
        size = grow(services, 5)
        found += [asker.ask(), asker.ask()]

    assert {one.standing for one in found} == {Standing.COSIGNED}
    assert kept(services) == [(3, witness.name), (size, witness.name)]
    with reading(services.engine) as conn:
        newest, witnessed = newest_checkpoint(conn), witnessed_checkpoint(conn, 1)
    assert newest is not None
    assert newest == witnessed
    assert witness.verifier.find(newest.note) is not None
    assert key_of(services).open(newest.note).size == size


def test_who_lost_count_begins_where_the_witness_says(services: Services, tmp_path: Path) -> None:
    """A gateway that is new, or whose answer was lost: 409 tells the size, and the next try succeeds."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        with asker_of(services, witness) as asker:
            asker.ask()
        grow(services, 2)
        with services.engine.begin() as conn:
            conn.exec_driver_sql("DROP TRIGGER audit_cosignatures_no_delete")
            conn.execute(audit_cosignatures.delete())  # as if it had never come
        with asker_of(services, witness) as asker:
            found = asker.ask()

    assert (found.standing, found.size) == (Standing.COSIGNED, 5)
    assert kept(services) == [(5, witness.name)]


def test_the_same_cosignature_twice_is_no_error(services: Services, tmp_path: Path) -> None:
    """Two gateways ask for the same checkpoint: the first line stays."""
    with (
        witness_of(tmp_path / "w", key_of(services)) as witness,
        asker_of(services, witness) as one,
        asker_of(services, witness) as two,
    ):
        assert [one.ask().standing, two.ask().standing] == [Standing.COSIGNED] * 2

    assert kept(services) == [(3, witness.name)]


def test_what_is_sent_is_what_the_protocol_says(services: Services) -> None:
    """C2SP tlog-witness: the old size, the proof in base64, an empty line, the checkpoint."""
    bodies: list[bytes] = []

    def listen(body: bytes) -> tuple[int, bytes]:
        bodies.append(body)
        return 200, cosigned(body)

    with liar(listen) as witness, asker_of(services, witness) as asker:
        asker.ask()
        grow(services, 2)
        asker.ask()

    with reading(services.engine) as conn:
        newest = newest_checkpoint(conn, cosigned=False)
    assert newest is not None
    first, second = (body.decode() for body in bodies)
    proof = parse_submission(bodies[1]).proof
    assert first.startswith("old 0\n\n")
    assert (
        second == "old 3\n" + "".join(f"{b64encode(step).decode()}\n" for step in proof) + f"\n{newest.note}"
    )
    assert Submission(3, proof, newest.note).body() == bodies[1]


def test_other_lines_in_an_answer_are_dropped(services: Services) -> None:
    """C2SP: cosignatures of unknown keys are ignored; what is kept is the one line, as we write it."""

    def both(body: bytes) -> tuple[int, bytes]:
        return 200, cosigned(body, OTHER) + cosigned(body)

    with liar(both) as witness, asker_of(services, witness) as asker:
        assert asker.ask().standing is Standing.COSIGNED

    with reading(services.engine) as conn:
        newest = newest_checkpoint(conn)
    assert newest is not None
    assert OTHER.name not in newest.note


def test_two_witnesses_are_asked_beside_each_other_and_one_that_hangs_holds_up_neither(
    home: Home, services: Services, tmp_path: Path
) -> None:
    """A quorum of two of three: the third takes connections and says nothing."""
    with (
        witness_of(tmp_path / "w1", key_of(services)) as one,
        witness_of(tmp_path / "w2", key_of(services), signer=OTHER) as two,
        socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as hanging,
    ):
        third = CosignatureSigner("witness.example/w3", Ed25519PrivateKey.generate())
        three = address(f"http://127.0.0.1:{hanging.server_address[1]}", third)
        config = replace(
            services.config,
            witnesses=", ".join(f"{at.url} {at.verifier.vkey}" for at in (one, two, three)),
            witness_quorum=2,
            witness_interval_s=0.05,
        )
        asking = replace(services, config=config)
        stop = threading.Event()
        thread = threading.Thread(target=run_witnesses, args=(asking, asking.engine, stop))
        thread.start()
        try:
            first = _await_witnessed(services, 3)
            grow(services, 2)
            second = _await_witnessed(services, 5)
        finally:
            stop.set()
            began = time.monotonic()
            thread.join()

    assert time.monotonic() - began < 10
    for note in (first, second):
        assert one.verifier.find(note) is not None
        assert two.verifier.find(note) is not None
        assert three.verifier.find(note) is None


def _await_witnessed(services: Services, size: int) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with reading(services.engine) as conn:
            found = witnessed_checkpoint(conn, 2)
        if found is not None and found.size == size:
            return found.note
        time.sleep(0.02)
    raise AssertionError("it was not witnessed in time")


def test_a_witness_s_outage_is_told_once_and_its_return_too(
    services: Services, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no entry: who is away refuses nothing."""
    with running(tmp_path / "w", "witness.example/w1", log_vkey(services)) as process:
        (witness,) = witnesses_of(Config(witnesses=process.setting))
        companion = Companion(services, services.engine, witness)
        process.kill()
        with caplog.at_level(logging.WARNING):
            companion.look()
            companion.look()
            process.start()
            companion.look()
            companion.look()
        companion.close()

    assert [line.partition(":")[0] for line in caplog.messages if "the witness" in line] == [
        f"the witness {witness.name} does not cosign",
        f"the witness {witness.name} cosigns again",
    ]
    assert kept(services) == [(3, witness.name)]


def test_the_pause_has_a_longest_and_comes_back(services: Services, tmp_path: Path) -> None:
    """At most a minute; as short as the setting again after a cosignature."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        companion = Companion(services, services.engine, address("http://127.0.0.1:1"))
        for _ in range(60):  # each at random one to two times as long as the one before
            companion.look()
        longest = companion.pause_s
        companion.close()
        well = Companion(services, services.engine, witness)
        well.pause_s = 40.0
        well.look()
        well.close()

    assert 30 <= longest <= 60
    assert well.pause_s == services.config.witness_interval_s
