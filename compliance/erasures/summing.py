"""Sums an erasure up for its receipt: what was where, what stays on which ground, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, func, select

from compliance.erasures.progress import Progress
from compliance.erasures.receipt import ErasureReceipt, KeptLine, Method, PlaceLine
from compliance.erasures.telling import recipient_lines
from compliance.parts import DeskParts
from compliance.requests.cases import Case
from compliance.tables import privacy_holds, privacy_requests

_OF_THE_LOG = "audit entries of class accountability"
_WHY_LOG = "Art. 17(3)(b) and (e): security refusals and acts of staff, at least until this day"
_OF_THE_DESK = (
    "privacy requests of the person with their answers, this one too, and the random id of the person"
)
_WHY_DESK = "Art. 5(2): proof that they were answered, and that nobody is added under this id again"
_HOLDS = "legal holds that kept data of the person, with their matter"
_WHY_HOLDS = "Art. 5(2) and 17(3)(e): proof of why data was kept"


@dataclass(frozen=True, slots=True)
class Kept:
    """How much stays of a person, by what it is."""

    entries: int
    requests: int
    holds: int


def kept_of(conn: Connection, subject: str, entries: int) -> Kept:
    """What stays in the desk's own tables, beside so many entries of the log."""
    requests, holds = (
        conn.scalar(select(func.count()).select_from(table).where(table.c.subject_id == subject)) or 0
        for table in (privacy_requests, privacy_holds)
    )
    return Kept(entries, requests, holds)


def summed_up(
    parts: DeskParts,
    case: Case,
    progress: Progress,
    names: Sequence[str],
    log_name: str,
    kept: Kept,
) -> ErasureReceipt:
    """The receipt of an erasure whose every place was seen empty.

    Args:
        parts: the desk's means.
        case: the request.
        progress: what was kept of the way.
        names: the places, in the order in which they were erased.
        log_name: the one of them whose keys were destroyed.
        kept: what stays readable.
    """
    now, terms = parts.now(), parts.terms
    until = (now + timedelta(days=terms.kept_days)).date()
    return ErasureReceipt(
        request_id=case.id,
        subject=progress.commitment or "",
        data_map=terms.data_map,
        places=_lines(parts, progress, names, log_name),
        exceptions=_exceptions(kept, until),
        recipients=recipient_lines(parts, progress.recipients, progress.news_id),
        models=progress.models,
        backups_until=(now + timedelta(days=terms.backup_days)).date(),
        received=case.received_at,
        finished=now,
    )


def _lines(
    parts: DeskParts, progress: Progress, names: Sequence[str], log_name: str
) -> tuple[PlaceLine, ...]:
    now, found, erased = parts.now(), progress.found or {}, progress.erased or {}
    counted = [
        PlaceLine(
            name,
            found.get(name, 0),
            Method.KEY_DESTROYED if name == log_name else Method.DELETED,
            0,
            erased.get(name, now),
        )
        for name in names
    ]
    fading = [PlaceLine(place.name, None, place.method, None, now) for place in parts.fading]
    return (*counted, *fading)


def _exceptions(kept: Kept, until: date) -> tuple[KeptLine, ...]:
    lines = (
        KeptLine(_OF_THE_LOG, kept.entries, _WHY_LOG, until),
        KeptLine(_OF_THE_DESK, kept.requests, _WHY_DESK, until),
    )
    return (*lines, KeptLine(_HOLDS, kept.holds, _WHY_HOLDS, until)) if kept.holds else lines
