"""The log as tiles over HTTP: a reader of C2SP tlog-tiles proves all of it, and nothing unsigned leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from federation import Federation
from flask.testing import FlaskClient
from sqlalchemy import insert
from tile_reader import open_checkpoint, read_log

from audit.events import EventType
from audit.store import add_cosignature
from audit.tables import audit_pending
from gateway.api.audit import log_vkey
from gateway.app import create_app
from gateway.services import Services

Fetch = Callable[[str], bytes]


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation whose signed log has more than one tile."""
    made = Federation(services, http)
    drafts = [services.trail.draft(EventType.AUDIT_TRIED, details={"count": number}) for number in range(300)]
    rows = [{"id": one.id, "body": one.body().decode(), "created_at": one.time} for one in drafts]
    with services.engine.begin() as conn:
        conn.execute(insert(audit_pending), rows)
    made.sequence()
    return made


@pytest.fixture
def auditor(federation: Federation) -> dict[str, str]:
    """Credentials with audit:read."""
    return federation.staff("auditor")


def _fetch(http: FlaskClient, headers: dict[str, str]) -> Fetch:
    def fetch(path: str) -> bytes:
        answer = http.get(f"/tlog/{path}", headers=headers)
        assert answer.status_code == 200, (path, answer.text)
        return answer.data

    return fetch


def test_a_reader_of_the_specification_proves_the_log(
    services: Services, federation: Federation, auditor: dict[str, str]
) -> None:
    """Signature, every tile, every entry, the root; again after the log has grown."""
    fetch = _fetch(federation.http, auditor)

    first = read_log(fetch, log_vkey(services))
    federation.register()
    assert read_log(fetch, log_vkey(services)) == first  # what is pending is not shown
    federation.sequence()
    later = read_log(fetch, log_vkey(services))

    assert len(first) > 300
    assert later[: len(first)] == first
    assert len(later) > len(first)
    held = federation.http.get(f"/api/v1/audit/entries/{len(first)}", headers=auditor)
    assert held.data == later[len(first)]


def test_tiles_are_for_ever_and_the_checkpoint_is_not(
    federation: Federation, auditor: dict[str, str]
) -> None:
    """The headers of the specification; a cache asks for a tile once, and for the checkpoint by its ETag."""
    get = federation.http.get
    for path in ("tile/0/000", "tile/0/001.p/9", "tile/entries/000", "tile/1/000.p/1"):
        tile = get(f"/tlog/{path}", headers=auditor)
        assert tile.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert tile.headers["Content-Type"] == "application/octet-stream"
        again = get(f"/tlog/{path}", headers={**auditor, "If-None-Match": tile.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
    shown = get("/tlog/checkpoint", headers=auditor)
    assert shown.headers["Cache-Control"] == "no-cache"
    assert shown.headers["Content-Type"] == "text/plain; charset=utf-8"
    unchanged = {**auditor, "If-None-Match": shown.headers["ETag"]}
    assert get("/tlog/checkpoint", headers=unchanged).status_code == 304
    federation.register()
    federation.sequence()
    assert get("/tlog/checkpoint", headers=unchanged).status_code == 200


def test_what_no_checkpoint_covers_is_not_found(
    services: Services, federation: Federation, auditor: dict[str, str]
) -> None:
    """One entry more than was signed, a level too high, an index beyond reason; and no cache keeps the answer."""
    get = federation.http.get
    note = get("/tlog/checkpoint", headers=auditor).text
    width = open_checkpoint(note, log_vkey(services))[1] - 256
    far = "x999/" * 6 + "999"

    assert get(f"/tlog/tile/0/001.p/{width}", headers=auditor).status_code == 200
    for path in (
        f"0/001.p/{width + 1}",
        f"entries/001.p/{width + 1}",
        "0/001",
        "0/002.p/1",
        "1/000.p/2",
        "1/000",
        "2/000.p/1",
        "63/000.p/1",
        f"0/{far}",
        f"entries/{far}",
    ):
        answer = get(f"/tlog/tile/{path}", headers=auditor)
        assert (answer.status_code, answer.json["code"]) == (404, "NOT_FOUND"), path
        assert answer.headers["Cache-Control"] == "no-store"


def test_another_spelling_is_not_found(federation: Federation, auditor: dict[str, str]) -> None:
    """One name for each tile, and no redirect to it."""
    paths = "64/000 00/000 0/0 0/x000/000 0/000.p/0 0/000.p/256 0/000.p/01 0//000 0/000/ 0/..%2f000 0/000%00"
    for path in (*paths.split(), "entries/-01", "data/000", "0/" + "x001/" * 2000 + "000"):
        assert federation.http.get(f"/tlog/tile/{path}", headers=auditor).status_code == 404, path


def test_a_token_is_needed_unless_the_log_is_public(services: Services, federation: Federation) -> None:
    """`audit:read`; with FLG_TLOG_PUBLIC nobody is asked, and shared caches may keep tiles."""
    paths = ("/tlog/checkpoint", "/tlog/tile/0/000", "/tlog/tile/entries/000")
    operator = federation.register().headers
    opened = create_app(replace(services, config=replace(services.config, tlog_public=True))).test_client()

    for path in paths:
        assert federation.http.get(path).status_code == 401
        assert federation.http.get(path, headers=operator).status_code == 403
        assert opened.get(path).status_code == 200
    assert opened.get(paths[1]).headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert opened.get("/api/v1/audit/checkpoint").status_code == 401
    assert len(read_log(_fetch(opened, {}), log_vkey(services))) > 300


def test_where_witnesses_are_wanted_nothing_unwitnessed_is_shown(
    services: Services, federation: Federation, auditor: dict[str, str]
) -> None:
    """No checkpoint before the quorum; then the one that has it, and its tiles alone."""
    config = replace(services.config, witnesses="http://127.0.0.1:1 w+00000000+AA", witness_quorum=2)
    app = create_app(replace(services, config=config)).test_client()
    size = open_checkpoint(federation.http.get("/tlog/checkpoint", headers=auditor).text, log_vkey(services))[
        1
    ]
    assert app.get("/tlog/checkpoint", headers=auditor).status_code == 404
    assert app.get("/tlog/tile/0/000", headers=auditor).status_code == 404

    with services.engine.begin() as conn:
        for witness in ("a", "b"):
            add_cosignature(conn, size, witness, f"— {witness} AAAAAAAA\n", services.clock())
    federation.register()
    federation.sequence()

    shown = app.get("/tlog/checkpoint", headers=auditor).text
    assert shown.endswith("— a AAAAAAAA\n— b AAAAAAAA\n")
    assert len(read_log(_fetch(app, auditor), log_vkey(services))) == size
    assert app.get(f"/tlog/tile/0/001.p/{size - 255}", headers=auditor).status_code == 404
