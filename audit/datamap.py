"""What each column of a table says about the data it holds: the data map's one source (GDPR Art. 5, 30)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect
from sqlalchemy.types import TypeDecorator

FACTS = ("category", "purpose", "basis", "retention", "erase", "export")


def impersonal(purpose: str) -> dict[str, str]:
    """The description of a column that says nothing about a person."""
    return {
        "category": "none",
        "purpose": purpose,
        "basis": "none",
        "retention": "operation",
        "erase": "keep",
        "export": "no",
    }


def personal(
    category: str,
    purpose: str,
    *,
    basis: str = "Art. 6(1)(b)",
    retention: str = "participation",
    erase: str = "delete",
    export: str = "Art. 15",
) -> dict[str, str]:
    """The description of a column that holds personal data.

    Args:
        category: what kind of data it is (identifier, contact, device, contribution, access).
        purpose: why it is kept.
        basis: the legal basis of GDPR Article 6.
        retention: the retention class, `participation` or `accountability`.
        erase: what an erasure does: `delete` the row, `destroy-key`, or `keep` with the reason in the docs.
        export: the article under which a subject gets it, or `no`.
    """
    return {
        "category": category,
        "purpose": purpose,
        "basis": basis,
        "retention": retention,
        "erase": erase,
        "export": export,
    }


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC `datetime` on every database; a naive one is refused, since it means no instant."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a time without a zone names no instant: pass an aware datetime")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def process_literal_param(self, value: Any, dialect: Dialect) -> str:
        return repr(self.process_bind_param(value, dialect))
