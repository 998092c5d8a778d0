"""Unlucky days and hostile callers: whatever comes, the worker goes on, nothing is left, and no claim grows."""

from __future__ import annotations

import io
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from sqlalchemy import update

from aggregation.errors import BadFormat
from aggregation.header import parse_header
from audit.draft import Personal
from audit.reading import reading
from compliance.requests.cases import Status
from gateway.errors import StorageFull
from gateway.privacy import privacy_desk
from gateway.rounds.evaluation import Evaluation, _parse
from gateway.services import Services
from gateway.storage.blobs import FileBlobs
from gateway.tables import client_updates

FULL = Path("/dev/full")  # the kernel's own full disk


GOOD = file_of(tensors(0.5))
WEIGHTED = {"rule": "mean", "weights": "samples"}
DESK = Personal("system", "test")
Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model and no round."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    return made


def subject_of(federation: Federation, silo: Silo) -> str:
    """Whose client it is."""
    answer = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.staff("operator"))
    return str(answer.json["subject_id"])


def blob_of(federation: Federation, silo: Silo) -> Path:
    """Where a client's update lies."""
    with reading(federation.services.engine) as conn:
        row = conn.execute(client_updates.select().where(client_updates.c.client_id == silo.client_id)).one()
    return federation.services.blobs.local_path(row.blob_id)


# Hostile clients


@pytest.mark.parametrize(
    "metadata",
    ['{"note": "\\ud800"}', '{"loss": 1e999}', '{"loss": -1e999}', '{"\\udfff": 1}'],
    ids=["a lone surrogate", "an infinite number", "a negative one", "a surrogate as a name"],
)
def test_metadata_that_json_cannot_carry_is_refused_and_leaves_nothing(
    federation: Federation, metadata: str
) -> None:
    """Promise 7: it gets a 4xx that names the header; no row and no file stay."""
    federation.open_round()
    silo = federation.register()
    before = federation.kept()

    answer = federation.submit(silo, GOOD, headers={"X-Update-Metadata": metadata})

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert answer.json["errors"][0]["pointer"] == "X-Update-Metadata"
    assert federation.kept() == before


@pytest.mark.parametrize("digits", [400, 4300])
def test_absurd_sample_counts_do_not_stop_the_worker(federation: Federation, digits: int) -> None:
    """Promise 3: a client's stated weight cannot keep its round, and all others, from ending."""
    federation.open_round(aggregation=WEIGHTED)
    absurd = json.dumps({"num_samples": 1})[:-2] + "9" * digits + "}"
    for _ in range(2):
        answer = federation.submit(federation.register(), GOOD, headers={"X-Update-Metadata": absurd})
        assert answer.status_code == 202

    federation.work()

    assert federation.round()["status"] == "completed"


def test_a_header_with_a_member_twice_is_refused_at_once() -> None:
    """A hostile header of a megabyte must not keep a web process busy for minutes."""
    members = ",".join(f'"{number:05x}":1' for number in range(80_000))
    began_s = process_time()

    with pytest.raises(BadFormat, match="twice"):
        parse_header(bytes(8), f'{{{members},"x":1,"x":1}}'.encode())

    assert process_time() - began_s < 5


def test_an_npz_body_on_a_full_disk_is_507_and_leaves_nothing(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room is told as such, wherever the body was to go."""
    federation.open_round()
    silo, packed = federation.register(), io.BytesIO()
    np.savez(packed, **tensors(0.5))
    before = federation.kept()
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: FULL.open("w+b", buffering=0))

    answer = federation.submit(silo, packed.getvalue())

    assert (answer.status_code, answer.json["code"]) == (507, "INSUFFICIENT_STORAGE")
    assert federation.kept() == before


# Hostile or careless operators


@pytest.mark.parametrize(
    ("training_config", "deadline"),
    [
        ('{"lr": NaN}', None),
        ('{"lr": [1e999]}', None),
        ('{"note": "a\\u0000b"}', None),
        ('{"a\\u0000b": 1}', None),
        ("{}", "9999-12-31T23:59:59-23:00"),
    ],
    ids=["NaN", "infinity", "a NUL", "a NUL in a name", "the end of time"],
)
def test_a_round_that_no_store_or_client_can_read_is_refused(
    federation: Federation, training_config: str, deadline: str | None
) -> None:
    """Promise 7: neither a 500 on PostgreSQL, nor a round whose JSON breaks every client that asks for it."""
    before = federation.kept()
    wish = {"planned_clients": 2, "min_clients": 1, "privacy": {"mechanism": "none"}, "deadline": deadline}
    body = f'{json.dumps(wish)[:-1]}, "training_config": {training_config}}}'

    answer = federation.http.post(
        "/api/v1/rounds", data=body, headers=federation.operator, content_type="application/json"
    )

    assert answer.status_code in (400, 422)
    if answer.status_code == 422:
        pointed = "/deadline" if deadline else "/training_config"
        assert answer.json["errors"][0]["pointer"].startswith(pointed)
    assert federation.kept() == before


def test_a_model_name_that_postgresql_cannot_keep_is_refused(federation: Federation) -> None:
    """Promise 7: a 4xx that names the header, on every database; the blob does not stay."""
    before = federation.kept()

    answer = federation.add_model(name="a\0b")

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert federation.kept() == before


@pytest.mark.parametrize(
    "output",
    [b'{"accuracy": 1' + b"0" * 400 + b"}", b"[" * 100_000, b"\xff", b"", b'{"accuracy": true}'],
    ids=["a huge integer", "deep nesting", "no text", "nothing", "a boolean"],
)
def test_whatever_an_evaluation_prints_costs_only_its_figures(output: bytes) -> None:
    """RULES 13: a hook that fails costs the round its figures, never the round."""
    assert _parse(output) == Evaluation(None, None)


# The worker goes on


def test_a_round_that_cannot_be_made_holds_up_no_other(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round on a full disk: the next rounds are made, erasures go on, and the tidying that makes room runs."""
    federation.open_round(planned_clients=1)
    federation.submit(federation.register(), GOOD)
    assert federation.add_model().status_code == 201
    federation.open_round(planned_clients=1)
    federation.submit(federation.register(), GOOD, number=2)
    person = federation.register()
    desk = privacy_desk(federation.services)
    case = desk.open("erasure", subject_of(federation, person), requested_by=DESK)
    desk.approve(case.id, by=DESK)
    kept, full = FileBlobs.incoming, []

    def no_room(self: FileBlobs, blob_id: str, key: bytes | None = None) -> Any:
        if key is None and not full:
            full.append(blob_id)
            raise StorageFull
        return kept(self, blob_id, key)

    monkeypatch.setattr(FileBlobs, "incoming", no_room)
    federation.worker._next_tidy = 0.0
    federation.work()

    # Two releases run side by side: either may have met the full disk.
    assert sorted(federation.round(number)["status"] for number in (1, 2)) == ["aggregating", "completed"]
    assert desk.show(case.id).status is Status.COMPLETED
    assert federation.worker._next_tidy > 0.0
    federation.work()
    assert {federation.round(number)["status"] for number in (1, 2)} == {"completed"}


def test_a_round_that_fails_in_an_unforeseen_way_ends_with_an_entry(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """Promise 3: a damaged row does not keep its round, its lineage and its people's erasures waiting for ever."""
    federation.open_round(planned_clients=1)
    silo = federation.register()
    federation.submit(silo, GOOD)
    with services.engine.begin() as conn:
        conn.execute(update(client_updates).values(norm={"enc": "AAAA", "key": "no such key"}))
        conn.execute(update(client_updates).values(training_metrics={"what": "is this"}))

    for _ in range(4):
        federation.work()

    assert federation.round()["status"] == "failed"
    assert entries("round.failed")[0]["details"]["reason"] == federation.round()["failure"]


def test_a_damaged_blob_in_an_export_stops_neither_the_worker_nor_an_erasure(federation: Federation) -> None:
    """A request that cannot be carried out is noted at its case; those after it are carried out."""
    federation.open_round(planned_clients=2)
    silo, other = federation.register(), federation.register()
    federation.submit(silo, GOOD)
    blob_of(federation, silo).write_bytes(b"x" * 100)
    desk = privacy_desk(federation.services)
    access = desk.open("access", subject_of(federation, silo), requested_by=DESK)
    erasure = desk.open("erasure", subject_of(federation, other), requested_by=DESK)
    for case in (access, erasure):
        desk.approve(case.id, by=DESK)

    federation.work()

    assert desk.show(access.id).last_error == "BLOB_CORRUPT"
    assert desk.show(erasure.id).status is Status.COMPLETED


# Full disks, many files, vanishing files


def test_a_full_disk_is_told_and_leaves_nothing_also_for_a_small_blob(tmp_path: Path) -> None:
    """The file's buffer is flushed, and fails, only at the end; the temporary file goes all the same."""
    blobs = FileBlobs(tmp_path / "blobs")
    blob = blobs.incoming(uuid4().hex)
    blob._target._file._file.close()
    blob._target._file._file = FULL.open("wb")
    blob.write(b"small")

    with pytest.raises(StorageFull):
        blob.keep()

    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
    assert list(blobs.names()) == []


@contextmanager
def few_files(count: int) -> Iterator[None]:
    """A process that may open so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_cohort_may_be_larger_than_the_number_of_open_files(tmp_path: Path) -> None:
    """A fleet's round reads more updates than a process may open files (1024 by default)."""
    blobs, blob_id, key = FileBlobs(tmp_path / "blobs"), uuid4().hex, bytes(32)
    blob = blobs.incoming(blob_id, key)
    blob.write(b"content")
    blob.keep()

    with few_files(10):
        readers = [blobs.reader(blob_id, key) for _ in range(40)]
        read = {reader.read_at(0, 7) for reader in readers}

    assert read == {b"content"}


def test_an_upload_that_ends_during_the_sweep_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary file may be named, or gone, between the listing and the look at its age."""
    blobs = FileBlobs(tmp_path / "blobs")
    blobs.incoming(uuid4().hex).discard()
    gone = tmp_path / "blobs" / "incoming" / "gone"
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: [*listed(self), gone])

    assert blobs.sweep_incoming(older_than_s=0.0) == 0
