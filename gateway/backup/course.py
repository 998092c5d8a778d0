"""How the log goes on after a restore: whole, under its own origin, or as a new log that succeeds it (RULES 20, 23).

It may go on only if everything that was ever signed is there again: the state remembers the last signed tree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from audit.checkpoint import SignedTree
from audit.merkle import EMPTY_ROOT
from gateway.backup.beyond import Beyond
from gateway.backup.errors import LogIncomplete, Mismatch
from gateway.backup.reading import StoredLog
from gateway.storage.state import FileState


@dataclass(frozen=True, slots=True)
class Course:
    """What becomes of the log.

    `size` and `root` are those of the log that goes on; `old` is the tree at which the log before this one ended,
    None if the log goes on.
    """

    origin: str
    size: int
    root: bytes
    old: SignedTree | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the log is the same as before."""
        return self.old is None


def known_size(state: FileState) -> int:
    """The size at which a log that goes on must have the root that was signed."""
    last = state.last_checkpoint()
    return last.size if last else 0


def is_blank(state: FileState) -> bool:
    """Whether the state remembers no log: it is new, or was lost."""
    return state.last_checkpoint() is None and state.predecessor() is None


def plot(
    state: FileState, origin: str, log: StoredLog, beyond: Beyond, *, new_origin: bool, without_state: bool
) -> Course:
    """Decide how the log goes on.

    Args:
        state: what is never restored.
        origin: the log's origin in force.
        log: the log in the backup.
        beyond: the bundle, if there is one.
        new_origin: the operator lets this log end where entries are missing.
        without_state: the operator says that the state was lost.

    Raises:
        Mismatch: backup, bundle and state are not of one log.
        LogIncomplete: signed entries are missing, and the operator did not let the log end.
    """
    _insist_one_log(log, beyond)
    last, before = state.last_checkpoint(), state.predecessor()
    if is_blank(state) and (log.origin != origin or log.signed or beyond.signed):
        return _without_state(origin, log, beyond, allowed=without_state)
    if last is None and before is not None:  # a restore was killed after the old log had ended
        _insist_ancestor(state, log, origin)
        return Course(origin, 1, b"", before)
    if last is None:
        return _whole(origin, log, beyond)
    if log.origin == origin and _covers(last, log, beyond):
        return _whole(origin, log, beyond)
    if log.origin != origin:
        _insist_ancestor(state, log, origin)
    if not new_origin:
        have = max(log.size, beyond.size)
        raise LogIncomplete(
            f"The state remembers a signed log of {last.size} entries, and there are {have}. Give the missing ones "
            "with --log BUNDLE, a newer export of the log; or end that log for ever with --new-origin: another "
            "one begins, and its first entry says so",
            signed_size=last.size,
        )
    return Course(_fresh(origin), 1, b"", last)


def _covers(last: SignedTree, log: StoredLog, beyond: Beyond) -> bool:
    """Whether the signed tree is there again; another one of the same size is a forgery or another gateway's."""
    if max(log.size, beyond.size) < last.size:
        return False
    if (log.roots if log.size >= last.size else beyond.roots).get(last.size) != last.root:
        raise Mismatch(
            f"The first {last.size} entries are not those that were signed: the backup or the bundle is of another "
            "gateway, or was changed"
        )
    return True


def _whole(origin: str, log: StoredLog, beyond: Beyond) -> Course:
    if beyond.signed and beyond.size >= log.size:
        return Course(origin, beyond.size, beyond.signed.root)
    return Course(origin, log.size, log.roots[log.size])


def _without_state(origin: str, log: StoredLog, beyond: Beyond, *, allowed: bool) -> Course:
    if not allowed:
        raise Mismatch(
            "The state remembers nothing of this gateway (FLG_STATE_URL): without it nobody knows who was erased and "
            "what was spent since the backup. Name the right state; or, if it is lost for ever, say --without-state"
        )
    ended = beyond.signed if beyond.signed and beyond.size >= log.size else log.signed
    old = ended or SignedTree(log.origin, 0, EMPTY_ROOT)
    # Also the first name of this log's family was once signed, by the same key.
    is_kin = _family(origin) == _family(log.origin)
    return Course(_fresh(origin) if is_kin else origin, 1, b"", old)


def _insist_one_log(log: StoredLog, beyond: Beyond) -> None:
    """The shorter of backup and bundle is the beginning of the longer."""
    if beyond.signed is None:
        return
    if beyond.size >= log.size:
        same = beyond.roots.get(log.size, EMPTY_ROOT) == log.roots[log.size]
    else:
        same = log.roots.get(beyond.size) == beyond.signed.root
    if not same:
        raise Mismatch("The bundle's entries are not those of the backup: one of them is not of this log")


def _insist_ancestor(state: FileState, log: StoredLog, origin: str) -> None:
    known = {origin, *(tree.origin for tree in state.predecessors())}
    if log.origin not in known:
        raise Mismatch(
            f"The backup is of the log {log.origin}, the state of {origin}: they are of two gateways. Name the state "
            "of the gateway that made the backup with FLG_STATE_URL"
        )


def _fresh(origin: str) -> str:
    """A name that no log had: the old one's, with something random behind it."""
    return f"{_family(origin)}/restored-{os.urandom(4).hex()}"


def _family(origin: str) -> str:
    """The name of the first of the logs that succeeded one another."""
    return origin.split("/restored-")[0]
