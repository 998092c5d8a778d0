"""The privacy report of a model version, as evidence: mechanism, parameters, ledger lines with proofs, one signature.

Epsilon is what the accountant says of the ledger now; what the log said of it when it was spent stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compliance.evidence.pages import page
from compliance.evidence.release_report import ReleaseFacts, release_report, release_text
from compliance.jws import sign_compact, verify_compact
from compliance.keyring.keys import SigningKey

TYPE = "fl-report+jwt"
_ACCOUNTANT = (
    "Exact for releases in which all clients take part (Gaussian, Balle and Wang 2018); dp_accounting's privacy loss "
    "distributions where the server sampled. Stated distances of the noise are paid for out of delta."
)


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry of the log; `proof` is a C2SP tlog-proof that carries it, None while no checkpoint covers it."""

    event_type: str
    seq: int
    proof: str | None


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """One release on the lineage's ledger, with what the log says of it.

    Args:
        round_number: the round that made it.
        status: reserved or spent.
        mechanism: as the ledger keeps it: decimal strings.
        epsilon_in_log: the lineage's epsilon after it, as the log said then; None while that entry has no place.
        entries: its entries in the log, with their proofs.
    """

    round_number: int
    status: str
    mechanism: Mapping[str, Any]
    epsilon_in_log: str | None
    entries: Sequence[ProvenEntry]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a report is made of.

    Args:
        facts: what may be said of the version.
        parameters: the round's policy, and what the aggregation proved of itself.
        ledger: every release that the version's claim counts, in order.
        origin: the log's name.
        vkey: the log's public key, to be compared with one from elsewhere; None before its first signature.
        made_at: the time of the report.
    """

    facts: ReleaseFacts
    parameters: Mapping[str, Any]
    ledger: Sequence[LedgerFacts]
    origin: str
    vkey: str | None
    made_at: datetime


def model_report(evidence: Evidence) -> dict[str, Any]:
    """The report, without its signature."""
    claim = release_report(evidence.facts)
    in_log = evidence.ledger[-1].epsilon_in_log if evidence.ledger else None
    return {
        **claim,
        "made_at": evidence.made_at.isoformat().replace("+00:00", "Z"),
        "parameters": dict(evidence.parameters),
        "ledger": [_line(one) for one in evidence.ledger],
        "accountant": {
            "method": _ACCOUNTANT,
            "epsilon": claim["epsilon"],
            "epsilon_in_log": in_log,
            "agrees_with_log": None
            if in_log is None or claim["epsilon"] is None
            else in_log == claim["epsilon"],
        },
        "log": {"origin": evidence.origin, "vkey": evidence.vkey},
    }


def signed_report(report: Mapping[str, Any], key: SigningKey) -> dict[str, Any]:
    """The report with its signature: a compact JWS whose payload is the report itself."""
    return {**report, "signature": sign_compact(TYPE, report, key)}


def verify_report(text: str, public_keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The report of a compact JWS; raises `compliance.jws.BadJws` if none of the keys signed it."""
    return verify_compact(text, TYPE, public_keys)


def report_page(report: Mapping[str, Any]) -> str:
    """The signed report as a page for people: no script, nothing from elsewhere."""
    return page("report.html", report=report)


def report_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    extra = {"made_at", "parameters", "ledger", "accountant", "log", "signature"}
    claim = {name: value for name, value in report.items() if name not in extra}
    lines = [_told(line) for line in report["ledger"]] or ["- none"]
    return "\n".join([release_text(claim), "## Ledger\n", *lines, ""])


def _line(line: LedgerFacts) -> dict[str, Any]:
    return {
        "round_number": line.round_number,
        "status": line.status,
        "mechanism": dict(line.mechanism),
        "epsilon_in_log": line.epsilon_in_log,
        "entries": [
            {"event_type": entry.event_type, "seq": entry.seq, "proof": entry.proof} for entry in line.entries
        ],
    }


def _told(line: Mapping[str, Any]) -> str:
    mechanism = line["mechanism"]
    places = ", ".join(f"{entry['event_type']} at {entry['seq']}" for entry in line["entries"])
    return (
        f"- round {line['round_number']}: {line['status']}, noise multiplier {mechanism['noise_multiplier']}, "
        f"sampling rate {mechanism['sampling_rate']}; in the log: {places or 'not yet'}"
    )
