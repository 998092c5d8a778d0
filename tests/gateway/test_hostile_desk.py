"""Hostile callers of the privacy desk: bodies without end, JSON that is none, and the same call twice at once."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any
from urllib.parse import urlencode

import pytest
from federation import Federation, Silo
from flask import Flask
from flask.testing import FlaskClient
from staff import CHEAP, Browser, add_member, form_token
from werkzeug.test import TestResponse

from gateway.auth.clients import add_client
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION as PASSWORDS
from gateway.auth.scopes import Role
from gateway.config import Config
from gateway.services import Services

PRIVACY = "/api/v1/privacy"
PATH, HOLDS = f"{PRIVACY}/requests", f"{PRIVACY}/holds"
HUGE = 2 << 30
NOBODY = "3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1"
_MOST_READ = 3 << 19
_EARS = 4
Headers = dict[str, str]
Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def config(config: Config) -> Config:
    """A gateway with an address, as its links need."""
    return replace(config, public_url="https://gateway.example")


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation without rounds."""
    return Federation(services, http)


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """Whom requests are about."""
    return federation.register("a silo")


@pytest.fixture
def dpo(federation: Federation) -> Headers:
    """Credentials of the data-protection officer."""
    return federation.staff("dpo")


class Endless(io.BytesIO):
    """A body that goes on for ever and minds how much is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        assert size is not None
        assert 0 <= size <= _MOST_READ >= self.given, "the body is read on and on"
        self.given += size
        return b"a" * size

    def readinto(self, room: Any, /) -> int:
        """The same, into a place of the reader's."""
        room[:] = self.read(len(room))
        return len(room)


def opened(federation: Federation, dpo: Headers, silo: Silo, kind: str = "access") -> str:
    """The id of a request that was opened, and carried out."""
    wish = {"type": kind, "subject": {"client_id": silo.client_id}}
    answer = federation.http.post(PATH, json=wish, headers=dpo)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def received(federation: Federation, silo: Silo, kind: str = "access") -> str:
    """The id of a request that waits for its approval."""
    new = add_client(federation.services, "narrow", Role.DPO)
    form = {"grant_type": "client_credentials", "scope": "privacy:export privacy:erase"}
    token = federation.http.post("/oauth/token", data=form, auth=(new.client_id, new.client_secret)).json
    return opened(federation, {"Authorization": f"Bearer {token['access_token']}"}, silo, kind)


def placed(federation: Federation, dpo: Headers, silo: Silo) -> str:
    """The id of a new hold."""
    answer = federation.http.post(HOLDS, json=hold_wish(federation, silo), headers=dpo)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def hold_wish(federation: Federation, silo: Silo) -> dict[str, Any]:
    """The body of a hold."""
    ahead = (federation.services.clock() + timedelta(days=90)).isoformat()
    subject = {"client_id": silo.client_id}
    return {"subject": subject, "matter": "7 O 12/26", "basis": "e", "review_at": ahead}


def linked(federation: Federation, dpo: Headers, case: str) -> str:
    """The path of a new link to a package."""
    answer = federation.http.post(f"{PATH}/{case}/link", headers=dpo)
    assert answer.status_code == 201, answer.text
    return str(answer.json["url"]).removeprefix("https://gateway.example")


def revealer(services: Services, http: FlaskClient) -> Headers:
    """The credentials of a tool that may reveal."""
    new = add_client(services, "a tool", Role.AUDITOR, extra=["audit:reveal"])
    form = {"grant_type": "client_credentials", "scope": "audit:read audit:reveal"}
    token = http.post("/oauth/token", data=form, auth=(new.client_id, new.client_secret)).json["access_token"]
    return {"Authorization": f"Bearer {token}"}


# Bodies without end


def send_huge(http: FlaskClient, method: str, path: str, headers: Headers, kind: str) -> TestResponse:
    """A body of two gigabytes that announces its length."""
    return http.open(
        path,
        method=method,
        input_stream=Endless(),
        headers={**headers, "Content-Type": kind},
        environ_overrides={"CONTENT_LENGTH": str(HUGE)},
    )


def send_endless(http: FlaskClient, method: str, path: str, headers: Headers, kind: str) -> TestResponse:
    """A chunked body, whose length nobody knows."""
    return http.open(
        path,
        method=method,
        input_stream=Endless(),
        headers={**headers, "Transfer-Encoding": "chunked", "Content-Type": kind},
        environ_overrides={"wsgi.input_terminated": True},
    )


def desk_routes(case: str, hold: str) -> Iterator[tuple[str, str]]:
    """Everything that changes something at the desk over the API: with a body, then without one."""
    yield "POST", PATH
    for move in ("take", "approve", "refuse", "hold", "extend", "lift"):
        yield "POST", f"{PATH}/{case}/{move}"
    yield "POST", HOLDS
    yield "POST", f"{HOLDS}/{hold}/review"
    yield "DELETE", f"{HOLDS}/{hold}"
    yield "POST", f"{PATH}/{case}/link"
    yield "POST", f"{PATH}/{case}/commitment-key"


def test_two_gigabytes_are_no_body_of_the_desk(
    federation: Federation, silo: Silo, dpo: Headers, entries: Entries
) -> None:
    """413 from Content-Length alone, also where no body is needed: nothing is read, nothing is done."""
    case, hold = opened(federation, dpo, silo), placed(federation, dpo, silo)
    before = len(entries())

    for method, path in desk_routes(case, hold):
        answer = send_huge(federation.http, method, path, dpo, "application/json")

        assert (answer.status_code, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE"), path
    assert {entry["event_type"] for entry in entries()[before:]} <= {"access.refused", "request.refused"}


def test_a_chunked_body_is_given_up_at_its_limit(federation: Federation, silo: Silo, dpo: Headers) -> None:
    """413 as soon as it passes the limit; who needs no body reads none."""
    case, hold = opened(federation, dpo, silo), placed(federation, dpo, silo)

    for method, path in list(desk_routes(case, hold))[:-3]:
        answer = send_endless(federation.http, method, path, dpo, "application/json")

        assert (answer.status_code, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE"), path


@pytest.mark.parametrize("send", [send_huge, send_endless])
def test_a_revealing_reads_no_endless_reason(
    federation: Federation, services: Services, send: Callable[..., TestResponse]
) -> None:
    """413, and nothing is opened."""
    federation.sequence()
    headers = revealer(services, federation.http)

    answer = send(federation.http, "POST", "/api/v1/audit/entries/0/reveal", headers, "application/json")

    assert (answer.status_code, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("send", [send_huge, send_endless])
def test_a_link_is_not_used_up_by_who_sends_two_gigabytes(
    federation: Federation, silo: Silo, dpo: Headers, send: Callable[..., TestResponse]
) -> None:
    """Its button sends nothing: 413 as a page, and the person's own press still gets the package."""
    path = linked(federation, dpo, opened(federation, dpo, silo))

    refused = send(federation.http, "POST", path, {}, "application/x-www-form-urlencoded")
    given = federation.http.post(path, buffered=True)

    assert (refused.status_code, refused.mimetype) == (413, "text/html")
    assert (given.status_code, given.mimetype) == (200, "application/zip")


@pytest.mark.parametrize("send", [send_huge, send_endless])
def test_no_form_of_the_console_reads_on_and_on(
    federation: Federation, app: Flask, silo: Silo, dpo: Headers, send: Callable[..., TestResponse]
) -> None:
    """Each form, by somebody who may send it: 413 as a page, or a refusal that read nothing."""
    passwords = app.extensions[PASSWORDS] = Passwords(CHEAP)
    dana = Browser(app.test_client())
    dana.sign_in(add_member(federation.services, passwords, "Dana", role="dpo"))
    fills = {"case_id": opened(federation, dpo, silo), "hold_id": placed(federation, dpo, silo)}
    fills |= {"move": "take", "seq": "0", "step": "review", "word": "take"}
    paths = {}
    for route in app.url_map.iter_rules():
        if route.rule.startswith("/console") and "POST" in (route.methods or ()):
            paths[route.endpoint] = re.sub(
                r"<(?:\w+:)?(\w+)>", lambda part: fills.get(part[1], NOBODY), route.rule
            )
    kind = "application/x-www-form-urlencoded"

    told = {name: send(dana.http, "POST", path, {}, kind) for name, path in paths.items()}

    assert len(told) > 8
    assert {answer.status_code for answer in told.values()} <= {403, 404, 413}
    desk = {name for name in told if name.startswith(("console_requests.", "console_holds."))}
    assert {told[name].status_code for name in desk} == {413}
    assert {told[name].mimetype for name in desk} == {"text/html"}


def test_a_form_in_chunks_is_taken_whole_or_not_at_all(
    federation: Federation, app: Flask, silo: Silo
) -> None:
    """A form whose end would be cut off says 413, though its token came first; a short one in chunks is a form."""
    passwords = app.extensions[PASSWORDS] = Passwords(CHEAP)
    dana = Browser(app.test_client())
    dana.sign_in(add_member(federation.services, passwords, "Dana", role="dpo"))
    path = "/console/requests/new"
    fields = {"form_token": form_token(dana.get(path), path), "type": "access", "client": silo.client_id}

    def send(beside: str) -> TestResponse:
        return dana.http.post(
            path,
            input_stream=io.BytesIO(urlencode(fields | {"beside": beside}).encode()),
            headers={"Transfer-Encoding": "chunked", "Content-Type": "application/x-www-form-urlencoded"},
            environ_overrides={"wsgi.input_terminated": True},
        )

    long, short = send("x" * 20_000), send("x")

    assert (long.status_code, short.status_code) == (413, 303)


def test_a_token_form_in_chunks_is_not_cut_and_taken(federation: Federation, app: Flask) -> None:
    """What stands behind the cut would never be looked at, a second secret or a second scope among it."""
    added = add_client(federation.services, "tool", Role.OPERATOR)
    fields = {
        "grant_type": "client_credentials",
        "client_id": added.client_id,
        "client_secret": added.client_secret,
    }

    def send(beside: str) -> TestResponse:
        return app.test_client().post(
            "/oauth/token",
            input_stream=io.BytesIO(urlencode(fields | {"beside": beside}).encode()),
            headers={"Transfer-Encoding": "chunked", "Content-Type": "application/x-www-form-urlencoded"},
            environ_overrides={"wsgi.input_terminated": True},
        )

    long, short = send("x" * 20_000), send("x")

    assert (long.status_code, short.status_code) == (413, 200)


# JSON that is none, or means two things

OPEN = '{"type": "access", "subject": {"client_id": "%s"}%s}'
BROKEN = [
    '{"reason": NaN}',
    '{"reason": "\\ud800"}',
    '{"reason": ' + "[" * 5000 + "]" * 5000 + "}",
    '{"version": NaN}',
    '{"version": 1e400}',
    '{"reason": "a", "reason": "b"}',
    '{"reason": "\xff"}',
    "[" * 100_000,
    "",
    "null",
    "[]",
]
WRONG = [
    ('{"version": "1"}', "/version"),
    ('{"version": 1.5}', "/version"),
    ('{"version": true}', "/version"),
    ('{"reason": 7}', "/reason"),
    ('{"reason": null}', "/reason"),
    ('{"note": ["x"]}', "/note"),
    ('{"exemption": 1}', "/exemption"),
    ('{"and": 1}', "/and"),
    ('{"reason": "%s"}' % ("x" * 2001), "/reason"),
]


def sent(federation: Federation, path: str, headers: Headers, body: str) -> TestResponse:
    """Send text as JSON, whatever it is."""
    kind = {"content_type": "application/json"}
    return federation.http.post(path, data=body.encode("latin-1"), headers=headers, **kind)


def test_a_move_with_json_that_is_none_moves_nothing(
    federation: Federation, silo: Silo, dpo: Headers
) -> None:
    """Promise 7: 4xx, each wrong member named; the request stays as it was."""
    case = received(federation, silo)
    before = federation.http.get(f"{PATH}/{case}", headers=dpo).json

    for move in ("take", "refuse", "hold", "extend", "approve", "lift"):
        for body in filter(None, BROKEN):  # no body at all is a move without words
            answer = sent(federation, f"{PATH}/{case}/{move}", dpo, body)
            assert answer.status_code in (400, 422), (move, body[:40], answer.status_code)
        for body, pointer in WRONG:
            answer = sent(federation, f"{PATH}/{case}/{move}", dpo, body)
            assert answer.status_code == 422, (move, body[:40], answer.text)
            if move != "lift":
                assert pointer in {error["pointer"] for error in answer.json["errors"]}, (move, body[:40])
    after = federation.http.get(f"{PATH}/{case}", headers=dpo).json
    assert after == before


def test_a_version_that_no_request_has_is_no_crash(federation: Federation, silo: Silo, dpo: Headers) -> None:
    """A number of a hundred digits is another version, and no database is asked for it."""
    case, hold = received(federation, silo), placed(federation, dpo, silo)
    ahead = json.dumps(hold_wish(federation, silo)["review_at"])

    for digits in ("9" * 100, "-" + "9" * 100, str(1 << 63)):
        taken = sent(federation, f"{PATH}/{case}/take", dpo, f'{{"version": {digits}}}')
        body = f'{{"version": {digits}, "review_at": {ahead}}}'
        reviewed = sent(federation, f"{HOLDS}/{hold}/review", dpo, body)

        assert (taken.status_code, taken.json["code"]) == (409, "CASE_CHANGED")
        assert (reviewed.status_code, reviewed.json["code"]) == (409, "HOLD_CHANGED")


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        (', "type": "erasure"', ""),
        (', "correction": {"name": NaN}', ""),
        (', "correction": {"name": 1e400}', ""),
        (', "correction": {"a": 1, "a": 2}', ""),
        (', "correction": {"name": "\\udfff"}', ""),
        (', "correction": ' + '{"a":' * 3000 + "1" + "}" * 3000, ""),
        (', "correction": []', "/correction"),
        (', "received_at": 1e30', "/received_at"),
        (', "received_at": 1790000000', "/received_at"),
        (', "received_at": "9999-12-31T23:59:59-23:00"', None),
        (', "received_at": "0001-01-01T00:00:00+14:00"', None),
        (', "subjects": {}', "/subjects"),
    ],
)
def test_a_request_that_json_cannot_carry_is_not_opened(
    federation: Federation, silo: Silo, dpo: Headers, more: str, pointer: str | None
) -> None:
    """400 or 422, and no request is there; where a member is wrong it is named."""
    answer = sent(federation, PATH, dpo, OPEN % (silo.client_id, more))
    total = federation.http.get(PATH, headers=dpo).json["pagination"]["total_items"]

    assert answer.status_code in (400, 422), answer.text
    if pointer:
        assert pointer in {error["pointer"] for error in answer.json["errors"]}
    assert total == 0


@pytest.mark.parametrize(
    "correction",
    [
        '{"name": "a\\u0000b"}',
        '{"device": {"platform": "a\\u0000b"}}',
        '{"device": {"capabilities": {"a\\u0000b": 1}}}',
        '{"device": {"capabilities": {"cores": 1%s}}}' % ("0" * 400),
        '{"device": {"capabilities": ' + '{"a":' * 90 + "1" + "}" * 90 + "}}",
    ],
    ids=["a NUL in the name", "a NUL in the platform", "a NUL as a name", "a huge integer", "deep"],
)
def test_a_correction_that_no_store_can_keep_waits_for_a_person(
    federation: Federation, silo: Silo, dpo: Headers, correction: str
) -> None:
    """Taken down or refused, on every database; never a 500, and the client stays as it was."""
    body = OPEN.replace("access", "rectification") % (silo.client_id, f', "correction": {correction}')
    before = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator).json

    answer = sent(federation, PATH, dpo, body)

    after = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator)
    assert answer.status_code in (201, 400, 422), answer.text
    assert after.status_code == 200
    if answer.json.get("status") != "completed":
        assert after.json == before


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"matter": 7}, "/matter"),
        ({"basis": ["e"]}, "/basis"),
        ({"review_at": 4e9}, "/review_at"),
        ({"review_at": "9999-12-31T23:59:59-23:00"}, "/review_at"),
        ({"scope": "*"}, "/scope"),
        ({"scope": [1]}, "/scope/0"),
        ({"subject": []}, "/subject"),
        ({"matter": "x" * 2001}, "/matter"),
    ],
)
def test_a_hold_of_wrong_types_names_them(
    federation: Federation, silo: Silo, dpo: Headers, change: dict[str, Any], pointer: str
) -> None:
    """422 with the member; nothing is placed."""
    answer = federation.http.post(HOLDS, json=hold_wish(federation, silo) | change, headers=dpo)

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert pointer in {error["pointer"] for error in answer.json["errors"]}
    assert federation.http.get(HOLDS, headers=dpo).json["data"] == []


@pytest.mark.parametrize("body", ['{"reason": NaN}', '{"reason": "\\ud800"}', '{"reason": 7}', *BROKEN[5:]])
def test_a_revealing_without_a_readable_reason_opens_nothing(
    federation: Federation, services: Services, entries: Entries, body: str
) -> None:
    """400 or 422; and a place that no database can count to is no place."""
    federation.sequence()
    headers = revealer(services, federation.http)

    answer = sent(federation, "/api/v1/audit/entries/0/reveal", headers, body)
    nowhere = sent(federation, f"/api/v1/audit/entries/{'9' * 40}/reveal", headers, '{"reason": "x"}')

    assert answer.status_code in (400, 422), answer.text
    assert nowhere.status_code in (404, 422)
    assert not entries("audit.revealed")


# The same call twice at once


def at_once(app: Flask, method: str, path: str, headers: list[Headers]) -> list[TestResponse]:
    """The same call by several at the same moment."""
    start = Barrier(len(headers))

    def call(one: Headers) -> TestResponse:
        client = app.test_client()
        start.wait(10)
        return client.open(path, method=method, headers=one, buffered=True)

    with ThreadPoolExecutor(len(headers)) as pool:
        return list(pool.map(call, headers))


def moves(entries: Entries, case: str, transition: str) -> int:
    """How many entries tell of a move."""
    told = [entry["details"] for entry in entries("privacy.moved")]
    return sum(one["case_id"] == case and one.get("transition") == transition for one in told)


def test_a_request_taken_by_many_at_once_is_one_s(
    federation: Federation, app: Flask, silo: Silo, dpo: Headers, entries: Entries
) -> None:
    """200 or 409 each, as many entries as there were takings, and one person's own repetition is none."""
    case = received(federation, silo)

    answers = at_once(app, "POST", f"{PATH}/{case}/take", [dpo] * _EARS)

    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
    assert moves(entries, case, "take") == 1


def test_an_approval_by_many_at_once_is_one_package(
    federation: Federation, app: Flask, silo: Silo, dpo: Headers, entries: Entries
) -> None:
    """One approval, one export; everybody is told that it is done, or under way."""
    case = received(federation, silo)

    answers = at_once(app, "POST", f"{PATH}/{case}/approve", [dpo] * _EARS)

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json["status"] for answer in answers} == {"completed"}
    assert moves(entries, case, "approve") == 1
    assert len(entries("privacy.exported")) == 1


def test_a_hold_ended_by_many_at_once_ends_once(
    federation: Federation, app: Flask, silo: Silo, dpo: Headers, entries: Entries
) -> None:
    """The first call of each person, at once: one asks, another agrees, and the log tells each once."""
    hold = placed(federation, dpo, silo)
    others = [federation.staff("dpo") for _ in range(_EARS - 1)]

    answers = at_once(app, "DELETE", f"{HOLDS}/{hold}", [dpo, *others])
    again = at_once(app, "DELETE", f"{HOLDS}/{hold}", [dpo, *others])

    assert {answer.status_code for answer in (*answers, *again)} <= {200, 202, 409}
    assert federation.http.get(f"{HOLDS}/{hold}", headers=dpo).json["is_active"] is False
    assert len(entries("hold.lifted")) == 1
    assert len(entries("hold.release_asked")) <= 1


def test_a_hold_that_one_person_ends_twice_at_once_waits_for_another(
    federation: Federation, app: Flask, silo: Silo, dpo: Headers, entries: Entries
) -> None:
    """Two clicks of one person are not two people."""
    hold = placed(federation, dpo, silo)

    answers = at_once(app, "DELETE", f"{HOLDS}/{hold}", [dpo] * _EARS)

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert federation.http.get(f"{HOLDS}/{hold}", headers=dpo).json["is_active"] is True
    assert not entries("hold.lifted")


def test_a_link_pressed_by_many_at_once_gives_one_package(
    federation: Federation, app: Flask, silo: Silo, dpo: Headers, entries: Entries
) -> None:
    """One ZIP, and for the others the page of a dead link; one entry."""
    path = linked(federation, dpo, opened(federation, dpo, silo))

    answers = at_once(app, "POST", path, [{}] * _EARS)

    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    assert [entry["details"]["way"] for entry in entries("privacy.fetched")] == ["link"]
