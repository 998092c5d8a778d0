"""Links to packages: one opens one package once, for seven days, and each fetch is an entry."""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from federation import Federation, Silo
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import select
from werkzeug.test import TestResponse

from audit.reading import reading
from compliance.errors import NoPackage
from compliance.tables import package_links
from gateway.config import Config
from gateway.privacy import privacy_desk
from gateway.services import Services

Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def config(config: Config) -> Config:
    """A gateway with an address, and three failed proofs a minute from one."""
    return replace(config, public_url="https://gateway.example", rate_limits="auth_addresses=3/minute")


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    made.add_model()
    return made


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """Somebody who asked for their data."""
    return federation.register("ada's device")


@pytest.fixture
def dpo(federation: Federation) -> dict[str, str]:
    """Credentials of the data-protection officer."""
    return federation.staff("dpo")


@pytest.fixture
def case(federation: Federation, dpo: dict[str, str], silo: Silo) -> str:
    """The completed access request."""
    return opened(federation, dpo, silo, "access")


def opened(federation: Federation, dpo: dict[str, str], silo: Silo, kind: str) -> str:
    """The id of a request that was carried out."""
    wish = {"type": kind, "subject": {"client_id": silo.client_id}}
    answer = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo)
    assert (answer.status_code, answer.json["status"]) == (201, "completed"), answer.text
    case_id: str = answer.json["id"]
    return case_id


def new_link(federation: Federation, dpo: dict[str, str], case: str) -> str:
    """The path of a new link."""
    answer = federation.http.post(f"/api/v1/privacy/requests/{case}/link", headers=dpo)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    url: str = answer.json["url"]
    assert re.fullmatch(r"https://gateway\.example/packages/[A-Za-z0-9_-]{43}", url)
    return url.removeprefix("https://gateway.example")


def test_a_link_opens_its_package_once(
    federation: Federation, dpo: dict[str, str], case: str, entries: Entries
) -> None:
    """Looking, as link previewers do, uses nothing up; the button does, and both are told apart in the log."""
    path = new_link(federation, dpo, case)

    looks = [federation.http.get(path) for _ in range(3)]
    first = federation.http.post(path, buffered=True)
    again, look = federation.http.post(path), federation.http.get(path)

    assert {one.status_code for one in looks} == {200}
    assert '<form method="post">' in looks[0].text
    assert "<script" not in looks[0].text
    assert looks[0].headers["Cache-Control"] == "no-store"
    assert (first.status_code, first.mimetype) == (200, "application/zip")
    assert "data/clients.json" in zipfile.ZipFile(io.BytesIO(first.data)).namelist()
    assert (again.status_code, look.status_code) == (404, 404)
    assert "This link opens nothing" in again.text
    told = [entry["details"] for entry in entries("privacy.fetched")]
    assert told == [{"case_id": case, "way": "link"}]
    assert [entry["details"]["case_id"] for entry in entries("privacy.linked")] == [case]


def test_the_secret_of_a_link_is_kept_nowhere(
    federation: Federation, dpo: dict[str, str], case: str, services: Services
) -> None:
    """Promise 8: the table has its hash, the log not even that."""
    secret = new_link(federation, dpo, case).rpartition("/")[2]
    federation.sequence()

    with reading(services.engine) as conn:
        rows = conn.execute(select(package_links)).all()
        log = str(conn.exec_driver_sql("SELECT canonical FROM audit_log").all())

    assert len(rows) == 1
    assert secret not in str(rows) + log


def test_of_two_who_press_the_button_at_once_one_gets_it(
    federation: Federation, dpo: dict[str, str], case: str, services: Services
) -> None:
    """Compare-and-set: a link that leaked is not used twice unseen."""
    secret = new_link(federation, dpo, case).rpartition("/")[2]
    start = threading.Barrier(4)

    def press() -> bool:
        packages = privacy_desk(services).packages
        start.wait()
        try:
            packages.fetch_by_link(secret)
        except NoPackage:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        got = [future.result() for future in [pool.submit(press) for _ in range(4)]]

    assert sorted(got) == [False, False, False, True]


def test_a_store_that_cannot_give_the_package_uses_no_link_up(
    federation: Federation, dpo: dict[str, str], case: str, services: Services, entries: Entries
) -> None:
    """Whoever pressed the button and got nothing presses again later; the log says nothing that was not so."""
    path = new_link(federation, dpo, case)
    blob_id = privacy_desk(services).packages.open(case).blob_id
    stored = services.blobs.local_path(blob_id)
    assert stored is not None
    aside = stored.rename(stored.with_suffix(".aside"))

    failed = federation.http.post(path)
    by_token = federation.http.get(f"/api/v1/privacy/requests/{case}/package", headers=dpo)
    aside.rename(stored)
    given = federation.http.post(path, buffered=True)

    assert (failed.status_code, by_token.status_code, given.status_code) == (404, 404, 200)
    assert by_token.json["code"] == "NO_PACKAGE"
    assert [entry["details"]["way"] for entry in entries("privacy.fetched")] == ["link"]


def test_links_and_packages_are_gone_after_seven_days(
    federation: Federation,
    dpo: dict[str, str],
    case: str,
    clock: FixedClock,
    services: Services,
    entries: Entries,
) -> None:
    """The link dies with the day; the package is removed with its links, which is an entry."""
    path = new_link(federation, dpo, case)
    desk = privacy_desk(services)

    clock.advance(timedelta(days=7))
    late = federation.http.post(path)
    removed = desk.packages.expire(), desk.packages.expire()

    assert late.status_code == 404
    assert removed == (1, 0)
    assert [entry["details"] for entry in entries("privacy.expired")] == [{"case_id": case}]
    with reading(services.engine) as conn:
        assert conn.execute(select(package_links)).all() == []


def test_an_erasure_ends_package_and_links(
    federation: Federation, dpo: dict[str, str], case: str, silo: Silo, services: Services
) -> None:
    """Promise 5: no link is left that would open anything."""
    path = new_link(federation, dpo, case)

    opened(federation, dpo, silo, "erasure")

    assert federation.http.post(path).status_code == 404
    with reading(services.engine) as conn:
        assert conn.execute(select(package_links)).all() == []


def test_who_guesses_links_is_slowed_down(federation: Federation) -> None:
    """Rate limited by address as failed proofs are; a page says so."""
    tries: list[TestResponse] = [federation.http.get(f"/packages/{'x' * 43}") for _ in range(4)]

    assert [one.status_code for one in tries] == [404, 404, 404, 429]
    assert tries[-1].mimetype == "text/html"


def test_a_request_without_package_gets_no_link(
    federation: Federation, dpo: dict[str, str], silo: Silo
) -> None:
    """404, as for the package itself; and a link needs the right to export."""
    erased = opened(federation, dpo, silo, "erasure")

    answer = federation.http.post(f"/api/v1/privacy/requests/{erased}/link", headers=dpo)
    stranger = federation.http.post(f"/api/v1/privacy/requests/{erased}/link", headers=federation.operator)

    assert (answer.status_code, answer.json["code"]) == (404, "NO_PACKAGE")
    assert stranger.status_code == 403


def test_each_fetch_by_token_is_an_entry(
    federation: Federation, dpo: dict[str, str], case: str, entries: Entries
) -> None:
    """Who took a person's data out, and when, can be told later."""
    for _ in range(2):
        answer = federation.http.get(f"/api/v1/privacy/requests/{case}/package", headers=dpo, buffered=True)
        assert answer.headers["Cache-Control"] == "no-store"

    ways = [entry["details"]["way"] for entry in entries("privacy.fetched")]
    assert ways == ["token", "token"]


def test_a_link_travels_encrypted(federation: Federation, dpo: dict[str, str], case: str) -> None:
    """Whoever reads along on a network must not read the package."""
    path = new_link(federation, dpo, case)

    answer = federation.http.post(path, environ_base={"REMOTE_ADDR": "192.0.2.1"})

    assert answer.status_code == 400
    assert "INSECURE_TRANSPORT" in answer.text
