"""What the privacy desk works with; the gateway puts it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Engine

from compliance.clock import Clock
from compliance.journal import Journal
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from compliance.places import Place

PACKAGE_LIFETIME = timedelta(days=7)


class Incoming(Protocol):
    """A blob being written: nothing of it is left after `discard`."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""

    def keep(self) -> None:
        """Make the blob durable, and give it its name."""

    def discard(self) -> None:
        """Leave nothing behind; harmless after `keep`."""


class Blobs(Protocol):
    """Where export packages lie, encrypted."""

    def incoming(self, blob_id: str, key: bytes | None = None) -> Incoming:
        """Start a blob that is encrypted under its own data key."""

    def delete(self, blob_id: str) -> bool:
        """Remove a blob; says whether it was there."""


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What of a person is beyond an erasure: released models, sinks that got pseudonymised copies."""

    models: Sequence[str] = ()
    sinks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """Where an export package lies, and its data key."""

    blob_id: str
    key: bytes = field(repr=False)
    size_bytes: int


def _nothing_disclosed(_subject: str) -> Disclosure:
    return Disclosure()


def _no_notice(_subject: str) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class DeskParts:
    """The desk's means.

    Args:
        journal: writes entries for the person who acts now.
        worker_journal: writes entries for the gateway itself; its entries carry nobody's address.
        places: every store of personal data but the log, which the desk knows itself.
        disclose: what of a subject an erasure cannot take back; the receipt lists it.
        notice: the facts of Art. 15(1) for a subject (controller, purposes, recipients, rights).
    """

    engine: Engine
    keystore: KeyStore
    sealer: SubjectSealer
    journal: Journal
    worker_journal: Journal
    clock: Clock
    blobs: Blobs
    places: Sequence[Place] = ()
    disclose: Callable[[str], Disclosure] = field(default=_nothing_disclosed)
    notice: Callable[[str], Mapping[str, Any]] = field(default=_no_notice)
    package_lifetime: timedelta = PACKAGE_LIFETIME

    def now(self) -> datetime:
        """The time on the desk's clock."""
        return self.clock()
