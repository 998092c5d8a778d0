"""How long each kind of data is kept: the schedule as it is written down, checked against what must be kept.

`FLG_RETENTION="updates=180d; requests=730d..1825d"`: at most so long, or from a duty to keep up to that term.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Table

from compliance.errors import BadSchedule

DAY = timedelta(days=1)
ACCOUNTABLE_LEAST = timedelta(days=730)
_LONGEST_DAYS = 100 * 366
_TERM = re.compile(r"(?:(?P<least>[0-9]{1,6})d\.\.)?(?P<most>[0-9]{1,6})d")


@dataclass(frozen=True, slots=True)
class Term:
    """How long one kind of data is kept.

    Args:
        least: what a law or a contract obliges the controller to keep it for; nothing if None.
        most: the age at which it is removed.
    """

    most: timedelta
    least: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a term of one kind of data is checked against.

    Args:
        name: what the schedule calls it.
        least: no term may be shorter.
        outlives: kinds that refer to this one, and must be gone first.
    """

    name: str
    least: timedelta
    outlives: tuple[str, ...] = ()


def least_of(table: Table) -> timedelta:
    """The least term of a table's rows: two years where the data map calls any of it accountability (RULES 19)."""
    classes = {column.info["retention"] for column in table.columns if column.info["category"] != "none"}
    return ACCOUNTABLE_LEAST if "accountability" in classes else DAY


def parse_schedule(text: str, bounds: Sequence[Bounds]) -> Mapping[str, Term]:
    """The terms of a schedule; a kind that it does not name is kept until its person is erased.

    Raises:
        BadSchedule: it names no kind that there is, or its terms contradict each other or what must be kept.
    """
    known = {bound.name: bound for bound in bounds}
    terms: dict[str, Term] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, written = (word.strip() for word in part.partition("="))
        if name not in known:
            raise BadSchedule(name, f"is no kind of data: name one of {', '.join(known)}")
        if name in terms:
            raise BadSchedule(name, "is there twice")
        terms[name] = _term(name, written)
    for name, term in terms.items():
        _check(known[name], term, terms)
    return terms


def shown(terms: Mapping[str, Term], bounds: Sequence[Bounds]) -> list[dict[str, Any]]:
    """The schedule as records of processing and people read it, in days."""
    return [_shown(bound, terms.get(bound.name)) for bound in bounds]


def _shown(bound: Bounds, term: Term | None) -> dict[str, Any]:
    duty = term.least if term and term.least else bound.least
    return {
        "category": bound.name,
        "least_days": _days(max(duty, bound.least)),
        "most_days": _days(term.most) if term else None,
    }


def _term(name: str, written: str) -> Term:
    found = _TERM.fullmatch(written)
    if found is None:
        raise BadSchedule(name, "has no term such as 90d, or 30d..90d for at least and at most")
    least, most = found["least"], int(found["most"])
    if most > _LONGEST_DAYS:
        raise BadSchedule(
            name, "is kept for longer than a hundred years: leave it out to keep it until erasure"
        )
    return Term(timedelta(days=most), None if least is None else timedelta(days=int(least)))


def _check(bound: Bounds, term: Term, terms: Mapping[str, Term]) -> None:
    if term.least is not None and term.least > term.most:
        raise BadSchedule(bound.name, "must be kept for longer than it may be kept")
    if term.most < bound.least:
        raise BadSchedule(bound.name, f"must be kept for {_days(bound.least)} days at least")
    for other in bound.outlives:
        if other not in terms:
            raise BadSchedule(bound.name, f"goes after {other}: give {other} a term too")
        if terms[other].most > term.most:
            raise BadSchedule(bound.name, f"goes after {other}: its term must not be shorter")


def _days(span: timedelta) -> int:
    return span // DAY
