"""The janitor removes what no row names, and nothing else; a model gets its version's name, crash or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from blob_stores import Servers, Shelf, shelf
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from services import s3
from sqlalchemy import event, update

from audit.checkpoint import SignedTree
from audit.reading import reading
from gateway.backup.restoring import check
from gateway.backup.writing import back_up
from gateway.config import Config
from gateway.privacy import privacy_desk
from gateway.rounds import recovery
from gateway.rounds.blob_names import named_blobs
from gateway.rounds.filing import file_models
from gateway.rounds.recovery import OrphanSeeds, destroy_settled_seeds, sweep_blobs
from gateway.rounds.worker import Worker
from gateway.services import Services
from gateway.tables import client_updates, model_versions

GOOD = file_of(tensors(0.5))
pytestmark = pytest.mark.parametrize(
    "database_url", ["sqlite"], indirect=True
)  # what differs is the blobs' place


@pytest.fixture(params=["file", "moto", "checking"])
def store(request: pytest.FixtureRequest, s3_servers: Servers, tmp_path: Path) -> Iterator[Shelf]:
    """The blobs' place: the test runs on a directory and on S3."""
    with shelf(request.param, s3_servers, tmp_path / "blobs") as made:
        yield made


@pytest.fixture
def config(store: Shelf, config: Config) -> Config:
    """Settings with that place, and no patience."""
    return replace(config, blob_grace_s=0.0, evaluate_timeout_s=0.0, **store.settings)


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    return made


def _put(services: Services, name: str) -> None:
    with services.blobs.incoming(name) as blob:
        blob.write(b"content")
        blob.keep()


def _named(services: Services) -> set[str]:
    with reading(services.engine) as conn:
        return named_blobs(conn, list(services.blobs.names()))


def _with_updates(federation: Federation) -> None:
    federation.open_round()
    for _ in range(2):
        assert federation.submit(federation.register(), GOOD).status_code == 202


def test_what_no_row_names_goes_and_all_else_stays(federation: Federation, services: Services) -> None:
    """Updates, models, and nothing more."""
    _with_updates(federation)
    sweep_blobs(services)  # the model's first object, where it was filed
    kept = set(services.blobs.names())
    for number in range(3):
        _put(services, f"{number:032x}")

    swept = sweep_blobs(services)

    assert (swept, set(services.blobs.names())) == (3, kept)
    assert _named(services) == kept
    assert len(kept) == 3


def test_what_is_young_stays(federation: Federation, services: Services) -> None:
    """A blob is named before its row commits, and a model has no row while it is evaluated."""
    _put(services, "ab" * 16)
    patient = replace(services, config=replace(services.config, evaluate_timeout_s=1800.0))

    assert sweep_blobs(replace(services, config=replace(services.config, blob_grace_s=3600.0))) == 0
    assert sweep_blobs(patient) == 0
    assert "ab" * 16 in set(services.blobs.names())


def test_a_row_that_commits_meanwhile_keeps_its_blob(
    federation: Federation, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The janitor looks once more right before each deletion."""
    _with_updates(federation)
    found = recovery._nameless

    def then_a_row_commits(services: Services, names: list[str]) -> list[str] | None:
        nameless = found(services, names)
        with services.engine.begin() as conn:
            conn.execute(update(client_updates).values(blob_id="ab" * 16))
        return nameless

    _put(services, "ab" * 16)
    monkeypatch.setattr(recovery, "_nameless", then_a_row_commits)
    sweep_blobs(services)

    assert "ab" * 16 in set(services.blobs.names())


def test_another_database_removes_nothing(federation: Federation, services: Services) -> None:
    """A wrong FLG_DATABASE_URL names no blob of ours: that is no reason to delete them all."""
    _with_updates(federation)
    federation.sequence()
    last = services.state.last_checkpoint()
    services.state.advance_checkpoint(last, SignedTree(last.origin, last.size + 500, bytes(32)))
    _put(services, "ab" * 16)
    kept = sorted(services.blobs.names())

    assert sweep_blobs(services) == 0
    assert sorted(services.blobs.names()) == kept


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_database_that_a_cut_off_restore_left_removes_nothing(
    federation: Federation, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state says that a new log began, and the database has not its first entry: it is not the one meant."""
    _with_updates(federation)
    federation.sequence()
    last = services.state.last_checkpoint()
    assert last is not None
    _put(services, "ab" * 16)
    services.keystore.new_seed("cd" * 16)
    monkeypatch.setattr(recovery, "ORPHAN_AGE_S", 0.0)
    kept = sorted(services.blobs.names())

    services.state.succeed(last, "another/restored-00aa11bb")

    assert sweep_blobs(services) == 0
    assert sorted(services.blobs.names()) == kept
    assert destroy_settled_seeds(services, OrphanSeeds()) == 0


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_thousand_blobs_take_a_handful_of_queries(federation: Federation, services: Services) -> None:
    """Names are looked up five hundred at a time."""
    folder = services.blobs.local_path("0" * 32).parent
    folder.mkdir()
    for number in range(1100):
        (folder / f"00{number:030x}").write_bytes(b"")
    with services.engine.begin() as conn:  # all of them are an update's, in effect
        conn.execute(update(model_versions).values(model_blob_url="blob:" + "0" * 32))
    statements: list[str] = []
    event.listen(services.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    names = list(services.blobs.names())
    nameless = [recovery._nameless(services, names[start : start + 500]) for start in (0, 500, 1000)]

    assert sum(len(part or []) for part in nameless) == len(names) - 1
    assert len(statements) <= 15


@pytest.mark.parametrize("store", ["moto", "checking"], indirect=True)
def test_models_of_a_round_lie_under_their_version_s_name(
    federation: Federation, services: Services, store: Shelf
) -> None:
    """The specification's section 3.2; the first objects go with the janitor."""
    _with_updates(federation)
    federation.work()

    assert federation.round()["status"] == "completed"
    assert _urls(services) == {"1.0.0": "blob:models/v1.0.0.bin", "1.1.0": "blob:models/v1.1.0.bin"}
    found = store.server.client().head_object(Bucket=s3.BUCKET, Key=store.key("models/v1.1.0.bin"))
    answer = federation.download("1.1.0")
    assert (found["Metadata"]["version"], found["Metadata"]["checksum"]) == (
        "1.1.0",
        answer.headers["X-Model-Checksum"],
    )
    sweep_blobs(services)
    assert len(list(services.blobs.names())) == 4  # two updates, two models
    assert federation.download("1.1.0").data == answer.data
    assert _named(services) == set(services.blobs.names())


@pytest.mark.parametrize("store", ["checking"], indirect=True)
def test_a_crash_between_the_copy_and_its_row_is_finished_by_the_next_tidy(
    services: Services, http: FlaskClient, store: Shelf
) -> None:
    """RULES 2: what was begun outside the database is finished, and until then the first object is the model."""

    class Killed(BaseException):
        pass

    def crash(point: str) -> None:
        if point == "model.copied":
            raise Killed

    federation = Federation(replace(services, crash=crash), http)
    http.application.extensions["fl_gateway"] = federation.services
    with pytest.raises(Killed):
        federation.add_model()
    before, sweeps = _urls(services), sweep_blobs(services)

    filed = file_models(services)

    assert sweeps == 1  # the copy, which no row named yet: it is made once more
    assert (filed, _urls(services)) == (1, {"1.0.0": "blob:models/v1.0.0.bin"})
    assert before["1.0.0"] != _urls(services)["1.0.0"]
    assert file_models(services) == 0
    assert sweep_blobs(services) == 1
    assert federation.download("1.0.0").data == file_of(tensors())


@pytest.mark.parametrize("store", ["moto"], indirect=True)
def test_a_model_that_is_filed_while_a_backup_reads_it_is_in_the_backup(
    federation: Federation, services: Services, tmp_path: Path
) -> None:
    """The first object goes between two reads; the snapshot's row means the same bytes under the other name."""
    content = file_of({"w": np.zeros(600_000, dtype=np.float32)})
    with services.blobs.incoming("ab" * 16) as blob:
        blob.write(content)
        blob.keep()
    facts = {"model_blob_url": f"blob:{'ab' * 16}", "checksum": sha256(content).hexdigest()}
    with services.engine.begin() as conn:
        conn.execute(update(model_versions).values(**facts))
    services.blobs.delete("models/v1.0.0.bin")

    def file_and_sweep(what: str, done: int) -> None:
        if what == "blobs" and done and file_models(services):
            services.blobs.delete("ab" * 16)

    made = back_up(services, tmp_path / "data.zip", file_and_sweep)

    assert "ab" * 16 not in set(services.blobs.names())
    assert (made.blobs, made.vanished, made.missing) == (1, 0, 0)
    assert check(tmp_path / "data.zip").blobs == 1


@pytest.mark.parametrize("store", ["checking"], indirect=True)
def test_a_model_that_cannot_be_filed_now_is_published_all_the_same(
    services: Services, http: FlaskClient, store: Shelf
) -> None:
    """The name is a convenience; the worker's tidy gives it later."""
    federation = Federation(services, http)
    store.server.order(fail="500", only="PutObjectCopy", times=99)

    made = federation.add_model()
    store.server.order(fail="", times=0)
    federation.worker.tidy()

    assert made.status_code == 201
    assert _urls(services) == {"1.0.0": "blob:models/v1.0.0.bin"}


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_in_a_directory_a_model_keeps_its_blob_s_name(federation: Federation, services: Services) -> None:
    """Nothing is copied there."""
    before = _urls(services)

    assert file_models(services) == 0
    assert _urls(services) == before
    assert len(list(services.blobs.names())) == 1


@pytest.mark.parametrize("store", ["checking"], indirect=True)
def test_a_round_waits_while_s3_is_away_and_goes_on_when_it_is_back(
    federation: Federation, services: Services, store: Shelf
) -> None:
    """What is away for a while fails no round."""
    _with_updates(federation)
    store.server.order(fail="500", only="GetObject", times=999)
    federation.work()
    waiting = federation.round()["status"]
    store.server.order(fail="", times=0)
    federation.work()

    assert (waiting, federation.round()["status"]) == ("aggregating", "completed")


@pytest.mark.parametrize("store", ["checking"], indirect=True)
def test_a_base_that_was_harmed_is_built_upon_by_no_round(
    federation: Federation, services: Services, store: Shelf
) -> None:
    """Its published SHA-256 is compared first; the round says why it failed."""
    _with_updates(federation)
    store.spoil("models/v1.0.0.bin", store.raw("models/v1.0.0.bin")[:-1] + b"x")
    federation.work()

    assert federation.round()["failure"] == "BASE_UNREADABLE"


def _urls(services: Services) -> dict[str, str]:
    with reading(services.engine) as conn:
        return {row.version: row.model_blob_url for row in conn.execute(model_versions.select())}


@pytest.mark.parametrize("store", ["checking"], indirect=True)
def test_an_update_that_meets_a_stopped_s3_is_told_to_come_again(
    federation: Federation, services: Services, store: Shelf
) -> None:
    """503 with Retry-After, no row, no blob; the same body is taken once it is back."""
    federation.open_round()
    silo, kept = federation.register(), sorted(services.blobs.names())
    store.server.order(fail="500", only="PutObject", times=99)

    refused = federation.submit(silo, GOOD)
    store.server.order(fail="", times=0)

    assert (refused.status_code, refused.json["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert int(refused.headers["Retry-After"]) > 0
    assert sorted(services.blobs.names()) == kept
    assert federation.submit(silo, GOOD).status_code == 202


def test_a_model_is_not_swept_while_its_release_is_under_way(
    federation: Federation, services: Services
) -> None:
    """Releases run beside the tidying: a worker halted for longer than the grace in one must not lose its model."""
    _with_updates(federation)
    swept: list[int] = []

    def tidy(point: str) -> None:
        if point == "round.model_blob":
            swept.append(sweep_blobs(services))

    Worker(replace(services, crash=tidy), privacy_desk(services)).run_once()

    assert len(swept) == 1
    assert federation.round()["status"] == "completed"
    assert federation.download("1.1.0").status_code == 200
