"""The run as one self-contained page: curves, claim, audit, erasure; no script, nothing from the network."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.demo import curve
from gateway.demo.claim import erasure_limit, privacy_claim
from gateway.demo.data import load_split
from gateway.demo.outcome import DemoOutcome
from gateway.demo.plan import Unit

_SAMPLE_FIELDS = 6
_VALUE_CHARACTERS = 80


def write_report(outcome: DemoOutcome) -> Path:
    """Write the page to the outcome's `report` path."""
    outcome.report.write_text(render(outcome), "utf-8")
    return outcome.report


def render(outcome: DemoOutcome) -> str:
    """The page; every value is escaped."""
    pages = Environment(
        loader=PackageLoader("gateway.demo", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["short"] = _short
    return pages.get_template("report.html").render(
        outcome=outcome,
        plan=outcome.plan,
        curves=_curves(outcome),
        claim=privacy_claim(outcome.plan, outcome.training.final.epsilon_spent),
        erasure_limit=erasure_limit(outcome.plan),
        kept=outcome.erasure.receipt_payload.get("exceptions", []),
        gateway_claim=json.dumps(outcome.training.claim, indent=2, ensure_ascii=False),
        sample=list(zip(outcome.erasure.before, outcome.erasure.after, strict=True))[:_SAMPLE_FIELDS],
        held_out=len(load_split()[1]),
        frame=curve,
        has_claim=outcome.plan.unit is not Unit.NONE,
        version=_version(),
    )


def _curves(outcome: DemoOutcome) -> list[curve.Curve]:
    rounds = outcome.training.rounds
    accuracies = [one.accuracy for one in rounds]
    drawn = [curve.draw("accuracy", "Accuracy on held-out data", accuracies, top=1.0, steps=5, decimals=2)]
    spent = [one.epsilon_spent for one in rounds if one.epsilon_spent is not None]
    if outcome.plan.epsilon is not None and len(spent) == len(rounds):
        budget = outcome.plan.epsilon
        limit = (budget, f"budget {budget:g}")
        drawn.append(
            curve.draw("epsilon", "Epsilon spent", spent, top=budget * 1.2, steps=6, decimals=2, limit=limit)
        )
    return drawn


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 1] + "…"


def _version() -> str:
    try:
        return version("fl-gateway")
    except PackageNotFoundError:
        return "from a checkout"
