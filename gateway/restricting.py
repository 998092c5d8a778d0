"""A restriction or an objection is carried out: a person's data is kept, and not used until it is lifted (Art. 18, 21).

Updates in rounds that still take some are left out before freezing: they contribute zero, and the planned divisor stays
(RULES 5, 6). What is in a frozen cohort is released with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, select, update

from audit.draft import Personal
from audit.events import EventType
from audit.reading import reading
from compliance.errors import CaseChanged, NothingToLift
from compliance.requests.cases import Case, RequestType, change_case, list_cases, read_case
from compliance.subjects import Ground, lift, lock_subject, restrict
from gateway.rounds.record import OPEN_STATUSES, RoundStatus, UpdateStatus
from gateway.services import Services
from gateway.tables import client_updates, clients, rounds

GROUNDS = {RequestType.RESTRICTION: Ground.RESTRICTION, RequestType.OBJECTION: Ground.OBJECTION}
_NOT_FROZEN = [status for status in OPEN_STATUSES if status != RoundStatus.AGGREGATING.value]


class Restricting:
    """Carries out requests of one of the two types."""

    def __init__(self, services: Services, ground: Ground) -> None:
        self._services = services
        self._ground = ground

    def prepare(self, case: Case, /) -> Callable[[Connection], None]:
        """Mark the person, and leave its updates out of every round that is not frozen."""
        now = self._services.clock()

        def write(conn: Connection) -> None:
            locked = _lock_rounds(
                conn, case.subject_id
            )  # rounds before subjects, as who accepts an update does
            lock_subject(conn, case.subject_id)
            restrict(conn, case.subject_id, self._ground, now)
            # An update may have come into a round that opened in between: from now on none comes in.
            locked += _lock_rounds(conn, case.subject_id)
            _leave_out(conn, case.subject_id, locked)

        return write


def lift_restriction(
    services: Services, case_id: str, *, by: Personal, notice: str, version: int | None = None
) -> Case:
    """End what a completed request restricts; the person is told before (Art. 18(3)), or withdrew its objection.

    Its data is used again once no other request of the same kind restricts it.

    Args:
        services: the stores.
        case_id: the request.
        by: who decides it.
        notice: what the person was told; it stands, sealed, in the entry.
        version: the version that `by` has seen.

    Raises:
        UnknownRequest: no request has this id.
        NothingToLift: it restricts nothing, or nothing any more.
        CaseChanged: somebody else was faster.
        SubjectErasing: the person is erased, or its erasure has begun.
    """
    with reading(services.engine) as conn:
        case = read_case(conn, case_id)
    if version is not None and version != case.version:
        raise CaseChanged(case_id, version)
    if not case.is_in_force:
        raise NothingToLift(
            "this request restricts nothing, or nothing any more: lift a restriction or an objection that stands"
        )
    entry = services.trail.draft(
        EventType.PRIVACY_LIFTED,
        details={"case_id": case_id, "type": case.type.value, "notice": Personal(case.subject_id, notice)},
        actor=by,
    )
    with services.engine.begin() as conn:
        lock_subject(conn, case.subject_id)
        change_case(conn, case, lifted_at=services.clock())
        services.trail.write(conn, entry)
        alike = list_cases(conn, subject_id=case.subject_id, request_type=case.type)
        if not any(other.is_in_force for other in alike):
            lift(conn, case.subject_id, GROUNDS[case.type])
    with reading(services.engine) as conn:
        return read_case(conn, case_id)


def _lock_rounds(conn: Connection, subject: str) -> list[int]:
    """Lock the rounds that the person sent something to and that are not frozen; no freeze overtakes this."""
    own = (
        select(client_updates.c.round_id)
        .join(clients, clients.c.client_id == client_updates.c.client_id)
        .where(clients.c.subject_id == subject, client_updates.c.status == UpdateStatus.ACCEPTED.value)
    )
    query = select(rounds.c.round_id).where(rounds.c.status.in_(_NOT_FROZEN), rounds.c.round_id.in_(own))
    return list(conn.execute(query.order_by(rounds.c.round_id).with_for_update()).scalars())


def _leave_out(conn: Connection, subject: str, round_ids: Sequence[int]) -> None:
    own = select(clients.c.client_id).where(clients.c.subject_id == subject)
    conn.execute(
        update(client_updates)
        .where(
            client_updates.c.client_id.in_(own),
            client_updates.c.round_id.in_(sorted(set(round_ids))),
            client_updates.c.status == UpdateStatus.ACCEPTED.value,
        )
        .values(status=UpdateStatus.DROPPED.value)
    )
