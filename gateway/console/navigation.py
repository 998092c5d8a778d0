"""The way through the console: each person sees the parts that their scopes open, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask import current_app, request, url_for

from gateway.auth.people.person import Person
from gateway.auth.rules import rules_of
from gateway.translations import say


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the console: its name, and the endpoint of its first page."""

    name: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Link:
    """A part as a page shows it; `is_here` is the part that the page belongs to."""

    name: str
    href: str
    is_here: bool


PARTS = (
    Part(say("Overview"), "console.show_home"),
    Part(say("Rounds"), "console_rounds.show_rounds"),
    Part(say("Clients"), "console_clients.show_clients"),
    Part(say("Budget and accuracy"), "console_models.show_models"),
    Part(say("Requests"), "console_requests.show_requests"),
    Part(say("Holds"), "console_holds.show_holds"),
    Part(say("Audit log"), "console_log.show_log"),
    Part(say("Health"), "console_health.show_health"),
)


def links_for(person: Person | None) -> Sequence[Link]:
    """The parts that this person may open; none for a stranger."""
    if person is None:
        return ()
    return [
        Link(part.name, url_for(part.endpoint), _room(part.endpoint) == request.blueprint)
        for part in PARTS
        if may_open(person, part.endpoint)
    ]


def may_open(person: Person, endpoint: str) -> bool:
    """Whether there is such a page, and the person's scopes open it."""
    rule = rules_of(current_app).get(endpoint)
    if rule is None or endpoint not in current_app.view_functions:
        return False
    return not rule.scopes or not person.scopes.isdisjoint(rule.scopes)


def _room(endpoint: str) -> str:
    return endpoint.partition(".")[0]
