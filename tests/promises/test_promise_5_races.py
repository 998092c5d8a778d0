"""Promise 5, RULES 18: who sends, registers and signs in while being erased leaves nothing behind, whenever that is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from living.driver import BARE, Json, Person, good, tensors
from living.erasing import carry_out
from living.home import Home, home_in
from living.production import Servers
from living.readable import everything_opened, words_in_rows
from living.threads import LocalGateway, local_gateway_in
from proof_keys import assertion_form, jwk, key_set
from sqlalchemy import Engine, event

from audit.draft import Personal
from audit.events import Retention
from audit.reading import reading
from gateway.auth.clients import NewClient, add_client
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role
from gateway.privacy import privacy_desk
from gateway.rounds.record import find_round
from gateway.rounds.selection import draw
from gateway.services import Services

ISSUER = "https://gateway.example"
OFFICER = Personal("system", "officer")
SAMPLED = {"strategy": "random", "seen_within_s": 3600}
STAYS = {"subjects.subject_id", "privacy_requests.subject_id", "subject_keys.subject"}
"""That somebody of this random id was erased, when that was asked for, and keys of what is accounted for."""


@pytest.fixture(params=["embedded", "production"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """An empty home with an issuer, which JWTs need."""
    if request.param == "embedded":
        with home_in(tmp_path / "home", issuer=ISSUER) as made:
            yield made
    else:
        production: Servers = request.getfixturevalue("production_servers")
        with production.home(tmp_path / "home", issuer=ISSUER) as made:
            yield made


@dataclass(frozen=True, slots=True)
class Busy:
    """A silo that goes on as if nothing were: with a token of before, with new ones, with its key for devices."""

    gateway: LocalGateway
    client: NewClient
    token: Json
    number: int
    sampled: int

    def person(self, token: str) -> Person:
        """The silo with one of its tokens."""
        return Person(self.client.client_id, token)

    def do_everything(self, services: Services) -> list[int]:
        """Send, register, sign in and out, look, download, be drawn; with which status each ended."""
        ended = self._use(self.person(self.token["access_token"]))
        self._draw(services)
        answer = self.sign_in()
        if answer.status_code == 200:
            fresh = self.person(answer.json()["access_token"])
            ended += self._use(fresh)
            self._sign_out(fresh)
        return [*ended, answer.status_code]

    def sign_in(self) -> httpx.Response:
        """Ask for a token."""
        form = assertion_form(self.client.client_id, ISSUER, datetime.now(UTC))
        return self.gateway.http.post("/oauth/token", data=form)

    def _use(self, person: Person) -> list[int]:
        http, more = self.gateway.http, {"Idempotency-Key": "the silo's own"}
        device = {"device_id": "ward 7", "platform": "linux"}
        key = {"Authorization": f"Bearer {self.client.api_key}"}
        answers = [
            self.gateway.send(person, self.number, tensors(2), Idempotency_Key="an update's"),
            self.gateway.send(person, self.number, b"no update"),
            http.post("/api/v1/clients/register", json=device, headers=key | more),
            http.put("/api/v1/clients/me/public-key", json={"public_key": "no key"}, headers=person.headers),
            http.get("/api/v1/invitations", headers=person.headers),
            http.get("/api/v1/models/1.0.0", headers=person.headers),
        ]
        for answer in answers:
            assert answer.status_code < 500, answer.text
        return [answer.status_code for answer in answers]

    def _draw(self, services: Services) -> None:
        with reading(services.engine) as conn:
            found = find_round(conn, self.sampled)
        draw(services, found)

    def _sign_out(self, person: Person) -> None:
        form = assertion_form(self.client.client_id, ISSUER, datetime.now(UTC)) | {"token": person.token}
        assert self.gateway.http.post("/oauth/revoke", data=form).status_code < 500


def test_who_acts_at_any_moment_of_its_erasure_leaves_nothing_behind(home: Home) -> None:
    """Between two transactions, at moments spread over the erasure, all that a silo does is tried once more."""
    erased: list[Busy] = []
    ended: list[list[int]] = []
    with local_gateway_in(home, "sequencer") as gateway, home.stores() as services, home.stores() as others:
        number = _open_round(gateway)
        moments = _erase(services, _busy(gateway, others, number), lambda: None, at=0)
        step = moments // (16 if home.server is None else 8)
        for moment in range(1, moments + 1, step):
            busy = _busy(gateway, others, number)

            _erase(services, busy, lambda busy=busy: ended.append(busy.do_everything(others)), at=moment)  # type: ignore[misc]

            erased.append(busy)
        assert moments > 10
        assert {200, 201, 202} <= {*ended[0]}  # nothing was refused before it began
        assert {*ended[-1]} == {401}
        assert all({*busy.do_everything(others)} == {401} for busy in erased)
        assert _left(home, erased) == {}
        assert home.orphan_blobs() == set()
        assert home.verify_log().ok


def test_who_never_stops_acting_while_it_is_erased_leaves_nothing_behind(home: Home) -> None:
    """Three threads of the silo's against one erasure, with no moment chosen."""
    erased: list[Busy] = []
    with local_gateway_in(home) as gateway, home.stores() as others:
        number = _open_round(gateway)
        for _ in range(2):
            busy = _busy(gateway, others, number)
            with _going_on(busy, others):
                gateway.erase(Person(busy.client.client_id, ""))
            erased.append(busy)

        after = {status for busy in erased for status in busy.do_everything(others)}
        assert 401 in after
        assert after <= {401, 429}  # so many wrong proofs in a minute are not even looked at
        assert _left(home, erased) == {}
        assert home.orphan_blobs() == set()


def _open_round(gateway: LocalGateway, **wish: Any) -> int:
    """A round that waits for many, on a model of its own."""
    version = gateway.add_model()["version"]
    return gateway.open_round(BARE, base_version=version, planned_clients=99, min_clients=1, **wish)


def _busy(gateway: LocalGateway, services: Services, number: int) -> Busy:
    """A silo with a token, a round that waits for its update, and another that may draw it."""
    keys = key_set(jwk("Ed25519", kid="a"))
    client = add_client(
        services, "silo", Role.PARTICIPANT, auth=AuthMethod.PRIVATE_KEY_JWT, jwks=keys, token_format="jwt"
    )
    form = assertion_form(client.client_id, ISSUER, datetime.now(UTC))
    token = good(gateway.http.post("/oauth/token", data=form), 200)
    return Busy(gateway, client, token, number, sampled=_open_round(gateway, selection=SAMPLED))


def _erase(services: Services, busy: Busy, action: Callable[[], Any], *, at: int) -> int:
    """Erase the silo, and act at the moment of that number; how many moments there are."""
    desk = privacy_desk(services)
    case = desk.open("erasure", busy.client.subject_id, requested_by=OFFICER)
    desk.approve(case.id, by=OFFICER)
    with _between_transactions(services.engine, action, at) as passed:
        carry_out(services, case.id)
    return len(passed)


@contextmanager
def _between_transactions(engine: Engine, action: Callable[[], Any], at: int) -> Iterator[list[None]]:
    """Act when a connection is taken from the pool for that time: nothing is locked then."""
    passed: list[None] = []

    def note(*_: object) -> None:
        passed.append(None)
        if len(passed) == at:
            action()

    event.listen(engine, "checkout", note)
    try:
        yield passed
    finally:
        event.remove(engine, "checkout", note)


def _left(home: Home, erased: list[Busy]) -> dict[int, list[str]]:
    """Of each silo, by its number: columns that name it, its keys as a participant, what can be read under them."""
    names = {busy.client.client_id: at for at, busy in enumerate(erased)}
    names |= {busy.client.subject_id: at for at, busy in enumerate(erased)}
    found = [(word, column) for word, column in words_in_rows(home, names) if column not in STAYS]
    found += [
        (one.subject, one.place)
        for one in everything_opened(home)
        if one.subject in names and one.retention == Retention.PARTICIPATION
    ]
    with home.stores() as services:
        for busy in erased:
            keys = services.keystore.keys_of(busy.client.subject_id, Retention.PARTICIPATION)
            found += [(busy.client.subject_id, "subject_keys") for _ in keys]
    return {names[word]: [column for other, column in found if other == word] for word, _ in found}


@contextmanager
def _going_on(busy: Busy, services: Services) -> Iterator[None]:
    """Three threads in which the silo does everything, again and again."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            busy.do_everything(services)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(go_on) for _ in range(3)]
        try:
            yield
        finally:
            stop.set()
    for one in done:
        one.result()
