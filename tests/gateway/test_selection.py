"""Client selection: who may be chosen, and how each strategy draws."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from federation import Federation, Silo
from flask.testing import FlaskClient
from selecting import RANDOM, Entries, found, invited, open_selecting, people, subject_of
from services.clock import FixedClock
from sqlalchemy import event, select, update
from sqlalchemy.exc import DBAPIError

from audit.events import Retention
from audit.reading import reading
from compliance.subjects import mark_erasing
from gateway.auth.clients import Move, move_client
from gateway.rounds.eligibility import candidates, offers
from gateway.rounds.invitations import InvitationStatus
from gateway.rounds.record import RoundStatus
from gateway.rounds.selection import draw
from gateway.rounds.strategy import Selection, Strategy
from gateway.services import Services
from gateway.tables import clients, invitations, outbox, rounds


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    made.add_model()
    return made


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a rate with random": ({"strategy": "random", "sampling_rate": 0.5}, "/selection/sampling_rate"),
    "reserves with all": ({"strategy": "all", "reserves": 2}, "/selection/reserves"),
    "capabilities with all": ({"capabilities": {"gpu": True}}, "/selection/capabilities"),
    "patience without reserves": ({"strategy": "fair", "respond_within_s": 5}, "/selection/respond_within_s"),
    "less than no reserves": ({"strategy": "fair", "reserves": -1}, "/selection/reserves"),
    "a capability that is a list": (
        {"strategy": "fair", "capabilities": {"gpu": [1]}},
        "/selection/capabilities/gpu",
    ),
    "a text that no database keeps": (
        {"strategy": "fair", "capabilities": {"gpu": "\0"}},
        "/selection/capabilities",
    ),
    "seen in no time": ({"strategy": "fair", "seen_within_s": 0}, "/selection/seen_within_s"),
    "a member that is not known": ({"strategy": "fair", "colour": "red"}, "/selection/colour"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_selection_names_its_member(federation: Federation, what: str) -> None:
    """Promise 7: a member that means nothing to the strategy is refused by name, and leaves nothing behind."""
    selection, pointer = WRONG[what]
    before = federation.kept()

    answer = federation.open_round(selection=selection)

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert any(error["pointer"].startswith(pointer) for error in answer.json["errors"])
    assert federation.kept() == before


def test_acceptance_and_extension_are_kept_and_shown(federation: Federation) -> None:
    """The coordinator carries them out; without FLG_EVALUATE nothing can be tested, and that is said."""
    refused = federation.open_round(acceptance={"metric": "loss", "threshold": 0.5})
    empty = federation.open_round(acceptance={"metric": "loss"})
    opened = federation.open_round(extension={"seconds": 60, "times": 3})

    assert [error["pointer"] for error in refused.json["errors"]] == ["/acceptance"]
    assert empty.status_code == 422
    assert opened.json["extension"] == {"seconds": 60, "times_left": 3}
    assert (found(federation.services).extension_s, found(federation.services).extensions_left) == (60, 3)


def test_a_draw_asks_the_planned_number_and_keeps_reserves(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """Issue 4: random draws without replacement; invitations, messages, entry and status are one transaction."""
    everybody = {silo.client_id for silo in people(federation, 6)}
    selecting = open_selecting(federation, RANDOM | {"reserves": 2}, planned_clients=3)

    done = draw(services, selecting)

    asked, kept = invited(services), invited(services, "reserve")
    assert done
    assert (len(asked), len(kept), len(asked | kept)) == (3, 2, 5)
    assert asked | kept <= everybody
    assert found(services).status is RoundStatus.ACTIVE
    (entry,) = entries("round.selected")
    told = {name: entry["details"][name] for name in ("strategy", "eligible", "chosen", "reserves")}
    assert told == {"strategy": "random", "eligible": 6, "chosen": 3, "reserves": 2}
    assert entry["sealed"] == set()
    with reading(services.engine) as conn:
        bodies = list(conn.execute(select(outbox.c.body)).scalars())
        ids = set(
            conn.execute(
                select(invitations.c.invitation_id).where(invitations.c.status == InvitationStatus.INVITED)
            ).scalars()
        )
    assert {body["invitation_id"] for body in bodies} == ids
    assert all(set(body) == {"invitation_id", "round_number"} for body in bodies)


def test_too_few_eligible_draw_nothing(federation: Federation, services: Services) -> None:
    """Below min_clients the round stays as it is: the coordinator looks again, and fails it at its deadline."""
    people(federation, 2)
    selecting = open_selecting(federation, RANDOM, planned_clients=5, min_clients=3)

    first = draw(services, selecting)
    federation.register("one more")
    second = draw(services, selecting)

    assert (first, second) == (False, True)
    assert len(invited(services)) == 3


def test_two_workers_draw_once(federation: Federation, services: Services, entries: Entries) -> None:
    """Two coordinators at once: the second finds the round active."""
    people(federation, 6)
    selecting = open_selecting(federation, RANDOM, planned_clients=3)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: draw(services, selecting), range(2)))

    assert done == [True, True]
    assert len(invited(services)) == 3
    assert len(entries("round.selected")) == 1


@pytest.mark.parametrize("what", ["paused", "closing", "over"])
def test_a_round_that_is_halted_during_its_draw_asks_nobody(
    federation: Federation, services: Services, clock: FixedClock, entries: Entries, what: str
) -> None:
    """The draw asks again under the lock: whom it invited now could not answer; a sample would be noise alone."""
    people(federation, 3)
    noised = {"mechanism": "gaussian", "clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5}
    selecting = open_selecting(federation, {"strategy": "poisson", "sampling_rate": 0.9}, privacy=noised)

    def entropy(size: int) -> bytes:
        with services.engine.begin() as conn:
            changes = {"paused": {"paused_at": clock()}, "closing": {"closing": True}}
            if what in changes:
                conn.execute(update(rounds).values(**changes[what]))
            else:
                clock.now = selecting.deadline
        return bytes(size)

    done = draw(services, selecting, entropy=entropy)

    assert not done
    assert invited(services, *InvitationStatus) == set()
    assert found(services).status is RoundStatus.SELECTING
    assert entries("round.selected") == []


def test_a_draw_that_meets_a_conflict_asks_the_same_clients(
    federation: Federation, services: Services
) -> None:
    """A transaction that the database gave up is done again without new chance: RULES 12 wants one throw."""
    people(federation, 6)
    selecting = open_selecting(federation, RANDOM, planned_clients=3)
    calls, conflicts = [], [1]

    def entropy(size: int) -> bytes:
        calls.append(size)
        return bytes(size)

    class Deadlock(Exception):
        sqlstate = "40P01"

    def conflict(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if conflicts and statement.startswith("INSERT INTO invitations"):
            conflicts.pop()
            raise DBAPIError(statement, None, Deadlock())

    event.listen(services.engine, "before_cursor_execute", conflict)
    try:
        done = draw(services, selecting, entropy=entropy)
    finally:
        event.remove(services.engine, "before_cursor_execute", conflict)

    assert done
    assert conflicts == []
    assert len(calls) == 1
    assert len(invited(services)) == 3


def test_only_active_participants_are_eligible(federation: Federation, services: Services) -> None:
    """Not staff, not suspended, not revoked, not a subject whose erasure has begun."""
    good, suspended, revoked, erasing = people(federation, 4)
    move_client(services, suspended.client_id, Move.SUSPEND)
    move_client(services, revoked.client_id, Move.REVOKE)
    with services.engine.begin() as conn:
        mark_erasing(conn, subject_of(services, erasing))

    eligible = candidates(services, Selection(Strategy.RANDOM), services.clock())

    assert [one.client_ids for one in eligible] == [(good.client_id,)]


def test_a_client_must_have_been_seen_lately(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Eligibility by last seen; a client that never came was never seen."""
    early, late, _never = people(federation, 3)
    federation.http.get("/api/v1/rounds", headers=early.headers)
    clock.advance(timedelta(hours=2))
    federation.http.get("/api/v1/rounds", headers=late.headers)

    eligible = candidates(services, Selection(Strategy.FAIR, seen_within_s=3600), services.clock())

    assert [one.client_ids for one in eligible] == [(late.client_id,)]


def test_capabilities_are_at_least_those_asked_for(federation: Federation, services: Services) -> None:
    """Numbers at least, the rest equal; the sealed column is opened for it, and an erased key makes nobody eligible."""
    fit = federation.register("fit", platform="linux", capabilities={"memory_gb": 64, "gpu": True})
    federation.register("small", platform="linux", capabilities={"memory_gb": 8, "gpu": True})
    federation.register("other", platform="ios", capabilities={"memory_gb": 64, "gpu": True})
    federation.register("silent")
    gone = federation.register("gone", platform="linux", capabilities={"memory_gb": 64, "gpu": True})
    keys = services.keystore.keys_of(subject_of(services, gone), Retention.PARTICIPATION)
    services.keystore.destroy([key.key_id for key in keys])
    wanted = {"memory_gb": 32, "gpu": True, "platform": "linux"}
    selecting = open_selecting(federation, RANDOM | {"capabilities": wanted})

    assert draw(services, selecting)

    assert invited(services) == {fit.client_id}


@pytest.mark.parametrize(
    ("told", "least", "enough"),
    [
        (8, 8, True),
        (7.5, 8, False),
        (True, 1, False),
        (1, True, False),
        ("8", 8, False),
        ("arm", "arm", True),
        (None, "arm", False),
        ([1], 1, False),
    ],
)
def test_a_capability_compares_like_with_like(told: object, least: Any, enough: bool) -> None:
    """A number never stands for a truth, nor a text for a number."""
    assert offers({"capabilities": {"x": told}}, {"x": least}) is enough


def test_one_client_of_a_subject_is_drawn(federation: Federation, services: Services) -> None:
    """RULES 12: a subject with several clients is bounded, since one of them is drawn at most."""
    own = people(federation, 3)
    other = federation.register("other")
    subject = subject_of(services, own[0])
    with services.engine.begin() as conn:
        conn.execute(
            update(clients)
            .where(clients.c.client_id.in_([one.client_id for one in own]))
            .values(subject_id=subject)
        )
    selecting = open_selecting(federation, RANDOM, planned_clients=4)

    assert draw(services, selecting)

    asked = invited(services)
    assert len(asked) == 2
    assert other.client_id in asked


def test_an_erasure_at_the_moment_of_the_draw_wins(federation: Federation, services: Services) -> None:
    """RULES 18: nobody is invited once the erasure has begun; the next look draws from the others."""
    silos = people(federation, 3)
    selecting = open_selecting(federation, RANDOM, planned_clients=3, min_clients=2)

    first = draw(services, selecting, entropy=erasing_meanwhile(services, silos[1]))
    nobody = invited(services)
    second = draw(services, selecting)

    assert (first, second) == (False, True)
    assert nobody == set()
    assert invited(services) == {silos[0].client_id, silos[2].client_id}


def test_an_erasure_at_the_moment_of_a_poisson_draw_throws_no_coin_again(
    federation: Federation, services: Services
) -> None:
    """RULES 12: a second throw would depend on the first; the erased one counts as zero."""
    silos = people(federation, 3)
    noised = {"mechanism": "gaussian", "clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5}
    selection = {"strategy": "poisson", "sampling_rate": 0.9}
    selecting = open_selecting(federation, selection, min_clients=3, privacy=noised)

    done = draw(services, selecting, entropy=erasing_meanwhile(services, silos[1]))

    assert done
    assert invited(services) == {silos[0].client_id, silos[2].client_id}


def test_fair_asks_those_who_waited_longest(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Least recently chosen first, never chosen before all; four draws of two reach everybody twice."""
    everybody = {silo.client_id for silo in people(federation, 4)}
    asked: list[set[str]] = []

    for number in range(1, 5):
        draw(services, open_selecting(federation, {"strategy": "fair"}))
        asked.append(invited(services) - {"gone"})
        end(services, number)
        clock.advance(timedelta(minutes=1))

    assert asked[0] | asked[1] == everybody
    assert asked[2] == asked[0]
    assert asked[3] == asked[1]


def test_a_wrong_capability_is_named_once(federation: Federation) -> None:
    """Promise 7: the pointer names the member itself, not the types that it might have had."""
    answer = federation.open_round(selection={"strategy": "fair", "capabilities": {"gpu": [1]}})

    assert [error["pointer"] for error in answer.json["errors"]] == ["/selection/capabilities/gpu"]


def test_a_draw_from_ten_thousand_clients_takes_a_few_statements(
    services: Services, federation: Federation
) -> None:
    """No statement per client: drawing a tenth of 10,000 subjects, and all that it writes, goes in batches."""
    statements: list[str] = []
    crowd(services, 10_000)
    selecting = open_selecting(
        federation,
        {"strategy": "poisson", "sampling_rate": 0.1},
        planned_clients=1_000,
        min_clients=5_000,
        privacy={"mechanism": "gaussian", "clip_norm": 1.0, "noise_multiplier": 2.0, "delta": 1e-6},
    )

    event.listen(services.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    done = draw(services, selecting)

    assert done
    assert 820 < len(invited(services)) < 1_180  # six standard deviations
    assert len(statements) < 30


def crowd(services: Services, count: int) -> None:
    """So many clients, each a subject, put into the tables at once."""
    from sqlalchemy import insert

    from compliance.tables import subjects

    now = services.clock()
    ids = [f"{place:08x}-{secrets.token_hex(2)}-4000-8000-{place:012x}" for place in range(count)]
    with services.engine.begin() as conn:
        for start in range(0, count, 10_000):
            some = ids[start : start + 10_000]
            conn.execute(
                insert(subjects),
                [{"subject_id": one, "state": "active", "created_at": now} for one in some],
            )
            conn.execute(
                insert(clients),
                [
                    {
                        "client_id": one,
                        "subject_id": one,
                        "role": "participant",
                        "auth_method": "registration_token",
                        "status": "active",
                        "registered_at": now,
                    }
                    for one in some
                ],
            )


def erasing_meanwhile(services: Services, silo: Silo) -> Callable[[int], bytes]:
    """Entropy of zeros (every coin shows heads), during which the silo's erasure begins."""

    def entropy(size: int) -> bytes:
        with services.engine.begin() as conn:
            mark_erasing(conn, subject_of(services, silo))
        return bytes(size)

    return entropy


def end(services: Services, number: int) -> None:
    """Let a round be over, so that the next one can be opened and its invitations are not counted again."""
    with services.engine.begin() as conn:
        conn.execute(
            update(rounds).where(rounds.c.round_number == number).values(status=RoundStatus.FAILED.value)
        )
        conn.execute(update(invitations).values(status="over"))
