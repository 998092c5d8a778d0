"""The information of Art. 15(1) and (2) that goes with a copy of the data; its categories are those of the data map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import audit.tables
import compliance.keyring.tables
import compliance.tables
import gateway.tables
from compliance.datamap import MappedColumn, describe
from gateway.config import Config
from gateway.recipients import recipients_of
from gateway.retention import schedule_shown

_METADATAS = (
    audit.tables.metadata,
    compliance.tables.metadata,
    compliance.keyring.tables.metadata,
    gateway.tables.metadata,
)
_RIGHTS = {
    "rectification": "Art. 16: have what is wrong put right",
    "erasure": "Art. 17: have your data erased",
    "restriction": "Art. 18: have its use restricted",
    "portability": "Art. 20: take along what you gave",
    "objection": "Art. 21: object to its use",
}
_RETENTION = {
    "participation": "until you are erased, or until the operator's term for it is over",
    "accountability": "at least two years, also after an erasure (Art. 17(3)(b) and (e))",
    "package": "this package: seven days from the day it was made",
}


def article_15(config: Config, processing: Mapping[str, Any]) -> Mapping[str, Any]:
    """The notice of this gateway.

    Args:
        config: says who answers for the processing.
        processing: its `purposes` and `recipients`.
    """
    return {
        "controller": config.controller,
        "data_protection_officer": config.dpo_contact,
        "purposes": {"article": "15(1)(a)", "items": processing["purposes"]},
        "categories": {"article": "15(1)(b)", "items": _categories()},
        "recipients": {
            "article": "15(1)(c)",
            "items": [*processing["recipients"], *recipients_of(config)],
        },
        "retention": {
            "article": "15(1)(d)",
            "terms": _RETENTION,
            "schedule": schedule_shown(config.retention) if config.retention_apply else [],
        },
        "rights": {"article": "15(1)(e)", "items": _RIGHTS},
        "complaint": {
            "article": "15(1)(f)",
            "text": "You may complain to a supervisory authority, such as that of the place where you live or work "
            "(Art. 77).",
        },
        "source": {
            "article": "15(1)(g)",
            "text": "What you, your clients or your silo sent; what the operator noted when a client or an account was "
            "added; and what the gateway noted of what was done.",
        },
        "automated_decisions": {
            "article": "15(1)(h)",
            "text": "None (Art. 22). Rounds choose clients by rules of the operator; this has no legal effect on "
            "a person.",
        },
        "transfers": {
            "article": "15(2)",
            "text": "The gateway itself transfers nothing to third countries; where its operator keeps stores or sends "
            "copies there, the operator tells you the safeguards of Art. 46.",
        },
    }


def _categories() -> list[dict[str, Any]]:
    grouped: dict[str, list[MappedColumn]] = defaultdict(list)
    for column in describe(_METADATAS):
        if column.is_personal:
            grouped[column.category].append(column)
    return [_category(name, columns) for name, columns in sorted(grouped.items())]


def _category(name: str, columns: list[MappedColumn]) -> dict[str, Any]:
    return {
        "category": name,
        "data": sorted({f"{column.table}: {column.purpose}" for column in columns}),
        "legal_basis": sorted({column.basis for column in columns}),
        "retention": sorted({column.retention for column in columns}),
    }
