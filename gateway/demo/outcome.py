"""What a run of the demo found out, as the report and `--json` tell it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.demo.api import Json
from gateway.demo.officer import Field
from gateway.demo.plan import Plan


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """One round: who took part, how good its model is, and what it has cost so far."""

    number: int
    clients: int
    accuracy: float
    loss: float
    epsilon_spent: float | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class Training:
    """All rounds, and what the gateway itself claims about the last model."""

    model_id: str
    version: str
    rounds: tuple[RoundOutcome, ...]
    claim: Json

    @property
    def final(self) -> RoundOutcome:
        """The last round."""
        return self.rounds[-1]


@dataclass(frozen=True, slots=True)
class Audit:
    """The log as the auditor found it, and the forgery that was tried on a copy."""

    bundle: Path
    entries: int
    is_verified: bool
    receipts: int
    checkpoint: str
    vkey: str
    forged: Path
    forged_seq: int
    forged_event: str
    found_at_seq: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """One silo's export and erasure, and what is left of it in the log."""

    silo: str
    client_id: str
    package: Path
    files: tuple[Json, ...]
    before: tuple[Field, ...]
    after: tuple[Field, ...]
    receipt: Path
    receipt_payload: Json
    token_status: int
    bundle: Path
    entries: int
    is_verified: bool

    @property
    def readable_before(self) -> int:
        """How many of the silo's fields in the log could be read."""
        return sum(field.is_readable for field in self.before)

    @property
    def readable_after(self) -> int:
        """How many still can."""
        return sum(field.is_readable for field in self.after)


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """The whole run."""

    plan: Plan
    silos: tuple[tuple[str, int], ...]
    training: Training
    audit: Audit
    erasure: Erasure
    report: Path
    duration_s: float

    def summary(self) -> dict[str, Any]:
        """What `fl-gateway demo --json` prints."""
        final = self.training.final
        return {
            "final_accuracy": round(final.accuracy, 6),
            "epsilon": final.epsilon_spent,
            "delta": self.plan.delta,
            "unit": self.plan.unit.value,
            "rounds": len(self.training.rounds),
            "clients": self.plan.clients,
            "entries": self.audit.entries,
            "verified": self.audit.is_verified,
            "tamper_found_at_seq": self.audit.found_at_seq,
            "erased_client": self.erasure.client_id,
            "verified_after_erasure": self.erasure.is_verified,
            "bundle": str(self.audit.bundle),
            "report": str(self.report),
        }
