"""How each model's privacy budget is spent and how good its versions are, as lines over rounds.

Epsilon at a round is what the accountant says of all rounds up to it; what is reserved counts as spent. It is drawn at
up to so many rounds as the accountant answers quickly, and kept until the lineage's ledger moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from flask import Response
from sqlalchemy import Connection

from aggregation.accountant import Mechanism, decimal_up, epsilon
from audit.reading import reading
from gateway.auth.people.person import Person
from gateway.auth.scopes import Scope
from gateway.console.blueprint import page_blueprint
from gateway.console.chart import Chart, draw
from gateway.console.door import page_person
from gateway.console.pages import render_page
from gateway.console.words import number
from gateway.openapi import Media, operation
from gateway.rounds.ledger import Line, claim_delta, has_bare_release, read_lines
from gateway.rounds.lineage import Lineage, ModelVersion, lineages, newest_versions
from gateway.services import Services, current_services

models = page_blueprint("console_models", "/models")
_VERSIONS = 40
_POINTS, _POINTS_SAMPLED = 24, 8
_NEARLY = 0.8


@dataclass(frozen=True, slots=True)
class Spend:
    """A lineage's budget: decimal strings, None where there is none or no claim holds; `share` of it is spent."""

    budget: str | None
    spent: str | None
    delta: str
    is_bare: bool
    share: float | None
    chart: Chart | None

    @property
    def tone(self) -> str:
        """How near its end the budget is."""
        if self.share is None:
            return ""
        return "bad" if self.share >= 1 else "warn" if self.share >= _NEARLY else ""


@dataclass(frozen=True, slots=True)
class ModelShown:
    """A lineage as a person of these scopes sees it."""

    lineage: Lineage
    spend: Spend
    versions: tuple[ModelVersion, ...]
    accuracy: Chart | None
    loss: Chart | None


@models.get("")
@operation("Budget and accuracy of each model, for people", answers={200: Media.HTML})
def show_models() -> Response:
    """Each lineage, the newest first."""
    shown = models_for(current_services(), page_person())
    return render_page("models.html", models=shown)


def models_for(services: Services, person: Person, *, most: int | None = None) -> list[ModelShown]:
    """So many lineages, or all, the newest first; how good their versions are is for who may see models."""
    sees_versions = not person.scopes.isdisjoint((Scope.ROUND_MANAGE, Scope.MODEL_DOWNLOAD))
    with reading(services.engine) as conn:
        found = [
            (one, spend_facts(services, conn, one), newest_versions(conn, one.model_id, limit=_VERSIONS))
            for one in lineages(conn)[::-1][:most]
        ]
    return [_shown(one, *facts, versions if sees_versions else ()) for one, facts, versions in found]


def spend_facts(services: Services, conn: Connection, lineage: Lineage) -> tuple[list[Line], bool]:
    """The lines that count, and whether a round without noise has ended every claim."""
    return read_lines(conn, lineage.model_id), has_bare_release(services, conn, lineage.model_id)


def spend_of(lineage: Lineage, lines: Sequence[Line], *, is_bare: bool) -> Spend:
    """What of the budget is spent, and how it came to that."""
    if is_bare:
        return Spend(lineage.epsilon_budget, None, claim_delta(lineage), True, None, None)
    curve = [
        (str(lines[count - 1].round_number), _epsilon(lineage, lines, count)) for count in _counts(lines)
    ]
    budget = None if lineage.epsilon_budget is None else float(lineage.epsilon_budget)
    spent = curve[-1][1] if curve else 0.0
    return Spend(
        budget=lineage.epsilon_budget,
        spent=decimal_up(spent),
        delta=claim_delta(lineage),
        is_bare=False,
        share=spent / budget if budget else None,
        chart=draw(curve, write=number, limit=budget),
    )


def _shown(
    lineage: Lineage, lines: list[Line], is_bare: bool, versions: Sequence[ModelVersion]
) -> ModelShown:
    accuracies = [(one.version, one.accuracy) for one in versions if one.accuracy is not None]
    losses = [(one.version, one.loss) for one in versions if one.loss is not None]
    return ModelShown(
        lineage=lineage,
        spend=spend_of(lineage, lines, is_bare=is_bare),
        versions=tuple(versions),
        accuracy=draw(accuracies, write=number, top=1.0),
        loss=draw(losses, write=number),
    )


def _counts(lines: Sequence[Line]) -> list[int]:
    """After how many rounds the line has a point: at most so many, evenly, the last one among them."""
    is_sampled = any(line.mechanism.sampling_rate < 1 for line in lines)
    most = _POINTS_SAMPLED if is_sampled else _POINTS
    step = max(1, -(-len(lines) // most))
    return sorted({*range(step, len(lines) + 1, step), len(lines)} - {0})


def _epsilon(lineage: Lineage, lines: Sequence[Line], count: int) -> float:
    return _kept_epsilon(tuple(line.mechanism for line in lines[:count]), claim_delta(lineage))


@lru_cache(maxsize=512)
def _kept_epsilon(mechanisms: tuple[Mechanism, ...], delta: str) -> float:
    return float(epsilon(mechanisms, float(delta)))
