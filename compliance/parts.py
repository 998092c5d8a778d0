"""What the privacy desk works with; the gateway puts it together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import Connection, Engine

from compliance.clock import Clock
from compliance.erasures.receipt import Method, ModelLine
from compliance.journal import Journal
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from compliance.places import ExportPart, Place
from compliance.requests.cases import Case, RequestType
from compliance.requests.deadlines import Calendar

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

    models: Sequence[ModelLine] = ()
    sinks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeskAlarm:
    """Something of the desk's that a person must look at; it names no one but the case.

    Args:
        case_id: the request, or the hold, that it is about.
        alarm: which alarm, as a word that stays the same (`days_left_10`, `no_owner`, `review_overdue`).
        due_at: the end of the term it warns of.
    """

    case_id: str
    alarm: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class TakenPart:
    """A round that a silo took part in, and the model version that came of it, if any did."""

    round_number: int
    submitted_at: datetime
    model_version: str | None


class Carrier(Protocol):
    """Carries out what only the gateway can: a restriction, an objection, a rectification."""

    def prepare(self, case: Case, /) -> Callable[[Connection], None]:
        """What to write in the transaction that completes the request; sealing and reading are done before it.

        Raises:
            NotNow: it cannot be done yet; the desk tries again.
        """


@dataclass(frozen=True, slots=True)
class Package:
    """Where an export package lies, and its data key."""

    blob_id: str
    key: bytes = field(repr=False)
    size_bytes: int


class Telling(StrEnum):
    """How far a recipient is with the news of an erasure."""

    WAITING = "waiting"
    TOLD = "told"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Fading:
    """A place whose traces bear nobody's name, so that they are not counted: they end by themselves, or with the keys.

    Args:
        name: what the receipt calls it.
        method: how they end.
    """

    name: str
    method: Method


@dataclass(frozen=True, slots=True)
class ReceiptTerms:
    """What every erasure receipt of this gateway says alike.

    Args:
        origin: the log in which its entry is.
        max_delay_s: within this time.
        data_map: hash of the data map, which tells what the places are.
        backup_days: for so long, a backup may hold what was encrypted under the destroyed keys.
        kept_days: accountability is kept for so long at least.
    """

    origin: str = ""
    max_delay_s: int = 86_400
    data_map: str = ""
    backup_days: int = 35
    kept_days: int = 730


def _nobody_listens(_entry_id: str) -> Mapping[str, Telling]:
    return {}


def _nothing_to_settle(_subject: str) -> None:
    """Nothing here uses what a person sent."""


def _nothing_disclosed(_subject: str) -> Disclosure:
    return Disclosure()


def _tell_nobody(_conn: Connection, _alarm: DeskAlarm) -> None:
    """Without targets for notices the desk's alarms stay in the log and on the desk."""


def _took_no_part(_subject: str) -> Sequence[TakenPart]:
    return ()


def _no_notice(_subject: str) -> Mapping[str, Any]:
    return {}


def _no_evidence(_subject: str) -> Iterable[ExportPart]:
    return ()


@dataclass(frozen=True, slots=True)
class DeskParts:
    """The desk's means.

    Args:
        journal: writes entries for the person who acts now.
        worker_journal: writes entries for the gateway itself; its entries carry nobody's address.
        places: every store of personal data but the log, which the desk knows itself.
        settle: keeps models from learning more of a subject whose erasure has begun; NotNow while one is at it.
        disclose: what of a subject an erasure cannot take back; the receipt lists it.
        notice: the facts of Art. 15(1) for a subject (controller, purposes, recipients, rights).
        evidence: what a package tells of a subject beside the places, such as its privacy loss in each model.
        told: how far each sink is with the entry of that id.
        leads: places whose rows lead to those of others: what must stay there keeps them, too.
        fading: places that the receipt tells of, and that nobody can count.
        terms: what every erasure receipt says alike.
        notify: files a notice of an alarm, in the transaction that raises it.
        participation: the rounds that a silo took part in, for the statement of Art. 11.
        carriers: who carries out the kinds of requests that change something in the gateway's own work.
        calendar: the days that the clock of requests counts.
        erasure_approvals: how many people must approve an erasure.
    """

    engine: Engine
    keystore: KeyStore
    sealer: SubjectSealer
    journal: Journal
    worker_journal: Journal
    clock: Clock
    blobs: Blobs
    places: Sequence[Place] = ()
    settle: Callable[[str], None] = field(default=_nothing_to_settle)
    disclose: Callable[[str], Disclosure] = field(default=_nothing_disclosed)
    notice: Callable[[str], Mapping[str, Any]] = field(default=_no_notice)
    evidence: Callable[[str], Iterable[ExportPart]] = field(default=_no_evidence)
    told: Callable[[str], Mapping[str, Telling]] = field(default=_nobody_listens)
    leads: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fading: Sequence[Fading] = ()
    terms: ReceiptTerms = field(default_factory=ReceiptTerms)
    notify: Callable[[Connection, DeskAlarm], None] = field(default=_tell_nobody)
    participation: Callable[[str], Sequence[TakenPart]] = field(default=_took_no_part)
    carriers: Mapping[RequestType, Carrier] = field(default_factory=dict)
    calendar: Calendar = field(default_factory=Calendar)
    erasure_approvals: int = 1
    package_lifetime: timedelta = PACKAGE_LIFETIME

    def now(self) -> datetime:
        """The time on the desk's clock."""
        return self.clock()
