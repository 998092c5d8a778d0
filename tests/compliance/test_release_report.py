"""Privacy evidence: no claim without its terms, none where nothing is proven (promise 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compliance.evidence.release_report import ReleaseFacts, release_report, release_text

FACTS = ReleaseFacts(
    model_id="m",
    version="1.0.1",
    epsilon="1.2",
    delta="0.00001",
    unit="client",
    mechanism="gaussian",
    adjacency="add_or_remove_one",
    planned_clients=10,
)


def test_a_report_has_the_members_of_the_api() -> None:
    """API.md: epsilon, delta, unit, mechanism, adjacency, planned_clients; decimal strings."""
    report = release_report(FACTS)

    assert (report["epsilon"], report["delta"]) == ("1.2", "0.00001")
    assert (report["unit"], report["mechanism"]) == ("client", "gaussian")
    assert (report["adjacency"], report["planned_clients"]) == ("add_or_remove_one", 10)
    assert any("who took part" in line for line in report["not_covered"])


def test_a_record_level_claim_says_whom_it_trusts() -> None:
    """RULES 11: silos are trusted, and a person with several records is not covered."""
    trust = release_report(replace(FACTS, unit="record"))["trust"]

    assert "Silos are trusted" in trust
    assert "several records is not covered" in trust


@pytest.mark.parametrize("changes", [{"mechanism": "none"}, {"epsilon": None}])
def test_without_a_proof_no_epsilon_is_claimed(changes: dict[str, str | None]) -> None:
    """Promise 9: a rule without a proof reports no epsilon, whatever it was handed."""
    report = release_report(replace(FACTS, **changes))

    assert report["epsilon"] is None
    assert report["delta"] is None
    assert "no epsilon is claimed" in report["trust"]


def test_the_text_says_the_same_for_people() -> None:
    """One line a fact."""
    text = release_text(release_report(replace(FACTS, mechanism="none")))

    assert "epsilon: not claimed" in text
    assert "## Not covered" in text
