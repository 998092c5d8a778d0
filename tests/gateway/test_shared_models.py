"""The Redis of all processes: shared, checked, and never needed, whatever happens to it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest
from services import redis_server
from services.pebble import make_certificate
from services.redis_server import RedisServer

from gateway.caching.memory import Recent, SingleFlight
from gateway.caching.shared import PAUSE_S, READ_TIMEOUT_S, WHOLE_TIMEOUT_S, Breaker, SharedModels
from gateway.errors import ConfigError

MODEL = bytes(range(256)) * 12_000  # three pieces of a mebibyte
CHECKSUM = sha256(MODEL).hexdigest()
KEY = "gateway-a:model:1.0.0"
PATIENT = {
    "read_timeout_s": 10.0,
    "whole_timeout_s": 10.0,
}  # the machine may be busy, and time is not the point


class Clock:
    """The hands of a breaker's clock."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One Redis with a password for the tests of this file."""
    with redis_server.running(password="sesame") as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def shared(redis: RedisServer, clock: Clock) -> Iterator[SharedModels]:
    """What a process of gateway A sees of an empty Redis."""
    with redis.client() as client:
        client.flushall()
    found = SharedModels(redis.url, "gateway-a", 3600, Breaker(now_s=clock), **PATIENT)
    yield found
    found.close()


def fetch(shared: SharedModels) -> bytes | None:
    return shared.fetch("1.0.0", CHECKSUM, len(MODEL))


def connections_taken(redis: RedisServer) -> int:
    """How many connections the server ever took, this one included: it takes them in the order of their coming."""
    with redis.client() as client:
        return int(client.info("stats")["total_connections_received"])


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def test_a_model_stays_for_an_hour(redis: RedisServer, shared: SharedModels) -> None:
    """9.1 of the specification: `model:{version}`, 3600 s."""
    shared.store("1.0.0", MODEL)

    with redis.client() as client:
        assert client.keys() == [KEY.encode()]
        assert 3590 < client.ttl(KEY) <= 3600
    assert fetch(shared) == MODEL


def test_a_model_expires(redis: RedisServer) -> None:
    """FLG_CACHE_TTL_S."""
    shared = SharedModels(redis.url, "short", 1, Breaker(), **PATIENT)
    shared.store("1.0.0", MODEL)

    with redis.client() as client:
        client.pexpire("short:model:1.0.0", 1)
    time.sleep(0.05)

    assert fetch(shared) is None
    shared.close()


def test_two_gateways_share_a_redis_and_no_model(redis: RedisServer, shared: SharedModels) -> None:
    """Versions count from 1.0.0 in every gateway: the prefix keeps them apart."""
    other = SharedModels(redis.url, "gateway-b", 3600, Breaker(), **PATIENT)
    shared.store("1.0.0", MODEL)

    assert fetch(other) is None
    other.drop("1.0.0")
    assert fetch(shared) == MODEL
    other.close()


@pytest.mark.parametrize("harm", ["another byte", "cut", "cut at a piece", "empty", "zeros"])
def test_bytes_that_do_not_hash_right_are_dropped(
    redis: RedisServer, shared: SharedModels, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A poisoned or cut entry counts as a miss, and does not stay."""
    harmed = {
        "another byte": MODEL[:-1] + b"!",
        "cut": MODEL[:-5],
        "cut at a piece": MODEL[: 1 << 20],
        "empty": b"",
        "zeros": bytes(len(MODEL)),
    }[harm]
    with redis.client() as client:
        client.set(KEY, harmed)

        assert fetch(shared) is None

        assert client.exists(KEY) == (harm == "empty")
    assert ("dropped" in caplog.text) is (harm != "empty")


def test_a_value_of_another_type_is_a_miss(redis: RedisServer, shared: SharedModels) -> None:
    """Whoever else writes into this Redis breaks nothing."""
    with redis.client() as client:
        client.lpush(KEY, "no model")

    assert fetch(shared) is None


def test_a_flushed_redis_is_a_miss(redis: RedisServer, shared: SharedModels) -> None:
    """An emptied cache is filled again."""
    shared.store("1.0.0", MODEL)
    with redis.client() as client:
        client.flushall()

    assert fetch(shared) is None
    shared.store("1.0.0", MODEL)
    assert fetch(shared) == MODEL


def test_a_full_redis_is_no_failure(redis: RedisServer, shared: SharedModels, clock: Clock) -> None:
    """A Redis without room refuses to keep: reading goes on after the pause."""
    with redis.client() as client:
        client.config_set("maxmemory", "3mb")
        shared.store("1.0.0", MODEL)
        client.config_set("maxmemory", "0")
    clock.now_s += PAUSE_S

    assert fetch(shared) is None
    shared.store("1.0.0", MODEL)
    assert fetch(shared) == MODEL


def test_a_killed_redis_costs_nothing_and_comes_back(shared: SharedModels, clock: Clock) -> None:
    """A dead Redis is a miss; once it is back and the pause is over, it is used."""
    with redis_server.running() as own:
        mine = SharedModels(own.url, "gateway-a", 3600, Breaker(now_s=clock), **PATIENT)
        mine.store("1.0.0", MODEL)
        own.kill()

        gone = seconds(lambda: fetch(mine))
        answered = mine.answers()
        own.start()
        in_pause = fetch(mine), mine.answers()
        clock.now_s += PAUSE_S
        mine.store("1.0.0", MODEL)

        assert gone < 8  # without the wait of its ten seconds
        assert (answered, in_pause) == (False, (None, False))
        assert (fetch(mine), mine.answers()) == (MODEL, True)
        mine.close()


@pytest.mark.parametrize("act", ["fetch", "store", "drop", "answers"])
def test_a_frozen_redis_holds_nobody_longer_than_a_second(redis: RedisServer, clock: Clock, act: str) -> None:
    """SIGSTOP: one asks once and waits for a time-out, the next one does not ask; thawed, it is used again."""
    shared = SharedModels(redis.url, "gateway-a", 3600, Breaker(now_s=clock))
    acts: dict[str, Callable[[], object]] = {
        "fetch": lambda: fetch(shared),
        "store": lambda: shared.store("1.0.0", MODEL),
        "drop": lambda: shared.drop("1.0.0"),
        "answers": shared.answers,
    }
    before = connections_taken(redis)
    redis.freeze()
    try:
        took_s = seconds(acts[act])
        acts[act]()
    finally:
        redis.thaw()
    asked = connections_taken(redis) - before - 1  # that of the question itself

    clock.now_s += PAUSE_S
    assert max(READ_TIMEOUT_S, WHOLE_TIMEOUT_S) <= 1
    assert (took_s < 4, asked) == (True, 1)
    assert shared.answers()
    shared.close()


def test_a_slow_redis_is_given_up(redis: RedisServer, clock: Clock) -> None:
    """Bytes that trickle make no time-out of the socket: the whole has one of its own."""
    with trickling(redis.port) as port:
        url = redis.url.replace(str(redis.port), str(port))
        slow = SharedModels(url, "gateway-a", 3600, Breaker(now_s=clock))
        big = bytes(40 << 20)  # twenty seconds
        with redis.client() as client:
            client.set(KEY, big)

        took = seconds(lambda: slow.fetch("1.0.0", sha256(big).hexdigest(), len(big)))

        assert took < 8
        assert not slow.answers()
        slow.close()


def test_a_wrong_password_is_a_miss_and_no_log_line_tells_it(
    redis: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """RULES 30: the log says what happened, and neither password nor address."""
    wrong = SharedModels(redis.url.replace("sesame", "open-barley"), "gateway-a", 3600, Breaker(now_s=clock))

    with caplog.at_level(logging.DEBUG):
        got = [fetch(wrong) for _ in range(3)]

    assert got == [None] * 3
    assert [record.message for record in caplog.records] == [
        "the cache does not answer (AuthenticationError): going on without it"
    ]
    assert "barley" not in repr(wrong)
    wrong.close()


def test_a_certificate_is_always_verified(tmp_path: Path, clock: Clock) -> None:
    """`rediss://`: a Redis that cannot prove its name is none."""
    certificate, key = tmp_path / "redis.pem", tmp_path / "redis.key"
    make_certificate(certificate, key, "localhost")
    with redis_server.running(certificate=certificate, certificate_key=key) as server:
        unknown = SharedModels(server.url, "gateway-a", 3600, Breaker(now_s=clock))
        trusted = SharedModels(
            f"{server.url}?ssl_ca_certs={certificate}", "gateway-a", 3600, Breaker(now_s=clock), **PATIENT
        )

        assert not unknown.answers()
        trusted.store("1.0.0", MODEL)
        assert fetch(trusted) == MODEL
        unknown.close()
        trusted.close()


@pytest.mark.parametrize(
    "url",
    [
        "memcached://cache.example.com",
        "redis://",
        "redis://:hidden@cache.example.com:port/0",
        "rediss://:hidden@cache.example.com/0?ssl_cert_reqs=none",
        "rediss://:hidden@cache.example.com/0?ssl_check_hostname=false",
        "redis://:hidden@cache.example.com/0?socket_timeout=60",
        "unix:///run/redis.sock",
    ],
)
def test_a_url_that_asks_for_less_is_refused(url: str) -> None:
    """Unverified TLS and other waits cannot be asked for, and the refusal repeats no password."""
    with pytest.raises(ConfigError) as refused:
        SharedModels(url, "gateway-a", 3600, Breaker())

    assert "hidden" not in str(refused.value)


def test_after_a_failure_one_asks_for_all() -> None:
    """A pause for everybody, then one probe; its success lets all through."""
    clock = Clock()
    breaker = Breaker(pause_s=5, now_s=clock)

    assert breaker.lets_through()
    assert (breaker.opens(), breaker.opens()) == (True, False)
    assert not breaker.lets_through()
    clock.now_s = 5.0
    assert [breaker.lets_through() for _ in range(3)] == [True, False, False]
    assert (breaker.closes(), breaker.closes()) == (True, False)
    assert all(breaker.lets_through() for _ in range(3))


def test_memory_keeps_what_was_used_last_within_its_bound() -> None:
    """An LRU bounded by weight: 128 rows, or so many bytes."""
    kept: Recent[bytes] = Recent(10, weigh=len)
    for name in "abc":
        kept.put(name, name.encode() * 4, kept.mark())
    kept.put("too large", bytes(11), kept.mark())

    assert [kept.get(name) for name in ("a", "b", "c", "too large")] == [None, b"bbbb", b"cccc", None]
    kept.get("b")
    kept.put("d", b"dddd", kept.mark())
    assert [kept.get(name) for name in "bcd"] == [b"bbbb", None, b"dddd"]
    kept.put("b", b"b", kept.mark())
    kept.put("e", b"eeee", kept.mark())
    assert [kept.get(name) for name in "bde"] == [b"b", b"dddd", b"eeee"]


def test_what_was_forgotten_while_it_was_read_is_not_kept() -> None:
    """A reader that began before the invalidation may hold the old state."""
    kept: Recent[str] = Recent(10)
    mark = kept.mark()
    kept.forget("row")

    kept.put("row", "as it was", mark)

    assert kept.get("row") is None


def test_a_flight_that_ended_is_not_joined() -> None:
    """Each load begins after it was asked for."""
    flights: SingleFlight[int] = SingleFlight()
    numbers = iter(range(9))

    assert [flights.run("a", lambda: next(numbers)) for _ in range(2)] == [(0, True), (1, True)]


@contextmanager
def trickling(port: int) -> Iterator[int]:
    """A way to the port on which a megabyte takes half a second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_relay_all, args=(listener, port), daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def _relay_all(listener: socket.socket, port: int) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_relay, args=(near, far, 0.0), daemon=True).start()
            threading.Thread(target=_relay, args=(far, near, 0.03), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, pause_s: float) -> None:
    with suppress(OSError), source, target:
        while piece := source.recv(65_536):
            target.sendall(piece)
            time.sleep(pause_s)
        target.shutdown(socket.SHUT_WR)
