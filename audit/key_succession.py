"""When the log's key changes: the old key announces the new one in the log, so that who trusts the old can go on.

The announcement is the entry `keys.rotated`. Its detail `statement` is a signed note (C2SP signed-note) of both keys:
whoever can merely write entries cannot announce a key. `audit.rotation_notes` finds the checkpoints to publish.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from audit.checkpoint import NoteSigner, NoteVerifier
from audit.entry import Entry
from audit.errors import AuditError
from audit.events import EventType

USE = "log"
_TITLE = "the log's key changes"  # no number: no checkpoint reads so


@dataclass(frozen=True, slots=True)
class Announcement:
    """One key follows another: both sign until then, afterwards the new one alone."""

    old_vkey: str
    new_vkey: str
    both_until: datetime


def statement(both: NoteSigner, both_until: datetime) -> str:
    """What both keys sign: the new key's name, and until when the old one signs beside it.

    Args:
        both: signs with the new key and the old one, in this order.
        both_until: the end of the time in which both sign.
    """
    new_vkey, old_vkey = both.vkeys
    return both.sign_text(_text(both.origin, Announcement(old_vkey, new_vkey, both_until)))


def announced(entry: Entry) -> Announcement | None:
    """The change of the log's key that an entry announces; None if it announces none, or not under both keys."""
    if entry.event_type != EventType.KEYS_ROTATED or entry.details.get("use") != USE:
        return None
    names = ("old_vkey", "new_vkey", "both_until", "statement")
    found = [told for name in names if isinstance(told := entry.details.get(name), str)]
    if len(found) != len(names):
        return None
    old_vkey, new_vkey, until, note = found
    try:
        change = Announcement(old_vkey, new_vkey, _time(until))
        signers = NoteVerifier.parse(old_vkey), NoteVerifier.parse(new_vkey)
        said = {signer.verify(note) for signer in signers}
    except (AuditError, ValueError):
        return None
    is_one_log = signers[0].name == signers[1].name
    return change if is_one_log and said == {_text(signers[0].name, change)} else None


def written_time(at: datetime) -> str:
    """A time as announcements write it: RFC 3339, UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if written_time(at) != text:
        raise ValueError(text)
    return at


def _text(origin: str, change: Announcement) -> str:
    lines = (origin, _TITLE, change.old_vkey, change.new_vkey, written_time(change.both_until))
    return "".join(f"{line}\n" for line in lines)
