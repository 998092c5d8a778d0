"""One switch for all intake: while it is off, no update and no new round is taken, whatever their rounds say.

Stopping locks every open round and every lineage before it turns the switch, and whoever commits an update or a round
looks at the switch after locking theirs: once `stop` has returned, nothing more is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from audit.events import EventType
from audit.reading import reading
from audit.writing import writing
from gateway.errors import IntakeStopped
from gateway.rounds.record import OPEN_STATUSES
from gateway.services import Services
from gateway.tables import models, rounds, switches

_NAME = "intake"
_SWITCH = select(switches).where(switches.c.name == _NAME)


@dataclass(frozen=True, slots=True)
class Intake:
    """Whether updates and new rounds are taken, and since when; `since` is None if it never changed."""

    is_open: bool
    since: datetime | None


def intake_of(conn: Connection) -> Intake:
    """How the switch stands."""
    row = conn.execute(_SWITCH).one_or_none()
    return Intake(True, None) if row is None else Intake(row.is_on, row.changed_at)


def insist_intake(conn: Connection) -> None:
    """Let pass while the intake is open; in a writing transaction call it after the round or lineage is locked.

    Raises:
        IntakeStopped: it is not.
    """
    if not intake_of(conn).is_open:
        raise IntakeStopped


def stop_intake(services: Services) -> Intake:
    """Take no more updates and open no more rounds; it changes nothing if that is so already."""
    return _turn(services, EventType.INTAKE_STOPPED, is_on=False)


def resume_intake(services: Services) -> Intake:
    """Take them again."""
    return _turn(services, EventType.INTAKE_RESUMED, is_on=True)


def _turn(services: Services, event_type: EventType, *, is_on: bool) -> Intake:
    now = services.clock()
    with reading(services.engine) as conn:
        before = intake_of(conn)
    if before.is_open is is_on:
        return before
    entry = services.trail.draft(event_type)

    def write(conn: Connection) -> Intake:
        _lock_everything_open(conn)
        found = intake_of(conn)
        if found.is_open is is_on:
            return found  # somebody else was faster
        values = {"is_on": is_on, "changed_at": now}
        if conn.execute(update(switches).where(switches.c.name == _NAME).values(**values)).rowcount == 0:
            conn.execute(insert(switches).values(name=_NAME, **values))
        services.trail.write(conn, entry)
        return Intake(is_on, now)

    return writing(services.engine, write)


def _lock_everything_open(conn: Connection) -> None:
    """In the order in which a release locks: rounds first; then those that were opened until no more could be."""
    found = select(rounds.c.round_id).where(rounds.c.status.in_(OPEN_STATUSES))
    open_now = found.order_by(rounds.c.round_id).with_for_update()
    conn.execute(open_now).all()
    conn.execute(select(models.c.model_id).order_by(models.c.model_id).with_for_update()).all()
    conn.execute(open_now).all()
