"""What becomes of each row on its way back: who was erased is left out, what was spent stays spent, and a round that
was taking updates has failed, since nobody knows which ones it took after the backup (RULES 18, 20; promises 3 to 5).

Nothing of an erased person is written first and removed later: their rows and blobs never come in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Table

from audit.tables import (
    audit_checkpoints,
    audit_cosignatures,
    audit_log,
    audit_pending,
    audit_subjects,
    siem_cursors,
    siem_dead_letters,
)
from compliance.packages.handing_out import NO_PACKAGE
from compliance.subjects import SubjectState
from compliance.tables import package_links, privacy_requests, subjects
from gateway.auth.people.person import PersonStatus
from gateway.auth.roster import ClientStatus
from gateway.auth.tokens import TokenKind
from gateway.backup.beyond import Beyond, LateRound
from gateway.backup.blobs import portable_name
from gateway.backup.course import Course
from gateway.backup.reading import Findings
from gateway.backup.rows import Row
from gateway.places import erased_tables
from gateway.rounds.ledger import BARE, LineStatus
from gateway.rounds.record import RoundStatus, UpdateStatus
from gateway.storage.state import Spend
from gateway.tables import client_updates, clients, model_versions, privacy_ledger, rounds, tokens, users

RESTORED, AFTER_SPEND = "RESTORED", "RESTORED_AFTER_SPEND"
_OF_THE_LOG = (
    audit_log,
    audit_subjects,
    audit_checkpoints,
    audit_cosignatures,
    siem_cursors,
    siem_dead_letters,
)


@dataclass(frozen=True, slots=True)
class Failing:
    """A round that the restore ends, and why; `lost` counts acknowledged updates that the log knows of."""

    round_number: int
    reason: str
    spend_stays: bool
    lost: int


@dataclass(slots=True)
class Sieve:
    """Decides on each row of a backup."""

    found: Findings
    beyond: Beyond
    course: Course
    spends: Mapping[str, Spend]
    now: datetime
    made_at: str
    failing: dict[int, Failing] = field(default_factory=dict)
    _lines: dict[str, LineStatus] = field(default_factory=dict)
    _rules: dict[Table, Callable[[Row], Row | None]] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        found: Findings,
        beyond: Beyond,
        course: Course,
        spends: Collection[Spend],
        now: datetime,
        *,
        made_at: str,
        may_have_drawn: Callable[[str], bool],
    ) -> Sieve:
        """The sieve for one restore.

        Args:
            found: what the backup holds.
            beyond: what the log tells of the time since.
            course: how the log goes on.
            spends: the state's.
            now: when the restore takes place.
            made_at: when the backup was made.
            may_have_drawn: tells of a ledger line whether its seed may have been used.
        """
        noised = {spend.ledger_id: spend for spend in spends if spend.mechanism != BARE}
        made = cls(found, beyond, course, noised, now, made_at)
        made._lines = dict.fromkeys(noised, LineStatus.SPENT)
        for row in found.open_rounds:
            if reason := made._reason(row):
                made._fail(row, reason, may_have_drawn)
        made._rules = {
            subjects: made._subject,
            clients: made._client,
            users: made._user,
            tokens: made._token,
            privacy_requests: made._request,
            package_links: lambda _row: None,  # one that was used since would open again
            rounds: made._round,
            model_versions: made._version,
            client_updates: made._update,
            privacy_ledger: made._line,
            audit_pending: lambda row: None if row["id"] in beyond.sequenced else row,
        }
        return made

    def pass_through(self, table: Table, row: Row) -> Row | None:
        """The row as it comes back; None if it does not."""
        if table in _OF_THE_LOG and not self.course.goes_on:
            return None
        if table.name in erased_tables() and self._is_of_the_erased(row):
            return None
        rule = self._rules.get(table)
        return rule(row) if rule else row

    def late_rounds(self) -> Iterator[LateRound]:
        """Rounds that only the log knows, of models that the backup has: their numbers are taken."""
        for number, late in sorted(self.beyond.late_rounds.items()):
            if late.model_id in self.found.models and number not in self.found.round_numbers:
                yield late

    def late_spends(self) -> Iterator[Spend]:
        """Spends since the backup, of models that it has."""
        for spend in self.spends.values():
            if spend.ledger_id not in self.found.lines and spend.model_id in self.found.models:
                yield spend

    def failures(self) -> list[Failing]:
        """Every round of which an entry must say that it failed."""
        drawn = {spend.round_number for spend in self.spends.values()}
        late = [
            Failing(number, RESTORED, number in drawn, self.beyond.lost_updates[number])
            for number in sorted(self.beyond.late_rounds)
            if number not in self.found.round_numbers
        ]
        return [*self.failing.values(), *late]

    def _reason(self, row: Row) -> str | None:
        frozen = row["status"] == RoundStatus.AGGREGATING.value
        if row["ledger_id"] in self.spends and not frozen:
            return AFTER_SPEND
        # A frozen round took its last update before the backup: it goes on, unless it went on already.
        if not frozen or row["round_number"] in self.beyond.ended_rounds:
            return RESTORED
        return None

    def _fail(self, row: Row, reason: str, may_have_drawn: Callable[[str], bool]) -> None:
        line = row["ledger_id"]
        frozen = row["status"] == RoundStatus.AGGREGATING.value
        stays = bool(line) and (frozen or line in self.spends or may_have_drawn(line))
        number = row["round_number"]
        self.failing[row["round_id"]] = Failing(number, reason, stays, self.beyond.lost_updates[number])
        if line:
            self._lines[line] = LineStatus.SPENT if stays else LineStatus.RELEASED

    def _subject(self, row: Row) -> Row:
        gone = row["subject_id"] in self.found.gone_subjects
        return row | {"state": SubjectState.ERASED.value} if gone else row

    def _client(self, row: Row) -> Row:
        """As it stands in the log; with a proof that was changed since, it waits for the new one."""
        status = self.beyond.moved_clients.get(row["client_id"], row["status"])
        if row["client_id"] in self.beyond.outdated and status == ClientStatus.ACTIVE:
            status = ClientStatus.SUSPENDED.value
        return row | {"status": status}

    def _user(self, row: Row) -> Row:
        """As it stands in the log; with a proof or role that was changed since, the person waits for the operator."""
        status = self.beyond.moved_users.get(row["user_id"], row["status"])
        if row["user_id"] in self.beyond.outdated_users and status == PersonStatus.ACTIVE:
            status = PersonStatus.SUSPENDED.value
        return row | {"status": status}

    def _is_of_the_erased(self, row: Row) -> bool:
        return row.get("client_id") in self.found.gone_clients or row.get("user_id") in self.found.gone_users

    def _token(self, row: Row) -> Row | None:
        """Access tokens last minutes and are not missed; what was revoked or exchanged since must not come back."""
        if row["user_id"] in {*self.beyond.moved_users, *self.beyond.outdated_users}:
            return None
        if row["kind"] != TokenKind.REGISTRATION.value or row["client_id"] in self.beyond.shut_out:
            return None
        return row

    def _request(self, row: Row) -> Row:
        return row | NO_PACKAGE if row["subject_id"] in self.found.gone_subjects else row

    def _round(self, row: Row) -> Row:
        failing = self.failing.get(row["round_id"])
        if failing is None:
            return row
        ended: dict[str, Any] = {
            "status": RoundStatus.FAILED.value,
            "completed_at": self.now,
            "paused_at": None,
        }
        return row | ended | {"failure": failing.reason}

    def _version(self, row: Row) -> Row:
        name = portable_name(row["model_blob_url"].removeprefix("blob:"), self.made_at)
        return row | {"model_blob_url": f"blob:{name}"}

    def _update(self, row: Row) -> Row:
        failed = row["round_id"] in self.failing
        return row | {"status": UpdateStatus.DROPPED.value} if failed else row

    def _line(self, row: Row) -> Row:
        status = self._lines.get(row["ledger_id"])
        if status is None or row["status"] == status.value:
            return row
        return row | {"status": status.value, "updated_at": self.now}
