"""What a table of an export package says of itself: its columns, as JSON Schema 2020-12 tells them to a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Form(StrEnum):
    """What a column's values are; times (RFC 3339) and ids (UUID) are texts in JSON."""

    TEXT = "text"
    TIME = "time"
    ID = "id"
    INTEGER = "integer"
    FLAG = "flag"
    ANY = "any"


_TYPES = {Form.INTEGER: "integer", Form.FLAG: "boolean"}
_FORMATS = {Form.TIME: "date-time", Form.ID: "uuid"}


@dataclass(frozen=True, slots=True)
class ExportColumn:
    """One column.

    Args:
        name: as it stands in every row.
        form: what its values are.
        meaning: what it tells, for people and in the schema.
        is_optional: whether it may be null.
        is_portable: whether the person gave it or made it by taking part, and may take it along (Art. 20).
    """

    name: str
    form: Form
    meaning: str
    is_optional: bool = False
    is_portable: bool = False

    def schema(self) -> dict[str, Any]:
        """The column as a property of a JSON Schema."""
        told: dict[str, Any] = {"description": self.meaning}
        if self.form is not Form.ANY:
            kind = _TYPES.get(self.form, "string")
            told["type"] = [kind, "null"] if self.is_optional else kind
        if self.form in _FORMATS:
            told["format"] = _FORMATS[self.form]
        return told


def schema_of(category: str, title: str, columns: Sequence[ExportColumn]) -> dict[str, Any]:
    """The JSON Schema of a file of rows: an array of objects that have exactly these members."""
    return {
        "$schema": DIALECT,
        "$id": f"urn:fl-gateway:package:{category}",
        "title": title,
        "type": "array",
        "items": {
            "type": "object",
            "properties": {column.name: column.schema() for column in columns},
            "required": [column.name for column in columns],
            "additionalProperties": False,
        },
    }


def text_of(at: datetime | None) -> str | None:
    """A time as rows tell it: RFC 3339, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
