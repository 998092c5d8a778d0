"""The console's first page: what matters now to who is signed in, by the person's scopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from flask import Response

from audit.reading import reading
from compliance.requests.listing import CaseFilter
from gateway.auth.people.person import Person
from gateway.auth.roster import count_seen
from gateway.console.door import page_person
from gateway.console.health import (
    CertificateShown,
    LogShown,
    PartShown,
    SinkShown,
    certificates_of,
    log_of,
    parts_of,
    sinks_of,
)
from gateway.console.models import ModelShown, models_for
from gateway.console.names import Tone
from gateway.console.navigation import may_open
from gateway.console.pages import render_page
from gateway.console.requests import CaseShown
from gateway.console.requests import shown as case_shown
from gateway.console.rounds import RoundShown
from gateway.console.rounds import shown as round_shown
from gateway.console.sign_in import console
from gateway.openapi import Media, operation
from gateway.privacy import privacy_desk
from gateway.rounds.record import newest_open_rounds
from gateway.services import Services, current_services

_MOST_ROUNDS, _MOST_MODELS, _MOST_CASES = 4, 3, 5
_A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Wellbeing:
    """Whether something of the gateway needs somebody."""

    parts: Sequence[PartShown]
    sinks: Sequence[SinkShown]
    certificates: Sequence[CertificateShown]
    log: LogShown

    @property
    def troubles(self) -> int:
        """How many parts, sinks and certificates are not good."""
        states = [one.state for group in (self.parts, self.sinks, self.certificates) for one in group]
        return sum(state.tone is not Tone.GOOD for state in states)


@console.get("/")
@operation("The console of who is signed in", answers={200: Media.HTML, 303: None})
def show_home() -> Response:
    """What matters now."""
    person, services = page_person(), current_services()
    sees_requests = may_open(person, "console_requests.show_requests")
    due, waiting = _due(services, person) if sees_requests else ([], None)
    return render_page(
        "home.html",
        waiting=waiting,
        due=due,
        rounds=_rounds(services) if may_open(person, "console_rounds.show_rounds") else None,
        clients=count_seen(services, services.clock() - _A_DAY)
        if may_open(person, "console_clients.show_clients")
        else None,
        models=_models(services, person),
        health=_health(services) if may_open(person, "console_health.show_health") else None,
    )


def _due(services: Services, person: Person) -> tuple[list[CaseShown], int]:
    """The requests that are due first, and how many an answer is owed for."""
    desk = privacy_desk(services)
    found, total = desk.page(CaseFilter(is_open=True), limit=_MOST_CASES)
    return [case_shown(services, desk, case, person) for case in found], total


def _rounds(services: Services) -> list[RoundShown]:
    with reading(services.engine) as conn:
        return [round_shown(conn, one) for one in newest_open_rounds(conn, limit=_MOST_ROUNDS)]


def _models(services: Services, person: Person) -> list[ModelShown]:
    is_shown = may_open(person, "console_models.show_models")
    return models_for(services, person, most=_MOST_MODELS) if is_shown else []


def _health(services: Services) -> Wellbeing:
    with reading(services.engine) as conn:
        sinks, log = sinks_of(conn, services.config), log_of(conn, services.config)
    return Wellbeing(parts_of(services), sinks, certificates_of(services.config, services.clock()), log)
