"""Asking an issuer about a token (RFC 7662): seldom, few at a time, and never because a stranger wants it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pytest
from services.issuer import SECRET, USER, OutsideIssuer, issuing

from gateway.auth.issuers import IssuerAway
from gateway.auth.issuers.errors import ExchangeFailed
from gateway.auth.issuers.introspection import (
    LINES,
    MOST_STRANGERS,
    MOST_WAITING,
    STRANGERS_PER_S,
    Introspector,
)
from gateway.auth.issuers.settings import Introspecting

ASKED = "/introspect"
ACTIVE = {"active": True, "sub": "silo-7"}


@dataclass(slots=True)
class Seconds:
    """A clock of seconds that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def issuer() -> Iterator[OutsideIssuer]:
    """An issuer that knows one token."""
    with issuing(keys=[], tokens={"good": ACTIVE}) as running:
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n", "ascii")
    return path


@pytest.fixture
def introspector(
    issuer: OutsideIssuer, secret: Path, clock: Seconds, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Introspector]:
    """It waits long for an answer, since a late one is another case, and a busy machine makes it late."""
    monkeypatch.setattr("gateway.auth.issuers.introspection.PATIENCE_S", 20.0)
    monkeypatch.setattr("gateway.auth.issuers.introspection.TIMEOUT_S", 20.0)
    asking = Introspecting(endpoint=f"{issuer.url}{ASKED}", client_id=USER, client_secret_file=str(secret))
    made = Introspector(asking, clock=clock)
    yield made
    made.close()


def outcome(introspector: Introspector, token: str) -> str:
    try:
        return "good" if introspector.ask(token) else "bad"
    except IssuerAway:
        return "away"


def test_the_issuer_says_whether_a_token_is_good(introspector: Introspector) -> None:
    """With what it knows of it; RFC 7662, section 2.2: anything but `active: true` is no token."""
    assert introspector.ask("good") == ACTIVE
    assert introspector.ask("bad") is None


def test_an_answer_is_repeated_for_moments(
    issuer: OutsideIssuer, introspector: Introspector, clock: Seconds
) -> None:
    """So long may a token live on that the issuer has ended: five seconds."""
    for token in ("good", "bad") * 3:
        introspector.ask(token)
    assert issuer.asked[ASKED] == 2
    issuer.tokens.clear()

    clock.now += 4.9
    assert introspector.ask("good")
    clock.now += 0.1
    assert introspector.ask("good") is None


def test_many_requests_with_one_token_ask_once(issuer: OutsideIssuer, introspector: Introspector) -> None:
    """Those that come at the same time, too, but for the lines that are free at that moment."""
    issuer.delay_s = 0.05

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: introspector.ask("good"), range(12)))

    assert all(found)
    assert issuer.asked[ASKED] <= LINES


def test_few_questions_are_asked_at_a_time(issuer: OutsideIssuer, introspector: Introspector) -> None:
    """A slow issuer holds up four requests a process; the others are told to come again."""
    issuer.delay_s = 0.1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: outcome(introspector, str(number)), range(12)))

    assert issuer.most_at_once <= LINES


def test_few_wait_for_a_line(issuer: OutsideIssuer, introspector: Introspector) -> None:
    """Threads serve everybody: while an issuer is slow, most are told at once to come again."""
    many = 2 * (LINES + MOST_WAITING)

    with ThreadPoolExecutor(many) as pool:
        with issuer.lock:  # it answers nobody
            asking = [pool.submit(outcome, introspector, str(number)) for number in range(many)]
            at_once = list(islice(as_completed(asking, timeout=10), many - LINES - MOST_WAITING))
        outcomes = [one.result() for one in asking]

    assert {one.result() for one in at_once} == {"away"}
    assert outcomes.count("bad") == LINES + MOST_WAITING


def test_a_flood_of_nonsense_stays_here(
    issuer: OutsideIssuer, introspector: Introspector, clock: Seconds
) -> None:
    """Strangers have an allowance together; a token that was good the last time does not need it."""
    assert introspector.ask("good")

    outcomes = [outcome(introspector, str(uuid4())) for _ in range(300)]
    clock.now += 5
    known = outcome(introspector, "good")

    assert issuer.asked[ASKED] <= MOST_STRANGERS + 2
    assert outcomes.count("away") >= 300 - MOST_STRANGERS
    assert known == "good"
    more = [outcome(introspector, str(uuid4())) for _ in range(300)]
    assert more.count("bad") <= STRANGERS_PER_S * 5 + 1


def test_a_token_that_upsets_the_issuer_shuts_nobody_out(
    issuer: OutsideIssuer, introspector: Introspector, clock: Seconds
) -> None:
    """An error in answer to a stranger's token makes strangers wait, and not those who are known."""
    assert introspector.ask("good")
    kept = issuer.answers
    kept[ASKED] = (500, {}, b"{}")
    clock.now += 4.9
    assert outcome(introspector, "a stranger's") == "away"
    del kept[ASKED]

    clock.now += 0.1  # the answer about the known one is old now

    assert outcome(introspector, "good") == "good"


def test_an_issuer_that_is_away_is_left_alone_for_a_while(
    issuer: OutsideIssuer, introspector: Introspector, clock: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait doubles; the first answer ends it."""
    monkeypatch.setattr("gateway.auth.issuers.exchange._words", lambda _error: "away")
    issuer.answers[ASKED] = (200, {"Content-Length": "5", "Connection": "close"}, b"")
    asked = []
    for _ in range(3):
        assert outcome(introspector, "good") == "away"
        assert outcome(introspector, "good") == "away"
        asked.append(issuer.asked[ASKED])
        clock.now += 1.5
    del issuer.answers[ASKED]
    clock.now += 30

    assert asked == [1, 2, 2]  # after one second, then after two
    assert outcome(introspector, "good") == "good"


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"{}", "active"), (b'{"active": "true"}', "active"), (b'{"active": 1}', "active"), (b"true", "object")],
)
def test_an_answer_in_another_form_vouches_for_nobody(
    issuer: OutsideIssuer, introspector: Introspector, content: bytes, why: str
) -> None:
    """`active` is true or false, and nothing that could be taken for it."""
    issuer.answers[ASKED] = (200, {}, content)

    assert outcome(introspector, "good") == "away"
    with pytest.raises(ExchangeFailed, match=why):
        introspector.probe()


def test_a_wrong_secret_is_an_outage_that_the_doctor_names(
    issuer: OutsideIssuer, introspector: Introspector, secret: Path, clock: Seconds
) -> None:
    """The file is read anew for each question, so that a renewed one is used at once."""
    secret.write_text("wrong", "ascii")

    assert outcome(introspector, "good") == "away"
    with pytest.raises(ExchangeFailed, match="401"):
        introspector.probe()
    secret.unlink()
    with pytest.raises(ExchangeFailed, match="cannot be read"):
        introspector.probe()
    secret.write_text(SECRET, "ascii")
    clock.now += 5
    assert outcome(introspector, "good") == "good"


def test_a_hanging_issuer_ends_in_time(
    issuer: OutsideIssuer, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole exchange has a deadline, also when a byte comes now and then."""
    monkeypatch.setattr("gateway.auth.issuers.introspection.TIMEOUT_S", 0.3)
    asking = Introspecting(endpoint=f"{issuer.url}{ASKED}", client_id=USER, client_secret_file=str(secret))
    made = Introspector(asking)
    issuer.trickle_s = 0.2  # almost seven seconds for all of it
    began = time.monotonic()

    assert outcome(made, "good") == "away"

    assert time.monotonic() - began < 5
    made.close()
