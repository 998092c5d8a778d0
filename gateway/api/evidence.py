"""Privacy evidence over HTTP: budgets, and what a release claims."""

from __future__ import annotations

from flask import Blueprint, Response
from pydantic.dataclasses import dataclass

from compliance.evidence.release_report import release_report
from gateway.api.reports import budget_lines, version_facts
from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.services import current_services
from gateway.wire import WIRE, answer, json_response

evidence = Blueprint("evidence", __name__, url_prefix="/api/v1/privacy")


@dataclass(frozen=True, slots=True, config=WIRE)
class BudgetLine:
    """A lineage's privacy budget and what is spent of it; decimal strings, null where there is no claim.

    `epsilon_if_cohort_known` leaves out what Poisson sampling earned.
    """

    model_id: str
    epsilon_budget: str | None
    epsilon_spent: str | None
    epsilon_if_cohort_known: str | None
    delta: str | None
    unit: str | None


@dataclass(frozen=True, slots=True, config=WIRE)
class BudgetList:
    """All lineages' budgets."""

    data: list[BudgetLine]


@evidence.get("/budget")
@operation("Every lineage's privacy budget and spend", answers={200: BudgetList})
def show_budget() -> Response:
    """Decimal strings; what is reserved counts as spent."""
    lines = budget_lines(current_services())
    return answer(BudgetList([BudgetLine(**line) for line in lines]))


@evidence.get("/report/<version>")
@operation(
    "What the release of a model version claims, and on which terms",
    answers={200: Media.JSON},
    errors=(NotFound,),
)
def show_report(version: str) -> Response:
    """Epsilon, delta, unit, mechanism, adjacency, planned count, and what is trusted for it."""
    return json_response(release_report(version_facts(current_services(), version)))
