"""Checks offline that the ledger of a privacy report is what the log says: each line by the proofs that it carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from audit.checkpoint import NoteVerifier
from audit.errors import AuditError
from audit.events import EventType
from audit.proof import check_entry_proof, parse_proof

_FIGURES = ("noise_multiplier", "sampling_rate")


class NotProven(ValueError):
    """A report says of its ledger what the log does not prove."""


def verify_ledger(report: Mapping[str, Any], log: NoteVerifier) -> int:
    """Check every line of a report whose signature was verified before; says how many entries prove them.

    Raises:
        NotProven: a line has no proof, a proof does not hold, or the log says something else.
    """
    try:
        return sum(_proven(report["model_id"], line, log) for line in report["ledger"])
    except (KeyError, TypeError, AttributeError) as error:
        raise NotProven("the report's ledger is malformed") from error


def _proven(model_id: str, line: Mapping[str, Any], log: NoteVerifier) -> int:
    number, spent = line["round_number"], None
    for told in line["entries"]:
        event_type, details = _entry(number, told, log)
        if (details["model_id"], details["round_number"]) != (model_id, number):
            raise NotProven(f"round {number}: the entry {told['seq']} is about another round or model")
        if event_type == EventType.PRIVACY_SPENT:
            spent = details
    if spent is None:
        raise NotProven(f"round {number}: no entry of its spend; ask for the report again in a moment")
    if line["epsilon_in_log"] != spent["epsilon_spent"] or _figures(line["mechanism"]) != _figures(spent):
        raise NotProven(f"round {number}: the log says other figures")
    return len(line["entries"])


def _entry(number: int, told: Mapping[str, Any], log: NoteVerifier) -> tuple[str, dict[str, Any]]:
    if told["proof"] is None:
        raise NotProven(f"round {number}: an entry has no proof yet; ask for the report again in a moment")
    try:
        entry = check_entry_proof(parse_proof(told["proof"]), log)
    except AuditError as error:
        raise NotProven(f"round {number}: {error}") from error
    if (entry.seq, entry.event_type) != (told["seq"], told["event_type"]):
        raise NotProven(f"round {number}: a proof carries another entry than the one that is named")
    details: dict[str, Any] = json.loads(entry.canonical)["details"]
    return str(entry.event_type), details


def _figures(of: Mapping[str, Any]) -> list[float]:
    try:
        return [float(of[name]) for name in _FIGURES]
    except ValueError as error:
        raise NotProven("a figure of the ledger is no number") from error
