"""What bounds the influence of a person's updates on the models that came after them, version by version.

Versions after the first such round descend from it. The bound composes the rounds that counted the person's updates;
those of a sampled round count as if everybody knew that they were drawn, since here it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from sqlalchemy import Connection, Row, func, select

from aggregation.accountant import decimal_up
from audit.reading import reading
from compliance.erasures.receipt import ModelLine
from gateway.erasing import clients_of
from gateway.rounds.ledger import Line, LineStatus, claim_delta, epsilon_if_cohort_known, read_lines
from gateway.rounds.lineage import Lineage, find_lineage
from gateway.rounds.record import UpdateStatus
from gateway.services import Services
from gateway.tables import client_updates, model_versions, rounds

MOST_LINES = 100
_NO_BOUND = (
    "No bound holds: a round that counted this person's update added no noise. What these versions learned from it "
    "cannot be taken back, and nobody can say how much that is."
)
_OF_A_CLIENT = (
    "Whatever can be computed from such a version would, with probability nearly as large (epsilon, delta), have come "
    "out without the updates of {whose}."
)
_OF_A_RECORD = (
    "The bound holds for each single record behind the updates of {whose}, and not for all records together."
)


@dataclass(frozen=True, slots=True)
class _Part:
    """The part that a person took in one lineage."""

    lineage: Lineage
    rounds: frozenset[int]
    clients: int
    spent: Sequence[Line]

    def bound(self, up_to: int) -> tuple[str | None, str | None, str]:
        """Epsilon, delta and the statement of the version that this round made."""
        own = [line for line in self.spent if line.round_number in self.rounds and line.round_number <= up_to]
        if len(own) < sum(number <= up_to for number in self.rounds):
            return None, None, _NO_BOUND
        whose = "this person" if self.clients == 1 else f"each of this person's {self.clients} clients alone"
        said = _OF_A_RECORD if own[0].unit == "record" else _OF_A_CLIENT
        epsilon = decimal_up(epsilon_if_cohort_known(self.lineage, own))
        return epsilon, claim_delta(self.lineage), said.format(whose=whose)


def influence_of(services: Services, subject: str) -> tuple[ModelLine, ...]:
    """A line for each version, or, where there are very many, for some that follow each other with one bound."""
    with reading(services.engine) as conn:
        own = conn.execute(_counted(subject)).all()
        lines: list[ModelLine] = []
        for model_id in sorted({row.model_id for row in own}):
            lines += _of_lineage(conn, [row for row in own if row.model_id == model_id])
    return tuple(lines)


def versions_before(services: Services, subject: str) -> list[str]:
    """Of each model that counted an update of the person, the last version before the first that did."""
    with reading(services.engine) as conn:
        own = conn.execute(_counted(subject)).all()
        firsts = {
            model_id: min(row.round_number for row in own if row.model_id == model_id)
            for model_id in sorted({row.model_id for row in own})
        }
        found = [_version_before(conn, model_id, first) for model_id, first in firsts.items()]
    return [version for version in found if version is not None]


def _counted(subject: str) -> Any:
    return (
        select(rounds.c.model_id, rounds.c.round_number, client_updates.c.client_id)
        .join(client_updates, client_updates.c.round_id == rounds.c.round_id)
        .where(
            client_updates.c.client_id.in_(clients_of(subject)),
            client_updates.c.status == UpdateStatus.COUNTED.value,
            rounds.c.result_version.is_not(None),
        )
    )


def _of_lineage(conn: Connection, own: Sequence[Row[Any]]) -> list[ModelLine]:
    model_id, numbers = own[0].model_id, frozenset(row.round_number for row in own)
    spent = [line for line in read_lines(conn, model_id) if line.status is LineStatus.SPENT]
    part = _Part(find_lineage(conn, model_id), numbers, len({row.client_id for row in own}), spent)
    before = _version_before(conn, model_id, min(numbers))
    query = select(model_versions.c.version, model_versions.c.round_number).where(
        model_versions.c.model_id == model_id, model_versions.c.round_number >= min(numbers)
    )
    found = conn.execute(query.order_by(model_versions.c.version_id)).all()
    size = max(1, ceil(len(found) / MOST_LINES))
    return [_line(part, found[start : start + size], before) for start in range(0, len(found), size)]


def _line(part: _Part, versions: Sequence[Row[Any, Any]], before: str | None) -> ModelLine:
    epsilon, delta, statement = part.bound(versions[-1].round_number)
    return ModelLine(
        model_id=part.lineage.model_id,
        first_version=versions[0].version,
        last_version=versions[-1].version,
        versions=len(versions),
        epsilon=epsilon,
        delta=delta,
        statement=statement,
        version_before=before,
    )


def _version_before(conn: Connection, model_id: str, number: int) -> str | None:
    earlier = func.coalesce(model_versions.c.round_number, 0) < number
    query = select(model_versions.c.version).where(model_versions.c.model_id == model_id, earlier)
    return conn.execute(query.order_by(model_versions.c.version_id.desc()).limit(1)).scalar_one_or_none()
