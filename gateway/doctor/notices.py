"""The check of the targets of notices: their forms, and whether a mail server would take one now."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.config import Config
from gateway.doctor.errors import Ailing, Risky
from gateway.notices.letter import Problem
from gateway.notices.targets import NamedTarget, parse_targets

_MENDABLE = (Problem.LOGIN, Problem.NO_TLS)


def notices(config: Config) -> str:
    """Each is of a known kind; a mail server is asked, a webhook is not: it would take that for a notice."""
    found = parse_targets(config, lambda: datetime.now(UTC))
    if not found:
        return "none: deadlines, budgets and lags are told to nobody"
    if away := [said for named in found if (said := _away(named))]:
        raise Risky(f"{len(away)} of {len(found)} cannot be reached now: {', '.join(away)}")
    return f"{len(found)} of them"


def _away(named: NamedTarget) -> str:
    try:
        problem = named.target.probe()
    finally:
        named.target.close()
    if problem in _MENDABLE:
        raise Ailing(f"FLG_NOTICES: {named.name} would take no notice ({problem})")
    return f"{named.name} ({problem})" if problem else ""
