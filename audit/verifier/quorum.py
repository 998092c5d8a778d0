"""Witnesses: how many of those whom the auditor trusts cosigned a tree of this log (C2SP tlog-cosignature)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from audit.checkpoint import SignedTree
from audit.cosignature import CosignatureVerifier
from audit.errors import AuditError, BadKey, Refuted


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The largest tree that enough witnesses cosigned, and which of them when."""

    size: int
    times: tuple[tuple[str, datetime], ...]

    def public(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "size": self.size,
            "cosignatures": [{"witness": name, "time": time.isoformat()} for name, time in self.times],
        }


@dataclass(frozen=True, slots=True)
class Quorum:
    """The witnesses that an auditor trusts, and how many of them are enough."""

    witnesses: tuple[CosignatureVerifier, ...]
    needed: int

    @classmethod
    def of(cls, vkeys: Sequence[str], needed: int | None) -> Quorum | None:
        """Take the witnesses' keys; all of them are needed if no number is given. None without any.

        Raises:
            BadKey: a key is malformed, one stands twice (also under two names), or the number cannot be reached.
        """
        witnesses = tuple(CosignatureVerifier.parse(vkey) for vkey in vkeys)
        if len({witness.public for witness in witnesses}) != len(witnesses):
            raise BadKey("one witness's key is given twice: it would count as two")
        if needed is None:
            needed = len(witnesses)
        elif not 1 <= needed <= len(witnesses):
            raise BadKey(f"a quorum of {needed} cannot be had from {len(witnesses)} witnesses")
        return cls(witnesses, needed) if witnesses else None

    def judge(self, candidates: Sequence[tuple[str, str, SignedTree]]) -> Cosigned:
        """The first of some checkpoints (what it is, its note, its tree) that enough witnesses cosigned.

        Raises:
            Refuted: none is, or a cosignature is not its witness's own.
        """
        told = []
        for what, note, tree in candidates:
            times = self._times(what, note)
            if len(times) >= self.needed:
                return Cosigned(tree.size, times)
            told.append(f"{what} of {tree.size} entries is cosigned by {len(times)}")
        raise Refuted(
            f"{self.needed} of the {len(self.witnesses)} given witnesses are needed, but {', '.join(told)}: they "
            "were not asked, did not answer, or were shown another log"
        )

    def _times(self, what: str, note: str) -> tuple[tuple[str, datetime], ...]:
        try:
            found = [(witness.key_name, witness.find(note)) for witness in self.witnesses]
        except AuditError as error:
            raise Refuted(f"{what}: {error}") from None
        return tuple((name, time) for name, time in found if time is not None)

    def findings(self, cosigned: Cosigned) -> list[str]:
        """What was found about witnesses."""
        names = ", ".join(f"{name} at {time:%Y-%m-%d %H:%M:%S} UTC" for name, time in cosigned.times)
        return [f"the first {cosigned.size} entries are cosigned by {len(cosigned.times)} witnesses: {names}"]
