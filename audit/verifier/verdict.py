"""What the verifier found, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from audit.verifier.quorum import Cosigned


class ReceiptVerdict(StrEnum):
    """What a receipt's entry is (RULES 21)."""

    PROVEN = "proven"
    NOT_DUE = "not_due"
    OVERDUE_MISSING = "overdue_missing"


@dataclass(frozen=True, slots=True)
class ReceiptFinding:
    """The verdict on one receipt, and where its entry stands."""

    entry_id: str
    verdict: ReceiptVerdict
    seq: int | None
    is_signature_checked: bool

    def public(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "entry_id": self.entry_id,
            "verdict": self.verdict.value,
            "seq": self.seq,
            "signature_checked": self.is_signature_checked,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a bundle verifies; `first_bad_seq` is the first place where it does not, if there is one."""

    ok: bool
    checks: tuple[str, ...]
    first_bad_seq: int | None = None
    problem: str | None = None
    origin: str | None = None
    size: int | None = None
    root: str | None = None
    receipts: tuple[ReceiptFinding, ...] = ()
    remarks: tuple[str, ...] = ()
    signed_by: str | None = None
    """The key that signed the checkpoint, if it speaks for the log."""
    witnessed: Cosigned | None = None

    def public(self) -> dict[str, object]:
        """The JSON form, what `--json` prints."""
        return {
            "ok": self.ok,
            "checks": list(self.checks),
            "first_bad_seq": self.first_bad_seq,
            "problem": self.problem,
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "signed_by": self.signed_by,
            "witnessed": self.witnessed.public() if self.witnessed else None,
            "receipts": [finding.public() for finding in self.receipts],
            "remarks": list(self.remarks),
        }

    def text(self) -> str:
        """The lines for people; what a terminal would take for a command is left out."""
        return "\n".join(_printable(line) for line in self._lines())

    def _lines(self) -> list[str]:
        lines = [f"checked: {check}" for check in self.checks]
        lines += [f"receipt {finding.entry_id}: {_place(finding)}" for finding in self.receipts]
        lines += [f"remark: {remark}" for remark in self.remarks]
        if self.ok:
            return [*lines, f"VERIFIED: {self.size} entries of {self.origin}"]
        where = "" if self.first_bad_seq is None else f" at seq {self.first_bad_seq}"
        return [*lines, f"NOT VERIFIED{where}: {self.problem}"]


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _place(finding: ReceiptFinding) -> str:
    where = "" if finding.seq is None else f", seq {finding.seq}"
    unchecked = "" if finding.is_signature_checked else " (its signature was not checked)"
    return f"{finding.verdict}{where}{unchecked}"
