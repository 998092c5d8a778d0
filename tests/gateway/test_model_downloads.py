"""A model on its way out: the same bytes and validators from a file, from memory and from S3, in each mode."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any

import httpx
import numpy as np
import pytest
from federation import Federation, file_of
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services import s3
from services.s3 import S3Server
from sqlalchemy import update
from werkzeug.test import TestResponse

from gateway.api.downloads import Window
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.model_cache import Download
from gateway.services import Services, open_services
from gateway.storage.chunks import ClearReader
from gateway.tables import model_versions

Entries = Callable[..., list[dict[str, Any]]]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CONTENT = {"w": np.arange(600_000, dtype=np.float32)}
MODEL = file_of(CONTENT)
CHECKSUM = sha256(MODEL).hexdigest()


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    """A private S3 server for the tests of this file."""
    with s3.running("moto") as server:
        yield server


@pytest.fixture
def source() -> str:
    """Where the bytes come from, unless a test says otherwise."""
    return "file"


@pytest.fixture
def config(config: Config, source: str, request: pytest.FixtureRequest) -> Config:
    """A gateway whose models come from a file, from S3 through memory, or from S3 piece by piece."""
    if source == "file":
        return config
    server: S3Server = request.getfixturevalue("bucket")
    kept = 0 if source == "s3 in pieces" else config.cache_model_bytes
    return replace(config, cache_model_bytes=kept, **server.settings(f"test-{next(_NUMBERS)}"))


_NUMBERS = count()
each_source = pytest.mark.parametrize("source", ["file", "s3", "s3 in pieces"])


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with one model of more than two mebibytes."""
    made = Federation(services, http)
    assert made.add_model(CONTENT).status_code == 201
    return made


def ways_out(services: Services, way: Download) -> None:
    """Set `FLG_MODEL_DOWNLOAD`."""
    services.models.download = way


@each_source
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_range_is_a_slice(federation: Federation, data: st.DataObject) -> None:
    """Range on every source against Python's own slices (RFC 9110, section 14)."""
    size = len(MODEL)
    edges = st.sampled_from([0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, size - 1, size, size + 1, size * 2])
    place = edges | st.integers(0, size + 10)
    first, last = data.draw(st.none() | place), data.draw(st.none() | place)
    after = None if last is None else last + 1
    wanted = MODEL[first:after] if first is not None else MODEL[-last:] if last else b""
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"

    answer = federation.download("1.0.0", Range=text)

    if not wanted or (first is None and last is not None and last > size):
        assert answer.status_code in (416, 206)
        assert answer.status_code == 416 or answer.data == MODEL
        return
    start = size - len(wanted) if first is None else first
    assert (answer.status_code, answer.data) == (206, wanted)
    assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(wanted) - 1}/{size}"
    assert answer.headers["Content-Length"] == str(len(wanted))


CONDITIONS: dict[str, tuple[dict[str, str], int]] = {
    "none": ({}, 200),
    "the same": ({"If-None-Match": f'"{CHECKSUM}"'}, 304),
    "the same, in part": ({"If-None-Match": f'"{CHECKSUM}"', "Range": "bytes=0-1"}, 304),
    "another": ({"If-None-Match": '"0"'}, 200),
    "insisted": ({"If-Match": f'"{CHECKSUM}"'}, 200),
    "insisted in vain": ({"If-Match": '"0"'}, 412),
    "insisted in vain, in part": ({"If-Match": '"0"', "Range": "bytes=0-1"}, 412),
    "resumed": ({"If-Range": f'"{CHECKSUM}"', "Range": "bytes=0-1"}, 206),
    "resumed on another": ({"If-Range": '"0"', "Range": "bytes=0-1"}, 200),
    "resumed weakly": ({"If-Range": f'W/"{CHECKSUM}"', "Range": "bytes=0-1"}, 200),
    "newer": ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304),
    "two ranges": ({"Range": "bytes=0-1,4-5"}, 416),
}


@each_source
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_are_judged_before_the_range(federation: Federation, method: str) -> None:
    """RFC 9110, section 13.2.2: the same verdict whatever the source and the method."""
    facts = {
        "ETag": f'"{CHECKSUM}"',
        "X-Model-Checksum": CHECKSUM,
        "X-Model-Version": "1.0.0",
        "Cache-Control": "private, no-cache",
    }
    bodies = {200: MODEL, 206: MODEL[:2]}

    for what, (headers, status) in CONDITIONS.items():
        answer = federation.http.open(
            "/api/v1/models/1.0.0", method=method, headers={**federation.operator, **headers}, buffered=True
        )

        assert (what, answer.status_code) == (what, status)
        if (body := bodies.get(status)) is not None:
            told = {"Content-Length": str(len(body)), **facts}
            assert {name: answer.headers[name] for name in told} == told
            assert answer.data == (body if method == "GET" else b"")


@each_source
def test_each_download_is_in_the_log(federation: Federation, entries: Entries) -> None:
    """Promise 1: one entry for each request that gives bytes, and none for the others."""
    for headers in (
        {},
        {"Range": "bytes=0-1"},
        {"If_None_Match": f'"{CHECKSUM}"'},
        {"Range": "bytes=9999999-"},
    ):
        federation.download("1.0.0", **headers)

    noted = [entry["details"] for entry in entries("model.downloaded")]
    assert [details["status"] for details in noted] == [200, 206]
    assert {(details["model_version"], details["checksum"]) for details in noted} == {("1.0.0", CHECKSUM)}


@pytest.mark.parametrize("source", ["file", "s3 in pieces"])
def test_a_download_needs_little_memory(federation: Federation) -> None:
    """A large model goes out piece by piece: no part of the gateway holds all of it."""
    big = {"w": np.zeros(5_000_000, dtype=np.float32)}
    assert federation.add_model(big).status_code == 201
    federation.http.get("/api/v1/models/1.0.0", headers=federation.operator, buffered=True)
    answer = federation.http.get("/api/v1/models/2.0.0", headers=federation.operator)

    tracemalloc.start()
    sent = sum(len(piece) for piece in answer.iter_encoded())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    answer.close()

    assert sent == len(file_of(big))
    assert peak < 12 << 20


def rename(services: Services, blob_id: str) -> None:
    with services.engine.begin() as conn:
        conn.execute(update(model_versions).values(model_blob_url=f"blob:{blob_id}"))


@pytest.mark.parametrize("source", ["s3"])
def test_a_model_moved_to_its_own_name_is_found(federation: Federation, services: Services) -> None:
    """`models/v{version}.bin`: a row that was kept while the blob had its first name is read again."""
    filed = services.models.get_model_metadata("1.0.0").blob_id
    assert filed == "models/v1.0.0.bin"
    with services.blobs.incoming(first := "ab" * 16) as blob:
        blob.write(MODEL)
        blob.keep()
    rename(services, first)
    services.models.forget("1.0.0")
    assert services.models.get_model_metadata("1.0.0").blob_id == first
    rename(services, filed)
    services.blobs.delete(first)

    assert federation.download("1.0.0").data == MODEL


@pytest.mark.parametrize("source", ["s3"])
def test_redirect_gives_a_link_of_short_life(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """FLG_MODEL_DOWNLOAD=redirect: 307 to the store, which gives the same bytes and ranges without our token."""
    ways_out(services, Download.REDIRECT)

    answer = federation.download("1.0.0")
    link = answer.headers["Location"]
    whole, part = httpx.get(link), httpx.get(link, headers={"Range": "bytes=5-9"})

    assert (answer.status_code, answer.data, answer.headers["Cache-Control"]) == (307, b"", "no-store")
    assert (answer.headers["X-Model-Checksum"], answer.headers["X-Model-Version"]) == (CHECKSUM, "1.0.0")
    assert (whole.content, part.content) == (MODEL, MODEL[5:10])
    assert "X-Amz-Expires=60" in link
    assert [entry["details"]["status"] for entry in entries("model.downloaded")] == [307]
    assert link not in json.dumps(entries(), default=str)


@pytest.mark.parametrize("source", ["s3"])
@pytest.mark.parametrize("what", ["the same", "insisted in vain"])
def test_redirect_gives_no_link_where_no_bytes_are_due(
    federation: Federation, services: Services, what: str
) -> None:
    """Conditions are judged here, before a link is made; HEAD is answered here too."""
    ways_out(services, Download.REDIRECT)
    headers, status = CONDITIONS[what]

    answer = federation.download("1.0.0", **headers)
    head = federation.http.head("/api/v1/models/1.0.0", headers=federation.operator)

    assert (answer.status_code, "Location" in answer.headers) == (status, False)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(MODEL)))


@pytest.mark.parametrize(("source", "way"), [("file", Download.REDIRECT), ("s3", Download.ACCEL)])
def test_a_way_that_the_store_has_not_is_the_gateway_s_own(
    federation: Federation, services: Services, way: Download
) -> None:
    """A directory gives no link, a bucket has no file for nginx: the gateway sends the bytes itself."""
    ways_out(services, way)

    answer = federation.download("1.0.0", X_Sendfile_Type="X-Accel-Redirect")

    assert (answer.status_code, answer.data) == (200, MODEL)


def test_accel_names_the_file_to_nginx_alone(federation: Federation, services: Services) -> None:
    """FLG_MODEL_DOWNLOAD=accel: only an nginx that said it can send files gets a name for the bytes."""
    ways_out(services, Download.ACCEL)
    blob_id = services.models.get_model_metadata("1.0.0").blob_id

    def names_it(answer: TestResponse) -> bool:
        return answer.headers.get("X-Accel-Redirect") == f"/_fl_models/{blob_id[:2]}/{blob_id}"

    asked = {"X_Sendfile_Type": "X-Accel-Redirect"}
    named = [federation.download("1.0.0", **asked, **more) for more in ({}, {"Range": "bytes=0-9"})]
    own = [
        federation.download("1.0.0"),
        federation.download("1.0.0", X_Sendfile_Type="X-Sendfile"),
        federation.download("1.0.0", **asked, If_Match=f'"{CHECKSUM}"'),
        federation.download("1.0.0", **asked, If_Range='"0"', Range="bytes=0-9"),
    ]

    assert [(names_it(answer), answer.data) for answer in named] == [(True, b"")] * 2
    assert [(names_it(answer), answer.data) for answer in own] == [(False, MODEL)] * 4


@pytest.mark.parametrize("way", list(Download))
def test_a_missing_file_is_an_error_in_each_mode(
    federation: Federation, services: Services, entries: Entries, way: Download
) -> None:
    """No entry says that bytes went out which are not there."""
    ways_out(services, way)
    services.blobs.delete(services.models.get_model_metadata("1.0.0").blob_id)

    answer = federation.download("1.0.0", X_Sendfile_Type="X-Accel-Redirect")

    assert answer.status_code == 500
    assert entries("model.downloaded") == []


def test_a_file_of_another_length_is_not_sent(federation: Federation, services: Services) -> None:
    """A cut model is said to be damaged, before a header promises its length."""
    path = services.blobs.local_path(services.models.get_model_metadata("1.0.0").blob_id)
    assert path is not None
    path.write_bytes(MODEL[:-1])

    answer = federation.download("1.0.0")

    assert (answer.status_code, answer.json["code"]) == (500, "BLOB_CORRUPT")


def test_a_mode_that_there_is_not_is_refused(config: Config) -> None:
    """A typing error is told at the start."""
    with pytest.raises(ConfigError, match="proxy, accel, redirect"):
        open_services(replace(config, model_download="sendfile"), part="console")


@pytest.mark.usefixtures("database_url")
def test_a_window_is_a_file_of_its_own_stretch() -> None:
    """Read in any steps it gives its bytes and ends; it has a file number only where there is a file."""
    closed: list[bool] = []
    window = Window(
        ClearReader(lambda at, length: MODEL[at : at + length], len(MODEL), lambda: closed.append(True)),
        10,
        25,
    )

    pieces = [window.read(7), window.read(7), window.read(7), window.read(7)]
    with pytest.raises(OSError, match="fileno"):
        window.fileno()
    window.close()
    window.close()

    assert pieces == [MODEL[10:17], MODEL[17:24], MODEL[24:25], b""]
    assert closed == [True]
