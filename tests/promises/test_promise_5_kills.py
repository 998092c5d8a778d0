"""Promise 5 under SIGKILL: an erasure that dies anywhere, and is run again, ends as one that did not."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from living.driver import BUDGET, tensors
from living.dying import Death, Points, run_in_a_child
from living.end_state import Json, end_state
from living.erasing import carry_on
from living.home import Home
from living.kept import files_with
from living.marked import subject_of
from living.threads import local_gateway_in
from sqlalchemy import make_url, select

from audit.draft import Personal
from audit.reading import reading
from compliance.keyring.tables import pseudonyms, subject_keys
from gateway.privacy import privacy_desk

OFFICER = Personal("system", "officer")
RANDOM_POINTS = {"embedded": {"effects": 7, "moments": 3}, "production": {"effects": 2, "moments": 1}}


@dataclass(frozen=True, slots=True)
class Doomed:
    """Stores at rest with an approved erasure; what must be in no file of the key store; how the erasure ends."""

    home: Home
    kind: str
    case_id: str
    secrets: tuple[bytes | str, ...]
    points: Points
    end: Json


@dataclass(frozen=True, slots=True)
class Found:
    """After a death and another run: what ended otherwise than without it, and what was told and left."""

    differences: Json
    erasures_told: int
    receipt: str
    files_with_secrets: list[str]


@pytest.fixture
def doomed(home: Home, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Doomed]:
    """A person with all that a participant has, about to be erased; and a copy in which nothing went wrong."""
    with local_gateway_in(home) as gateway:
        gateway.add_model(budget=BUDGET)
        people = [gateway.register(name=name) for name in ("Ada", "Bob")]
        gateway.run_round(people)
        gateway.submit(people[0], gateway.open_round(), tensors(3), Idempotency_Key="again")
        gateway.export(people[0])
    subject = subject_of(home, people[0])
    with home.stores() as services:
        desk = privacy_desk(services)
        case_id = desk.open("erasure", subject, requested_by=OFFICER).id
        desk.approve(case_id, by=OFFICER)
        with reading(services.keystore_engine) as conn:
            own = subject_keys.c.subject == subject, subject_keys.c.retention == "participation"
            secrets = tuple(conn.execute(select(subject_keys.c.wrapped).where(*own)).scalars())
            name = select(pseudonyms.c.pseudonym).where(pseudonyms.c.subject == subject)
            secrets += tuple(conn.execute(name).scalars())
    healthy = home.copy(tmp_path / "healthy")
    points = run_in_a_child(healthy.environment(), case_id)
    assert points is not None
    kind = "embedded" if home.server is None else "production"
    yield Doomed(home, kind, case_id, secrets, points, end_state(healthy, case_id))
    _drop(healthy)


def test_an_erasure_killed_between_any_two_places_comes_to_the_same_end(
    doomed: Doomed, tmp_path: Path
) -> None:
    """Before the first and after the last, too, and right before blobs go: same rows, keys, entries; one receipt."""
    assert doomed.points.borders >= 5  # updates, clients, people, packages, the log
    step = 1 if doomed.kind == "embedded" else 4

    for number in range(1, doomed.points.borders + 1, step):
        death = Death("borders", number)
        found = _die_and_carry_on(doomed, death, tmp_path / f"border-{number}")
        assert found.differences == {}, death
        assert found.erasures_told == 1, death
        assert found.receipt == doomed.end["receipt"], death
        assert found.files_with_secrets == [], death


def test_an_erasure_killed_at_random_points_comes_to_the_same_end(doomed: Doomed, tmp_path: Path) -> None:
    """Around effects on the stores, and wherever a function is called or returns; `KILL_SEED` sets them again."""
    seed = int(os.environ.get("KILL_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"KILL_SEED={seed}")
    draw = random.Random(seed)

    for kind, count in RANDOM_POINTS[doomed.kind].items():
        for number in draw.sample(range(1, getattr(doomed.points, kind) + 1), count):
            death = Death(kind, number)
            found = _die_and_carry_on(doomed, death, tmp_path / f"{kind}-{number}")
            assert found.differences == {}, death
            assert found.erasures_told == 1, death
            assert found.receipt == doomed.end["receipt"], death
            assert found.files_with_secrets == [], death


def _die_and_carry_on(doomed: Doomed, death: Death, folder: Path) -> Found:
    """Carry the erasure out in a copy of the stores, die there, carry on, and look."""
    copy = doomed.home.copy(folder)
    run_in_a_child(copy.environment(), doomed.case_id, death)

    carry_on(copy, doomed.case_id)

    end = end_state(copy, doomed.case_id)
    found = Found(
        differences={name: end[name] for name in end if end[name] != doomed.end[name]},
        erasures_told=end["entries"].get("privacy.erased", 0),
        receipt=end["receipt"],
        files_with_secrets=files_with(copy.directory / "keys", doomed.secrets),
    )
    _drop(copy)
    return found


def _drop(copy: Home) -> None:
    if copy.server is not None:
        copy.server.drop_database(str(make_url(copy.database_url).database))
