"""How far an erasure is, as its request's row keeps it: what it found, what it erased and told, and when.

Everything that the receipt says of the time before is written down before the first place is erased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from compliance.erasures.receipt import ModelLine
from compliance.parts import Disclosure


@dataclass(frozen=True, slots=True)
class Progress:
    """The column `before` of a request for erasure.

    Args:
        commitment: what stands in the receipt for the subject.
        held: the places that legal holds keep.
        found: how much each place held; None until that was looked at.
        models: versions that came after the person's first contribution.
        recipients: who got copies.
        erased: when each place was seen empty.
        news_id: the entry that told the recipients; None where there was nobody to tell, or not yet.
        keys_at: when the keys were destroyed, and the news was written; None until then.
    """

    commitment: str | None = None
    held: tuple[str, ...] = ()
    found: Mapping[str, int] | None = None
    models: tuple[ModelLine, ...] = ()
    recipients: tuple[str, ...] = ()
    erased: Mapping[str, datetime] | None = None
    news_id: str | None = None
    keys_at: datetime | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Progress:
        """What the column says; nothing has happened where it is empty."""
        told = stored or {}
        keys_at = told.get("keys_at")
        return cls(
            commitment=told.get("commitment"),
            held=tuple(told.get("held", ())),
            found=told.get("found"),
            models=tuple(ModelLine(**line) for line in told.get("models", ())),
            recipients=tuple(told.get("recipients", ())),
            erased={name: _time(at) for name, at in told.get("erased", {}).items()},
            news_id=told.get("news_id"),
            keys_at=_time(keys_at) if keys_at else None,
        )

    def stored(self) -> dict[str, Any]:
        """The column."""
        erased = {name: _text(at) for name, at in (self.erased or {}).items()}
        keys_at = _text(self.keys_at) if self.keys_at else None
        return {**asdict(self), "erased": erased, "keys_at": keys_at}

    def looked(self, found: Mapping[str, int], disclosure: Disclosure) -> Progress:
        """With what was there before anything was erased."""
        return replace(self, found=found, models=tuple(disclosure.models), recipients=tuple(disclosure.sinks))

    def emptied(self, names: Sequence[str], at: datetime) -> Progress:
        """With the time at which these places were seen empty, where they were not before."""
        return replace(self, erased={**dict.fromkeys(names, at), **(self.erased or {})})


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
