"""How often a client may come, and how often a proof may fail: alone, with many replicas, and when Redis is unwell."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from services import redis_server
from services.redis_server import RedisServer

from gateway.app import create_app
from gateway.auth.clients import NewClient
from gateway.auth.rate_limits import EXTENSION, _counted_address, parse_limits
from gateway.auth.refusals import close_refusals
from gateway.auth.windows import Limit, LocalWindows
from gateway.caching.shared import Breaker
from gateway.caching.windows import TIMEOUT_S, SharedWindows
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.services import Services

GRANT = {"grant_type": "client_credentials"}
ROUNDS = "/api/v1/rounds"
ClientOf = Callable[[str], NewClient]
Entries = Callable[..., list]
TokenFor = Callable[..., str]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the database does not count


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One Redis for this module; who hurts it starts it again."""
    with redis_server.running(password="sesame") as server:
        yield server


@pytest.fixture
def patience_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """How long Redis is waited for: long, where time is not the point and the machine may be busy."""
    seconds: float = getattr(request, "param", 10.0)
    monkeypatch.setattr("gateway.caching.windows.TIMEOUT_S", seconds)
    return seconds


def shared(redis: RedisServer, *, pause_s: float = 0.05) -> SharedWindows:
    """Windows of a process of its own; keys are disguised by a known function."""
    return SharedWindows(redis.url, "test", Breaker(pause_s), lambda key: key[::-1])


def test_the_default_limits_are_those_of_the_api() -> None:
    """API.md, Common; failed proofs by address and sign-ins beside them."""
    assert parse_limits(Config().rate_limits) == {
        "models": Limit(10, 60),
        "updates": Limit(5, 60),
        "rounds": Limit(20, 60),
        "register": Limit(100, 60),
        "auth_failures": Limit(30, 60),
        "auth_addresses": Limit(300, 60),
        "sign_ins": Limit(10, 60),
        "account_sign_ins": Limit(30, 3600),
        "account_codes": Limit(30, 86_400),
    }


def test_a_class_that_is_not_named_keeps_its_default() -> None:
    """Who raises one limit does not lift the others unseen."""
    assert parse_limits("models=7/hour") == {**parse_limits(""), "models": Limit(7, 3600)}
    assert parse_limits("") == parse_limits(Config().rate_limits)


@pytest.mark.parametrize(
    "text",
    ["updates", "updates=5", "updates=0/minute", "updates=5/week", "updates=-1/day", "=", "update=5/minute"],
)
def test_a_limit_of_another_form_or_name_is_a_config_error(text: str) -> None:
    """A typing error must not mean `no limit`."""
    with pytest.raises(ConfigError, match="FLG_RATE_LIMITS"):
        parse_limits(text)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=60))
def test_a_window_counts_as_its_model_does(steps: list[tuple[str, int]]) -> None:
    """It begins with the first hit in it, counts each, and is over after its period: nobody waits longer than told."""
    windows, now_s = LocalWindows(60), 0
    began: dict[str, int] = {}
    used: dict[str, int] = {}
    for key, pause_s in steps:
        now_s += pause_s
        if key not in began or now_s >= began[key] + 60:
            began[key], used[key] = now_s, 0
        used[key] += 1

        assert windows.count(key, now_s) == (used[key], began[key] + 60 - now_s)


def test_the_memory_of_windows_is_bounded() -> None:
    """A flood of made-up addresses costs a bounded memory; the newest windows are those that stay."""
    windows = LocalWindows(60, most=100)

    for number in range(1000):
        windows.count(str(number), 0.0)

    assert len(windows) == 100
    assert windows.count("999", 1.0) == (2, 59.0)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("unix", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_address_is_counted_with_its_network(address: str, counted: str) -> None:
    """Whoever has one IPv6 address has 2^64 of them."""
    assert _counted_address(address) == counted


@pytest.fixture
def config(config: Config) -> Config:
    """Five failed proofs a minute are too many, and a front tells the addresses."""
    return replace(config, rate_limits="auth_addresses=5/minute", trusted_proxy="true")


@pytest.fixture
def replicas(
    services: Services,
    redis: RedisServer,
    patience_s: float,
) -> Iterator[tuple[FlaskClient, FlaskClient]]:
    """Two applications on one database and one Redis."""
    settings = replace(services.config, cache_url=redis.url)
    apps = [create_app(replace(services, config=settings)) for _ in range(2)]
    yield apps[0].test_client(), apps[1].test_client()
    for app in apps:
        close_refusals(app)


def get_token(http: FlaskClient, new: tuple[str, str], address: str = "192.0.2.7") -> int:
    """The status of a token request from an address."""
    headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
    answer = http.post("/oauth/token", data=GRANT, auth=new, headers=headers)
    assert ("Retry-After" in answer.headers) is (answer.status_code == 429)
    return answer.status_code


@on_sqlite
def test_many_clients_tried_from_one_address_are_too_many(http: FlaskClient, client_of: ClientOf) -> None:
    """`auth_addresses`: guesses at ever other clients are counted together, by address."""
    tried = [(client_of("participant").client_id, "flg_secret_wrong") for _ in range(7)]

    answers = [get_token(http, one) for one in tried]

    assert answers == [401] * 5 + [429] * 2
    assert get_token(http, tried[0], "192.0.2.8") == 401


@on_sqlite
def test_one_address_does_not_push_out_what_was_counted(app: Flask, http: FlaskClient) -> None:
    """Decision 0138: it thinks of a new client for each guess, and still opens no more windows than it has failures."""
    for _ in range(40):
        get_token(http, (str(uuid4()), "flg_secret_wrong"))

    assert len(app.extensions[EXTENSION]["auth_failures"].local) == 5


@on_sqlite
def test_a_hospital_behind_the_attackers_address_comes_in(
    http: FlaskClient, client_of: ClientOf, token_for: TokenFor, entries: Entries
) -> None:
    """Decision 0052: failures alone are counted, after the proof; a right secret and a good token always pass."""
    hospital, victim, token = client_of("participant"), client_of("participant"), token_for("participant")
    for _ in range(9):
        get_token(http, (victim.client_id, "flg_secret_wrong"))

    assert get_token(http, (hospital.client_id, hospital.client_secret)) == 200
    assert get_token(http, (victim.client_id, victim.client_secret)) == 200
    assert http.get(ROUNDS, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert "RATE_LIMITED" in {entry["details"]["reason"] for entry in entries("token.refused")}


@on_sqlite
def test_replicas_share_a_window(
    replicas: tuple[FlaskClient, FlaskClient], token_for: TokenFor, redis: RedisServer
) -> None:
    """20 rounds a minute are 20 in all, whoever answers; what lies in Redis names nobody and goes by itself."""
    headers = {"Authorization": f"Bearer {token_for('participant')}"}

    answers = [replicas[number % 2].get(ROUNDS, headers=headers) for number in range(22)]

    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 2
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers[:3]] == ["19", "18", "17"]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 61
    with redis.client() as client:
        keys = [key.decode() for key in client.scan_iter(match="fl-gateway:*:limit:rounds:*")]
        assert len(keys) == 1
        assert 0 < client.ttl(keys[0]) <= 60
    assert re.fullmatch("[0-9a-f]{64}", keys[0].rpartition(":")[2])  # an HMAC, and no client id


@on_sqlite
@pytest.mark.parametrize("patience_s", [1.0], indirect=True)
def test_a_redis_that_hangs_makes_limits_local(
    replicas: tuple[FlaskClient, FlaskClient],
    token_for: TokenFor,
    redis: RedisServer,
    patience_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frozen in the middle: one short wait, no 500, and the process goes on counting by itself."""
    http, headers = replicas[0], {"Authorization": f"Bearer {token_for('participant')}"}
    http.get(ROUNDS, headers=headers)
    asked = asked_for_rounds(http.application, monkeypatch)

    redis.freeze()
    began_s = time.monotonic()
    answers = [http.get(ROUNDS, headers=headers)]
    took_s = time.monotonic() - began_s
    answers += [http.get(ROUNDS, headers=headers) for _ in range(21)]
    redis.thaw()

    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 2
    assert patience_s <= took_s < patience_s + 4
    assert len(asked) == 1


def asked_for_rounds(app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this application asks its Redis from now on; after a failure it asks no more for a minute."""
    shared, asked = app.extensions[EXTENSION]["rounds"].shared, list[str]()
    incr = shared._storage.incr

    def count(key: str, expiry: int) -> int:
        asked.append(key)
        used: int = incr(key, expiry)
        return used

    monkeypatch.setattr(shared._storage, "incr", count)
    monkeypatch.setattr(shared._breaker, "_pause_s", 60.0)
    return asked


@pytest.mark.usefixtures("patience_s")
def test_nobody_is_told_too_short_a_wait(redis: RedisServer) -> None:
    """Whoever comes again after the time told has a new window."""
    windows = shared(redis)

    began_s = time.monotonic()
    first = windows.count("updates", "a client", 3)
    time.sleep(0.6)  # Redis tells what is left to the nearest second: too little
    told = windows.count("updates", "a client", 3)
    left_s = 3 - (time.monotonic() - began_s)
    assert told is not None
    time.sleep(told[1])
    again = windows.count("updates", "a client", 3)

    assert first is not None
    assert first[0] == 1
    assert told[0] == 2
    assert left_s <= told[1] <= 3.6
    assert again is not None
    assert again[0] == 1


@pytest.mark.usefixtures("patience_s")
def test_a_redis_that_was_killed_is_asked_again(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for one that is gone; the log says it once, without the address; then it counts again."""
    windows = shared(redis)
    assert windows.count("updates", "c", 60) is not None

    redis.kill()
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        gone = [windows.count("updates", "c", 60) for _ in range(50)]
    took_s = time.monotonic() - began_s
    redis.start()
    time.sleep(0.1)
    back = windows.count("updates", "c", 60)

    assert gone == [None] * 50
    assert took_s < 5
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "each process counts for itself",
        "requests are counted in Redis again",
    ]
    assert not re.search("sesame|127.0.0.1", caplog.text)
    assert back is not None
    assert back[0] == 1


def test_a_slow_redis_costs_a_bounded_wait(redis: RedisServer) -> None:
    """Slower than the time-out is as good as away."""
    windows = shared(redis, pause_s=60)
    windows.count("updates", "d", 60)

    with redis.client() as client:
        client.client_pause(60_000, all=False)
        began_s = time.monotonic()
        slow = [windows.count("updates", "d", 60) for _ in range(20)]
        took_s = time.monotonic() - began_s
        client.client_unpause()

    assert slow == [None] * 20
    assert took_s < 16 * TIMEOUT_S


@pytest.mark.usefixtures("patience_s")
def test_what_is_no_count_is_as_good_as_no_redis(redis: RedisServer) -> None:
    """A key of another kind, and another's password."""
    windows = shared(redis)
    with redis.client() as client:
        client.lpush("test:updates:" + "window:updates:e"[::-1], "x")
    stranger = SharedWindows(redis.url.replace("sesame", "other"), "test", Breaker(), str)

    assert windows.count("updates", "e", 60) is None
    assert stranger.count("updates", "e", 60) is None
