"""The data map: no column without a word on what it holds (DESIGN, Art. 30)."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, String, Table

from audit.datamap import impersonal
from audit.tables import metadata as audit_tables
from compliance.datamap import describe, undescribed
from compliance.keyring.tables import metadata as keystore_tables
from compliance.tables import metadata as compliance_tables
from gateway.places import erased_tables
from gateway.tables import metadata as gateway_tables

ALL = (audit_tables, compliance_tables, keystore_tables, gateway_tables)


def test_every_column_says_what_it_holds() -> None:
    """DESIGN: a test fails on a column without its description."""
    assert undescribed(ALL) == []


def test_a_column_without_a_word_is_found() -> None:
    """Neither a missing nor an empty fact passes."""
    metadata = MetaData()
    Table(
        "odd",
        metadata,
        Column("silent", String),
        Column("empty", String, info={**impersonal("x"), "basis": " "}),
        Column("fine", String, info=impersonal("counts")),
    )

    assert undescribed([metadata]) == ["odd.silent", "odd.empty"]
    assert [line.column for line in describe([metadata])] == ["fine"]


def test_personal_columns_say_how_they_are_erased() -> None:
    """Art. 17, 30: nothing personal without an erase rule, an export rule and a legal basis."""
    personal = [line for line in describe(ALL) if line.is_personal]

    assert {"subjects", "privacy_requests", "subject_keys"} <= {line.table for line in personal}
    assert all(line.basis.startswith("Art. 6(1)") for line in personal)
    assert {line.erase for line in personal} <= {"delete", "destroy-key", "keep"}


def test_every_table_whose_rows_an_erasure_deletes_has_a_place_that_does() -> None:
    """DESIGN: erasure reads the data map; a new table with personal rows must not be forgotten."""
    personal = {
        line.table for line in describe([gateway_tables]) if line.is_personal and line.erase == "delete"
    }

    assert personal == erased_tables()
