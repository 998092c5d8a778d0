"""Privacy evidence of one model version: what a release claims, on which terms, and what it does not claim.

The numbers come from the ledger as plain values; no claim stands without its terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NOT_COVERED = (
    "The claim covers the model's weights, not the fact of who took part.",
    "Each model has a budget of its own: somebody who took part in several pays in each of them.",
    "Models released earlier cannot forget a contribution after an erasure.",
)
_TRUST = {
    "client": "The server clips every update itself, and adds the noise once.",
    "record": (
        "Silos are trusted to clip each record; the server bounds a silo's sum and adds the noise once. "
        "A person with several records is not covered."
    ),
}
_SAMPLED = (
    "Epsilon counts on the server's secret Poisson sampling: it holds only against readers who cannot see who took "
    "part, in the database, the log or the traffic. Against all others epsilon_if_cohort_known holds.",
)
_NO_CLAIM = "This rule has no proof of differential privacy: no epsilon is claimed."


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What the ledger says of a model version; numbers are decimal strings, None where nothing is claimed.

    `selection` and `sampling_rate` are those of the round that made it. `epsilon_if_cohort_known` leaves out what
    Poisson sampling earned, in this round and before; it equals `epsilon` where no round sampled.
    """

    model_id: str
    version: str
    epsilon: str | None
    delta: str | None
    unit: str
    mechanism: str
    adjacency: str
    planned_clients: int
    selection: str = "all"
    sampling_rate: str | None = None
    epsilon_if_cohort_known: str | None = None

    @property
    def is_amplified(self) -> bool:
        """Whether sampling made the claim smaller than it would otherwise be."""
        return self.epsilon_if_cohort_known not in (None, self.epsilon)


def release_report(facts: ReleaseFacts) -> dict[str, Any]:
    """The report that `GET /privacy/report/{version}` answers."""
    claims = facts.mechanism != "none" and facts.epsilon is not None
    return {
        "model_id": facts.model_id,
        "version": facts.version,
        "epsilon": facts.epsilon if claims else None,
        "delta": facts.delta if claims else None,
        "unit": facts.unit,
        "mechanism": facts.mechanism,
        "adjacency": facts.adjacency,
        "planned_clients": facts.planned_clients,
        "selection": facts.selection,
        "sampling_rate": facts.sampling_rate,
        "epsilon_if_cohort_known": facts.epsilon_if_cohort_known if claims else None,
        "trust": _TRUST.get(facts.unit, "") if claims else _NO_CLAIM,
        "not_covered": [*_NOT_COVERED, *(_SAMPLED if claims and facts.is_amplified else ())],
    }


def release_text(report: Mapping[str, Any]) -> str:
    """The report for people: one line a fact, in Markdown."""
    title = f"# Privacy report of {report['model_id']} {report['version']}\n"
    facts = [
        f"- {name.replace('_', ' ')}: {_shown(value)}"
        for name, value in report.items()
        if name not in {"model_id", "version", "not_covered"}
    ]
    limits = [f"- {line}" for line in report["not_covered"]]
    return "\n".join([title, *facts, "", "## Not covered\n", *limits, ""])


def _shown(value: object) -> str:
    return "not claimed" if value is None else str(value)
