"""People whom only their silo knows: filed under its reference, answered by a signed statement (Art. 11)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from request_desk import entries, opened, use

from compliance.errors import BadReceipt, NoStatement
from compliance.keyring.keys import SigningUse
from compliance.parts import TakenPart
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.statements import verify_statement

if TYPE_CHECKING:
    from conftest import House

REFERENCE = "canary-patient-4711"


def test_every_type_is_answered_by_a_signed_statement(house: House) -> None:
    """Rounds and models of the silo, that nobody can be identified, and what the silo must do itself."""
    parts = (TakenPart(3, house.clock(), "1.3.0"), TakenPart(4, house.clock(), None))
    silo = house.person("canary-silo")
    use(house, participation=lambda subject: parts if subject == silo else ())

    for kind in RequestType:
        case = _carried_out(house, silo, kind.value)
        told = _verified(house, case)

        assert case.status is Status.COMPLETED
        assert (told["request_id"], told["request_type"]) == (case.id, kind.value)
        assert [(part["round_number"], part["model_version"]) for part in told["rounds"]] == [
            (3, "1.3.0"),
            (4, None),
        ]
        assert told["model_versions"] == ["1.3.0"]
        assert "Art. 11(2)" in told["cannot_identify"]
        assert told["the_silo_must"]

    assert len(entries(house, "privacy.stated")) == len(RequestType)
    assert b"canary" not in house.every_byte()


def test_an_erasure_by_reference_erases_nothing_of_the_silo(house: House) -> None:
    """The silo's own data are not one patient's: neither now nor when ended erasures are looked at again."""
    silo = house.person()

    case = _carried_out(house, silo, "erasure")
    house.clock.advance(timedelta(days=1))
    swept = house.desk.sweep(house.clock())

    assert (case.receipt, swept, house.place.count(silo)) == (None, 0, 1)
    assert opened_again(house, silo).status is Status.RECEIVED


def test_an_erasure_by_reference_needs_one_approval(house: House) -> None:
    """It states, and destroys nothing: no second person is needed."""
    use(house, erasure_approvals=2)

    assert _carried_out(house, house.person(), "erasure").status is Status.COMPLETED


def test_the_same_reference_of_the_same_silo_is_the_same_person(house: House) -> None:
    """A repetition is linked; of another silo, or about the silo itself, it is somebody else."""
    one, other = house.person("one"), house.person("other")
    first = _filed(house, one, "access")
    house.clock.advance(timedelta(seconds=1))

    assert _filed(house, one, "access").duplicate_of == first.id
    elsewhere = _filed(house, other, "access")
    assert elsewhere.duplicate_of is None
    assert elsewhere.reference_index != first.reference_index  # who sees the rows learns of no common patient
    assert _filed(house, one, "access", reference="another").duplicate_of is None
    assert house.desk.open("access", one, requested_by=house.officer).duplicate_of is None


def test_a_silo_that_asks_for_itself_is_not_told_apart_by_mistake(house: House) -> None:
    """Its own request comes first; a patient's later one is no repetition of it."""
    silo = house.person()
    house.desk.open("access", silo, requested_by=house.officer)

    assert _filed(house, silo, "access").duplicate_of is None


def test_a_request_with_data_has_no_statement(house: House) -> None:
    """And one by reference has none before it was carried out."""
    plain, waiting = opened(house), _filed(house, house.person(), "access")

    for case in (plain, waiting):
        with pytest.raises(NoStatement):
            house.desk.statement(case.id)


def test_a_statement_of_another_kind_or_key_is_refused(house: House) -> None:
    """No key signs two kinds of things that could be taken for each other."""
    case = _carried_out(house, house.person(), "access")
    keys = house.public_keys()
    signed = house.desk.statement(case.id)
    receipt_kid = house.keystore.signing_key(SigningUse.RECEIPT).kid

    for text, known in (
        (signed[:-4] + "AAAA", keys),
        (signed, {**keys, receipt_kid: bytes(32)}),
        ("x", keys),
    ):
        with pytest.raises(BadReceipt):
            verify_statement(text, known)


def opened_again(house: House, silo: str) -> Case:
    """A request of the silo's own, which is possible only while nothing erases it."""
    return house.desk.open("access", silo, requested_by=house.officer)


def _filed(house: House, silo: str, kind: str, reference: str = REFERENCE) -> Case:
    return house.desk.open(kind, silo, requested_by=house.officer, reference=reference)


def _carried_out(house: House, silo: str, kind: str) -> Case:
    case = _filed(house, silo, kind)
    return house.desk.run(house.desk.approve(case.id, by=house.officer).id)


def _verified(house: House, case: Case) -> dict[str, Any]:
    return verify_statement(house.desk.statement(case.id), house.public_keys())
