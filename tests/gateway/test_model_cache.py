"""Models at hand: what is kept, what is believed, and how little a Redis in any condition can do to a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from federation import Federation, file_of, tensors
from flask import Flask
from flask.testing import FlaskClient
from services import redis_server
from services.redis_server import RedisServer
from sqlalchemy import event, update

from gateway import model_cache
from gateway.caching.shared import Breaker, SharedModels
from gateway.config import Config
from gateway.errors import BlobCorrupt, NotFound
from gateway.model_cache import ROW_AGE_S, ModelCache
from gateway.rounds.publishing import promote
from gateway.services import Services
from gateway.storage.blobs import BlobStore, ClearReader
from gateway.tables import model_versions

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CONTENT = {"w": np.arange(600_000, dtype=np.float32)}  # more than two pieces of a mebibyte
MODEL = file_of(CONTENT)


class CountedBlobs:
    """The real store, which counts how often a model is read from it; a closed gate holds the readers up."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.reads = 0
        self.gate = threading.Event()
        self.gate.set()

    def clear_reader(self, blob_id: str) -> ClearReader:
        self.reads += 1
        assert self.gate.wait(20)
        return self._blobs.clear_reader(blob_id)


@dataclass(slots=True)
class Kept:
    """Caches over a store that counts, as several processes have them, and the hands of their clock."""

    services: Services
    server: RedisServer | None
    blobs: CountedBlobs
    now_s: float = 0.0

    def cache(self, *, largest_bytes: int = 64 << 20) -> ModelCache:
        """The cache of one more process."""
        return ModelCache(
            self.services.engine,
            self.blobs,  # type: ignore[arg-type]
            largest_bytes=largest_bytes,
            shared=self.shared() if self.server else None,
            now_s=lambda: self.now_s,
        )

    def shared(self) -> SharedModels:
        assert self.server is not None
        breaker = Breaker(now_s=lambda: self.now_s)
        return SharedModels(self.server.url, "test", 3600, breaker, read_timeout_s=10.0, whole_timeout_s=10.0)

    def keys(self) -> list[bytes]:
        """What Redis holds; nothing, if there is none."""
        if self.server is None:
            return []
        with self.server.client() as client:
            return sorted(client.keys())


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One Redis for the tests of this file, which empty it."""
    with redis_server.running(password="sesame") as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
def kept(request: pytest.FixtureRequest, services: Services, http: FlaskClient) -> Kept:
    """A gateway with one model, without and with a Redis."""
    Federation(services, http).add_model(CONTENT)
    server: RedisServer | None = None
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        with server.client() as client:
            client.flushall()
    return Kept(services, server, CountedBlobs(services.blobs))


def change_row(services: Services, **values: Any) -> None:
    """What another process, or a restored database, does to the version's row."""
    with services.engine.begin() as conn:
        conn.execute(update(model_versions).where(model_versions.c.version == "1.0.0").values(**values))


def test_a_model_is_read_from_the_store_once(kept: Kept) -> None:
    """9.1 of the specification: what was asked for lately is at hand."""
    cache = kept.cache()

    got = [cache.get_global_model("1.0.0") for _ in range(3)]

    assert set(got) == {MODEL}
    assert kept.blobs.reads == 1


def test_many_who_ask_at_once_wait_for_one_loader(kept: Kept) -> None:
    """Single-flight: a new model does not bring the store a request from every client."""
    cache = kept.cache()
    kept.blobs.gate.clear()

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(cache.get_global_model, "1.0.0") for _ in range(12)]
        time.sleep(0.3)
        kept.blobs.gate.set()
        got = {one.result(20) for one in asked}

    assert (got, kept.blobs.reads) == ({MODEL}, 1)


def test_a_failed_load_is_told_to_all_and_tried_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever, and no failure is kept."""
    cache = kept.cache()
    (path,) = (kept.services.blobs.local_path(name) for name in kept.services.blobs.names())
    assert path is not None
    path.rename(path.with_suffix(".away"))
    kept.blobs.gate.clear()

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(cache.get_global_model, "1.0.0") for _ in range(3)]
        time.sleep(0.2)
        kept.blobs.gate.set()
        failed = [type(one.exception(20)) for one in asked]
    path.with_suffix(".away").rename(path)

    assert all(issubclass(kind, FileNotFoundError) for kind in failed)
    assert cache.get_global_model("1.0.0") == MODEL


def test_a_model_too_large_is_never_kept(kept: Kept) -> None:
    """FLG_CACHE_MODEL_BYTES: such a model is read from the store piece by piece."""
    cache = kept.cache(largest_bytes=len(MODEL) - 1)

    assert cache.get_global_model("1.0.0") is None
    assert (kept.blobs.reads, kept.keys()) == (0, [])


def test_a_damaged_blob_is_reported_and_not_spread(kept: Kept) -> None:
    """What is kept is what was published, or nothing."""
    cache = kept.cache()
    (path,) = (kept.services.blobs.local_path(name) for name in kept.services.blobs.names())
    assert path is not None
    path.write_bytes(MODEL[:-1] + b"!")

    for _ in range(2):
        with pytest.raises(BlobCorrupt):
            cache.get_global_model("1.0.0")

    assert (kept.blobs.reads, kept.keys()) == (2, [])


def test_a_blob_that_grew_is_not_loaded_into_memory(kept: Kept) -> None:
    """The bound on memory goes by the size that was published: a blob of another one is not read at all."""
    cache = kept.cache()
    (path,) = (kept.services.blobs.local_path(name) for name in kept.services.blobs.names())
    assert path is not None
    with path.open("r+b") as file:
        file.truncate(64 << 20)

    with pytest.raises(BlobCorrupt, match="length"):
        cache.get_global_model("1.0.0")


def test_an_unknown_version_is_asked_for_each_time(kept: Kept) -> None:
    """That a model is missing is not remembered: it may be published the next moment."""
    cache = kept.cache()

    for _ in range(2):
        with pytest.raises(NotFound):
            cache.get_global_model("7.0.0")


def test_a_row_is_read_once_in_ten_seconds(kept: Kept) -> None:
    """9.1: metadata stays in memory; what another process did to the row is seen soon."""
    cache, statements = kept.cache(), []
    event.listen(kept.services.engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))

    first = [cache.get_model_metadata("1.0.0").accuracy for _ in range(5)]
    asked = sum("FROM model_versions" in statement for statement in statements)
    change_row(kept.services, accuracy=0.5)
    kept.now_s += ROW_AGE_S - 1
    before = cache.get_model_metadata("1.0.0").accuracy
    kept.now_s += 2
    after = cache.get_model_metadata("1.0.0").accuracy

    assert (first, asked, before, after) == ([None] * 5, 1, None, 0.5)


def test_a_blob_that_was_moved_is_found_under_its_new_name(kept: Kept) -> None:
    """An S3 store files a model under its version after its publication: the kept row is read again."""
    cache = kept.cache()
    old = cache.get_model_metadata("1.0.0").blob_id
    path = kept.services.blobs.local_path(old)
    assert path is not None
    path.rename(path.with_name(moved := old[:2] + "f" * 30))
    change_row(kept.services, model_blob_url=f"blob:{moved}")

    assert cache.get_global_model("1.0.0") == MODEL
    assert cache.get_model_metadata("1.0.0").blob_id == moved


def test_a_restored_database_gets_its_own_bytes(kept: Kept) -> None:
    """RULES 20: the same version may be another model after a restore; the checksum tells them apart."""
    running = kept.cache()
    running.get_global_model("1.0.0")
    other = file_of(tensors(0.5))
    with kept.services.blobs.incoming("ab" * 16) as blob:
        blob.write(other)
        blob.keep()
    change_row(
        kept.services,
        model_blob_url=f"blob:{'ab' * 16}",
        checksum=sha256(other).hexdigest(),
        size_bytes=len(other),
    )

    kept.now_s += ROW_AGE_S + 1

    assert [cache.get_global_model("1.0.0") for cache in (running, kept.cache())] == [other, other]


def test_a_roll_back_forgets_what_was_kept(kept: Kept, services: Services) -> None:
    """Issue 4, 5: invalidation on roll-back."""
    cache = kept.cache()
    object.__setattr__(services, "models", cache)
    cache.get_global_model("1.0.0")
    change_row(services, accuracy=0.5)

    promote(services, "1.0.0")

    assert kept.keys() == []
    assert cache.get_model_metadata("1.0.0").accuracy == 0.5
    assert (cache.get_global_model("1.0.0"), kept.blobs.reads) == (MODEL, 2)


def test_the_functions_of_the_specification_are_there(kept: Kept, app: Flask) -> None:
    """9.1: `get_model_metadata(version)` and `get_global_model(version)`, inside of the application."""
    with app.app_context():
        row = model_cache.get_model_metadata("1.0.0")
        data = model_cache.get_global_model("1.0.0")

    assert (row.version, row.checksum, data) == ("1.0.0", sha256(MODEL).hexdigest(), MODEL)


def test_health_says_how_the_cache_is(http: FlaskClient, config: Config, services: Services) -> None:
    """A Redis that is away makes `degraded`, and nothing more: the gateway takes work."""
    healthy = http.get("/health").json
    away = SharedModels("redis://127.0.0.1:1/0", "test", 60, Breaker())
    object.__setattr__(
        services, "models", ModelCache(services.engine, services.blobs, largest_bytes=1, shared=away)
    )

    degraded = http.get("/ready")

    assert healthy["services"]["cache"] == "healthy"
    assert (degraded.status_code, degraded.json["services"]["cache"]) == (200, "degraded")
    assert degraded.json["status"] == "degraded"
