"""The record of processing activities (Art. 30(1)), made from the data map: it cannot lag behind the tables.

What the software does is stated here; what only the controller knows is left to the settings, and said to be missing
where they are empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compliance.datamap import MappedColumn
from compliance.evidence.pages import page

_MISSING = "not set: FLG_CONTROLLER"
_SUBJECTS = (
    "people and institutions whose clients take part in training",
    "people behind a silo's data, whom the gateway knows by the silo's opaque reference at most",
    "staff with an account or a client of their own",
)
_MEASURES = (
    "Personal columns and log fields are sealed with AES-256-GCM under a key of that person; erasing destroys the key.",
    "Subject keys are in a store of their own, under a master key that can be in a KMS; its backups are short-lived.",
    "Updates and packages are stored encrypted, under random names; training data never reaches the gateway.",
    "Every change of state is an entry of a tamper-evident log that outsiders can verify and witness.",
    "Tokens, secrets and passwords are stored hashed; each route asks for a scope, and personal fields are shown on a "
    "reasoned, logged request alone.",
    "TLS stands before every connection that leaves the machine; SIEM copies carry pseudonyms.",
    "Aggregates can be released with differential privacy, whose budget is enforced and reported.",
    "Backups are checked; erasures made since are applied again before a restored gateway takes work.",
)
_RETENTION = {
    "participation": "until erasure, or the end of the configured retention",
    "the key's": "as long as the key that it names",
    "accountability": "at least two years, also after an erasure (Art. 17(3)(b, e))",
}


@dataclass(frozen=True, slots=True)
class Controller:
    """What the settings say of who answers for the processing.

    Args:
        name: name and contact of the controller.
        dpo_contact: contact of the data-protection officer.
        purposes: what the processing is for.
        recipients: who gets personal data, or copies under a pseudonym.
        stores: where data is kept outside of the gateway's own machine; decides on transfers to third countries.
        retention_schedule: how long each kind of data is kept at least and at most.
        is_retention_applied: whether what is over its term is removed, or only reported.
    """

    name: str
    dpo_contact: str
    purposes: Sequence[str]
    recipients: Sequence[str]
    stores: Sequence[str]
    retention_schedule: Sequence[Mapping[str, Any]] = ()
    is_retention_applied: bool = False


def processing_record(
    columns: Iterable[MappedColumn], controller: Controller, made_at: datetime
) -> dict[str, Any]:
    """The record, member by member in the order of Art. 30(1)(a) to (g)."""
    return {
        "made_at": made_at.isoformat().replace("+00:00", "Z"),
        "controller": controller.name or _MISSING,
        "data_protection_officer": controller.dpo_contact or "not set: FLG_DPO_CONTACT",
        "purposes": list(controller.purposes),
        "data_subjects": list(_SUBJECTS),
        "categories": _categories(column for column in columns if column.is_personal),
        "retention_schedule": {
            "terms": list(controller.retention_schedule),
            "is_applied": controller.is_retention_applied,
        },
        "recipients": list(controller.recipients),
        "transfers": {
            "by_the_gateway": "none: it sends personal data to no one but the recipients and stores named here",
            "stores_outside_this_machine": list(controller.stores),
        },
        "security_measures": list(_MEASURES),
    }


def record_page(record: Mapping[str, Any]) -> str:
    """The record as a page for people."""
    return page("record.html", record=record)


def _categories(columns: Iterable[MappedColumn]) -> list[dict[str, Any]]:
    by_name: dict[tuple[str, str, str], list[MappedColumn]] = {}
    for column in columns:
        by_name.setdefault((column.category, column.basis, column.retention), []).append(column)
    return [
        {
            "category": category,
            "legal_basis": basis,
            "retention": _RETENTION.get(retention, retention),
            "purposes": sorted({column.purpose for column in found}),
            "erased_by": sorted({column.erase for column in found}),
            "is_exported": any(column.export != "no" for column in found),
            "columns": sorted(f"{column.table}.{column.column}" for column in found),
        }
        for (category, basis, retention), found in sorted(by_name.items())
    ]
