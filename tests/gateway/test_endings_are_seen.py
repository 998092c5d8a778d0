"""What was ended here is refused there: by every worker of the machine at once, by every replica within a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from living.home import Home, home_in
from living.processes import Gateway, gateway_in
from refused.browsing import REDIRECT, allow, new_pkce, wish
from services import redis_server
from services.postgresql import PostgreSQL

from gateway.auth.clients import Move, NewClient, add_client, move_client
from gateway.auth.people.accounts import Move as PersonMove
from gateway.auth.people.accounts import Proofs, add_person, move_person
from gateway.auth.people.passwords import Cost, Passwords
from gateway.auth.scopes import Role
from gateway.services import Services

CLIENTS = "/api/v1/clients"
GRANT = {"grant_type": "client_credentials"}
NURSE, PASSWORD = "nurse@ward.example", "canary correct horse battery"
WEB = ("--only", "web", "--port", "0")
SETTINGS = {"public_url": "https://fl.example.com", "log_origin": "fl.example.com", "siem_sinks": ""}
WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A token that is good, and the way to end it."""

    token: str
    end: Callable[[], object]


@dataclass(slots=True)
class Party:
    """Gateways that share a database; each has an HTTP client, and each machine a console."""

    consoles: list[Services]
    gateways: list[Gateway]
    user_id: str = ""

    def add(self, **about: Any) -> NewClient:
        return add_client(self.consoles[0], "a client", Role.OPERATOR, **about)

    def console(self, number: int) -> Services:
        """The console of the machine on which that gateway runs."""
        return self.consoles[number % len(self.consoles)]

    def status(self, number: int, token: str) -> int:
        """What one of them answers to a token."""
        headers = {"Authorization": f"Bearer {token}"}
        return self.gateways[number].http.get(CLIENTS, headers=headers).status_code

    def post(self, number: int, path: str, new: NewClient, **form: str) -> httpx.Response:
        auth = (new.client_id, new.client_secret)
        return self.gateways[number].http.post(path, data=form, auth=auth)

    def token(self, number: int, new: NewClient) -> str:
        return str(self.post(number, "/oauth/token", new, **GRANT).json()["access_token"])


def revoked(party: Party, number: int, **about: str) -> Ended:
    """A client ends its own token (RFC 7009)."""
    new = party.add(**about)
    token = party.token(number, new)
    return Ended(token, lambda: _good(party.post(number, "/oauth/revoke", new, token=token)))


def revoked_jwt(party: Party, number: int) -> Ended:
    """The same for a JWT, which no row keeps alive."""
    return revoked(party, number, token_format="jwt")


def of_a_revoked_client(party: Party, number: int) -> Ended:
    """An operator ends the client over the API."""
    new, operator = party.add(token_format="jwt"), party.token(number, party.add())
    headers = {"Authorization": f"Bearer {operator}"}
    http = party.gateways[number].http
    return Ended(
        party.token(number, new), lambda: _good(http.delete(f"{CLIENTS}/{new.client_id}", headers=headers))
    )


def of_a_suspended_client(party: Party, number: int) -> Ended:
    """Somebody at that machine's console suspends the client."""
    new = party.add()
    return Ended(
        party.token(number, new), lambda: move_client(party.console(number), new.client_id, Move.SUSPEND)
    )


def of_a_reused_refresh_token(party: Party, number: int) -> Ended:
    """A refresh token is shown twice: all that followed from the consent ends (RFC 9700, 4.14.2)."""
    new, answer = _for_a_person(party, number)

    def refresh() -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
        return party.post(number, "/oauth/token", new, **form)

    token = refresh().json()["access_token"]

    def end() -> None:
        assert refresh().json()["error"] == "invalid_grant"

    return Ended(token, end)


def of_a_suspended_person(party: Party, number: int) -> Ended:
    """Somebody at that machine's console suspends the person for whom the client acts."""
    _, answer = _for_a_person(party, number)

    def end() -> None:
        for move in (PersonMove.SUSPEND, PersonMove.RESUME):
            move_person(party.console(number), party.user_id, move)

    return Ended(answer["access_token"], end)


KINDS = {
    "an opaque token": revoked,
    "a JWT": revoked_jwt,
    "a revoked client's": of_a_revoked_client,
    "a suspended client's": of_a_suspended_client,
    "a reused refresh token's": of_a_reused_refresh_token,
    "a suspended person's": of_a_suspended_person,
}


@contextmanager
def running(homes: list[Home], starts: list[Home]) -> Iterator[Party]:
    """A web part on each of these homes, and a person who may sign in."""
    with ExitStack() as stack:
        consoles = [stack.enter_context(home.stores()) for home in homes]
        party = Party(consoles, [stack.enter_context(gateway_in(home, *WEB)) for home in starts])
        proofs, cheap = Proofs(password=PASSWORD), Passwords(Cost(1, 8, 1))
        party.user_id = add_person(consoles[0], NURSE, Role.OPERATOR, proofs, passwords=cheap).user_id
        yield party


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Party]:
    """Four `serve --only web` on one home."""
    directory = tmp_path_factory.mktemp("workers")
    with home_in(directory / "home", **SETTINGS) as home, running([home], [home] * 4) as party:
        yield party


@pytest.fixture(scope="module")
def redis() -> Iterator[redis_server.RedisServer]:
    """The messenger between replicas."""
    with redis_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory,
    postgresql_server: PostgreSQL,
    redis: redis_server.RedisServer,
) -> Iterator[Party]:
    """Two machines on one PostgreSQL and one Redis: each has a state of its own, so no file tells one of the other."""
    directory = tmp_path_factory.mktemp("replicas")
    settings = SETTINGS | {"cache_url": redis.url}
    with home_in(directory / "one", postgresql_server, **settings) as one:
        (directory / "two").mkdir()
        shared = {"keystore_url": one.environment()["FLG_KEYSTORE_URL"]}
        two = replace(one, directory=directory / "two", settings=settings | shared)
        with running([one, two], [one, two]) as party:
            yield party


@pytest.mark.parametrize("attempt", range(20))
def test_the_other_workers_refuse_it_at_their_very_next_request(workers: Party, attempt: int) -> None:
    """Within 50 ms by all workers of a machine, 20 of 20 tries: here the very next request, which needs no clock.

    Each worker has just looked the token up, and keeps what it found: that is what must not count any more.
    """
    make, number = list(KINDS.values())[attempt % len(KINDS)], attempt % 4
    ended = make(workers, number)
    before = [workers.status(other, ended.token) for other in range(4)]

    ended.end()

    after = [workers.status((number + step) % 4, ended.token) for step in (1, 2, 3, 0)]
    assert (before, after) == ([200] * 4, [401] * 4)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_the_other_replica_refuses_it_within_a_second(replicas: Party, make: Callable[..., Ended]) -> None:
    """No request that is sent a second after the ending, or later, is let in: however slow the machine is."""
    assert _let_in_for_s(replicas, make(replicas, 0)) < WITHIN_S


def test_it_needs_no_messenger(replicas: Party, redis: redis_server.RedisServer) -> None:
    """The bound holds though Redis is gone: what was looked up stands for half a second, and no longer."""
    ended = revoked(replicas, 1)
    redis.kill()

    let_in_for_s = _let_in_for_s(replicas, ended, from_number=1)

    redis.start()
    assert let_in_for_s < WITHIN_S


def _let_in_for_s(party: Party, ended: Ended, *, from_number: int = 0) -> float:
    """How long after the ending the other replica was still sent a request that it let in."""
    other = 1 - from_number
    assert [party.status(number, ended.token) for number in (0, 1)] == [200, 200]
    ended.end()
    ended_at_s = last_let_in_s = time.monotonic()
    while (sent_at_s := time.monotonic()) < ended_at_s + 5 and party.status(other, ended.token) != 401:
        last_let_in_s = sent_at_s
    assert party.status(other, ended.token) == 401
    return last_let_in_s - ended_at_s


def _for_a_person(party: Party, number: int) -> tuple[NewClient, dict[str, str]]:
    """A client with tokens of a person who allowed it."""
    new, pkce = party.add(redirect_uris=[REDIRECT]), new_pkce()
    with httpx.Client(base_url=party.gateways[number].http.base_url, trust_env=False, timeout=30) as browser:
        asked = f"/oauth/authorize?{urlencode(wish(new.client_id, pkce))}"
        answer = httpx.URL(allow(browser, asked, NURSE, PASSWORD)).params
    form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": REDIRECT}
    told: dict[str, str] = party.post(number, "/oauth/token", new, **form, code_verifier=pkce.verifier).json()
    return new, told


def _good(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 204), answer.text
