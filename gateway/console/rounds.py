"""Rounds as their operator sees them: what is open now and how far it is, what became of the others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response, redirect, url_for
from sqlalchemy import Connection

from audit.reading import reading
from gateway.console.blueprint import page_blueprint
from gateway.console.names import PAUSED, ROUNDS, Named
from gateway.console.pages import render_page
from gateway.console.paging import PER_PAGE, Pages, page_number
from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.paths import insist_number
from gateway.rounds.closing import close_round
from gateway.rounds.intake_switch import intake_of
from gateway.rounds.pausing import pause, resume
from gateway.rounds.record import (
    OPEN_STATUSES,
    Round,
    RoundStatus,
    accepted_count,
    find_round,
    list_rounds,
    newest_open_rounds,
)
from gateway.rounds.strategy import is_poisson, selection_of
from gateway.services import current_services

rounds = page_blueprint("console_rounds", "/rounds")
_MOST_OPEN = 12
_MOVES = {"pause": pause, "resume": resume, "close": close_round}


@dataclass(frozen=True, slots=True)
class RoundShown:
    """A round with what a page says of it.

    `updates` is None while a Poisson sample is open: who came so far is told to nobody. `share` is at most 1.
    """

    number: int
    state: Named
    base_version: str
    result_version: str | None
    planned: int
    fewest: int
    updates: int | None
    deadline: datetime
    started_at: datetime
    completed_at: datetime | None
    failure: str | None
    strategy: str
    is_open: bool
    is_active: bool
    is_paused: bool
    policy: dict[str, Any]
    policy_hash: str

    @property
    def share(self) -> float:
        """How much of the planned count has come."""
        return min((self.updates or 0) / self.planned, 1.0)


@rounds.get("")
@operation("The rounds, for people", answers={200: Media.HTML})
def show_rounds() -> Response:
    """The open rounds with their progress, and the history by pages."""
    number = page_number()
    with reading(current_services().engine) as conn:
        opened = [shown(conn, one) for one in newest_open_rounds(conn, limit=_MOST_OPEN)]
        found, total = list_rounds(conn, limit=PER_PAGE, offset=(number - 1) * PER_PAGE)
        history = [shown(conn, one) for one in found]
        intake = intake_of(conn)
    pages = Pages(number, total, newest_first=True)
    return render_page("rounds.html", opened=opened, history=history, pages=pages, intake=intake)


@rounds.get("/<int:round_number>")
@operation("One round, for people", answers={200: Media.HTML, 404: Media.HTML})
def show_round(round_number: int) -> Response:
    """One round: how far it is, and its terms."""
    with reading(current_services().engine) as conn:
        found = find_round(conn, insist_number(round_number))
        return render_page("round.html", round=shown(conn, found))


@rounds.post("/<int:round_number>/<move>")
@operation("Pause, resume or close a round by a form", body=Media.FORM, answers={303: None, 409: Media.HTML})
def move(round_number: int, move: str) -> Response:
    """Pause, resume or close a round; the entry names the person."""
    if move not in _MOVES:
        raise NotFound("A round can be paused, resumed and closed")
    _MOVES[move](current_services(), insist_number(round_number))
    response: Response = redirect(url_for("console_rounds.show_round", round_number=round_number), 303)  # type: ignore[assignment]
    return response


def shown(conn: Connection, found: Round) -> RoundShown:
    """A round as pages show it; updates that wait in an open round are counted now."""
    is_open = found.status.value in OPEN_STATUSES
    updates = found.num_updates
    if updates is None and not (is_open and is_poisson(found)):
        updates = accepted_count(conn, found.round_id)
    return RoundShown(
        number=found.round_number,
        state=PAUSED if found.paused_at is not None and is_open else ROUNDS[found.status],
        base_version=found.base_version,
        result_version=found.result_version,
        planned=found.planned_clients,
        fewest=found.min_clients,
        updates=updates,
        deadline=found.deadline,
        started_at=found.started_at,
        completed_at=found.completed_at,
        failure=found.failure,
        strategy=_strategy(found),
        is_open=is_open,
        is_active=found.status is RoundStatus.ACTIVE,
        is_paused=found.paused_at is not None,
        policy=found.policy,
        policy_hash=found.policy_hash,
    )


def _strategy(found: Round) -> str:
    strategy = selection_of(found).strategy.value
    return f"{strategy}, q = {found.policy['sampling_rate']}" if is_poisson(found) else strategy
