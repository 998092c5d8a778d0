"""Privacy evidence over HTTP: budgets, what a release claims with its proofs, and the record of processing."""

from __future__ import annotations

from flask import Blueprint, Response, request
from pydantic.dataclasses import dataclass

from compliance.evidence.model_report import report_page
from compliance.evidence.pages import content_security_policy
from compliance.evidence.processing_record import record_page
from gateway.api.records import record_of
from gateway.api.reports import budget_lines, report_of
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
    "What the release of a model version claims, on which terms, with proofs; signed; as JSON or as a page",
    answers={200: Media.JSON},
    errors=(NotFound,),
    headers=("Accept",),
)
def show_report(version: str) -> Response:
    """Epsilon, its terms, the ledger's lines with a tlog-proof each, and a JWS of it all (`fl-report+jwt`)."""
    report = report_of(current_services(), version)
    return _page(report_page(report)) if _wants_page() else json_response(report)


@evidence.get("/records")
@operation(
    "The record of processing activities (Art. 30), made from the data map; as JSON or as a page",
    answers={200: Media.JSON},
    headers=("Accept",),
)
def show_records() -> Response:
    """Controller, purposes, categories, recipients, terms, measures; it names nobody but the controller."""
    record = record_of(current_services())
    return _page(record_page(record)) if _wants_page() else json_response(record)


def _wants_page() -> bool:
    media = [Media.JSON.value, Media.HTML.value]
    return request.accept_mimetypes.best_match(media, Media.JSON.value) == Media.HTML.value


def _page(html: str) -> Response:
    headers = {"Content-Security-Policy": content_security_policy(), "Vary": "Accept"}
    return Response(html, mimetype=Media.HTML.value, headers=headers)
