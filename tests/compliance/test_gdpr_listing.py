"""The specification's listing 7.1 works as it stands: `GDPRCompliantFL`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from request_desk import use

from compliance import GDPRCompliantFL
from compliance.errors import UnknownClient

if TYPE_CHECKING:
    from conftest import House


@dataclass
class Records:
    """One registered client."""

    house: House
    client_id: str
    subject: str

    def subject_of(self, client_id: str) -> str | None:
        known = client_id == self.client_id and self.house.place.count(self.subject)
        return self.subject if known else None

    def registration_date(self, _client_id: str) -> datetime:
        return datetime(2026, 11, 1, tzinfo=UTC)

    def participation(self, _client_id: str) -> list[dict[str, Any]]:
        return [{"round_number": 1}]

    def statistics(self, _client_id: str) -> dict[str, Any]:
        return {"num_samples": 10}


@pytest.fixture
def gdpr(house: House) -> GDPRCompliantFL:
    records = Records(house, "client-7", house.person("canary-ada"))
    return GDPRCompliantFL(house.desk, records, house.clock)


def test_a_client_is_deleted_by_one_call(house: House, gdpr: GDPRCompliantFL) -> None:
    """Art. 17: `{"status": "deleted", "timestamp": …}`; afterwards nobody knows the client."""
    answer = gdpr.handle_deletion_request("client-7")

    assert answer == {"status": "deleted", "timestamp": "2026-11-24T12:00:00Z"}
    with pytest.raises(UnknownClient):
        gdpr.handle_deletion_request("client-7")
    with pytest.raises(UnknownClient):
        gdpr.export_client_data("client-7")


def test_a_deletion_under_a_legal_hold_says_so(house: House, gdpr: GDPRCompliantFL) -> None:
    """Never half done and called deleted; asked again, it is the same request."""
    house.hold(gdpr._records.subject)

    first, again = (gdpr.handle_deletion_request("client-7") for _ in range(2))

    assert first["status"] == again["status"] == "on_hold"
    assert len(house.desk.cases()) == 1


def test_a_deletion_that_waits_for_a_round_is_partial_then_deleted(
    house: House, gdpr: GDPRCompliantFL
) -> None:
    """RULES 5: the update of a frozen round stays until its release."""
    house.place.is_frozen = True
    assert gdpr.handle_deletion_request("client-7")["status"] == "partial"
    house.place.is_frozen = False

    assert gdpr.handle_deletion_request("client-7")["status"] == "deleted"


def test_a_deletion_that_two_people_must_approve_waits_for_the_second(
    house: House, gdpr: GDPRCompliantFL
) -> None:
    """FLG_ERASURE_APPROVALS=2: nothing is erased yet, and the answer does not say that part of it was."""
    desk = use(house, erasure_approvals=2)
    law = GDPRCompliantFL(desk, gdpr._records, house.clock)

    told = [law.handle_deletion_request("client-7")["status"] for _ in range(2)]

    assert told == ["awaiting_approval"] * 2
    (case,) = desk.cases()
    desk.approve(case.id, by=house.officer)
    assert law.handle_deletion_request("client-7")["status"] == "deleted"


def test_a_clients_data_has_the_members_of_the_listing(gdpr: GDPRCompliantFL) -> None:
    """Art. 20."""
    assert gdpr.export_client_data("client-7") == {
        "client_id": "client-7",
        "registration_date": "2026-11-01T00:00:00Z",
        "participation_history": [{"round_number": 1}],
        "training_statistics": {"num_samples": 10},
    }
    with pytest.raises(UnknownClient):
        gdpr.export_client_data("stranger")
