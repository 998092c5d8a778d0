"""What a newer log says beyond a backup: entries to be replayed, and effects that the backup does not hold.

The log is a record, not a redo log: it tells that an update was accepted, and not the update. So what a restore can
do again (a revocation) it does; what it cannot, it says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from audit.canonical import JsonValue
from audit.checkpoint import NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.entry import Entry, Sealed, parse_entry
from audit.errors import AuditError, BadSignature, KeyDestroyed
from audit.events import EventType
from audit.merkle import CompactRange
from audit.verifier.chain import ChainBroken, walk
from audit.verifier.opening import open_bundle
from compliance.errors import CannotOpen
from compliance.keyring.keys import SigningUse
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from gateway.auth.roster import ClientStatus
from gateway.backup.errors import Mismatch

_MOVED_TO = {
    EventType.CLIENT_SUSPENDED: ClientStatus.SUSPENDED,
    EventType.CLIENT_RESUMED: ClientStatus.ACTIVE,
    EventType.CLIENT_REVOKED: ClientStatus.REVOKED,
}
_LETS_IN = frozenset({"secret", "jwks", "subject_dn", "api_key"})  # what a client proves itself with
_TO_DO_AGAIN = frozenset(
    {
        EventType.CLIENT_ADDED,
        EventType.CLIENT_REGISTERED,
        EventType.CLIENT_CHANGED,
        EventType.USER_ADDED,
        EventType.MODEL_PUBLISHED,
        EventType.MODEL_PROMOTED,
        EventType.PRIVACY_REQUESTED,
        EventType.PRIVACY_LIFTED,
        EventType.HOLD_PLACED,
        EventType.HOLD_LIFTED,
        EventType.INTAKE_STOPPED,
        EventType.INTAKE_RESUMED,
    }
)


@dataclass(frozen=True, slots=True)
class LateRound:
    """A round that was opened after the backup; the log holds enough of it to keep its number from another."""

    round_number: int
    model_id: str
    base_version: str
    policy: dict[str, Any]
    policy_hash: str
    created_at: datetime


@dataclass(slots=True)
class Beyond:
    """What happened after the backup, as far as a bundle tells; empty without one."""

    size: int = 0
    roots: dict[int, bytes] = field(default_factory=dict)
    signed: SignedTree | None = None
    note: str = ""
    rotations: dict[SignedTree, str] = field(default_factory=dict)
    """The checkpoints that tell of new log keys: who trusts an old key cannot go on without them."""
    sequenced: set[str] = field(default_factory=set)
    late_rounds: dict[int, LateRound] = field(default_factory=dict)
    lost_updates: Counter[int] = field(default_factory=Counter)
    ended_rounds: set[int] = field(default_factory=set)
    moved_clients: dict[str, str] = field(default_factory=dict)
    shut_out: set[str] = field(default_factory=set)
    outdated: set[str] = field(default_factory=set)
    """Clients whose proof was changed: the one that the backup holds may be in wrong hands."""
    moved_users: dict[str, str] = field(default_factory=dict)
    outdated_users: set[str] = field(default_factory=set)
    """People whose proof or role was changed: what the backup holds of it counts no more."""
    lost_effects: Counter[str] = field(default_factory=Counter)


def verifier_of(keystore: KeyStore, origin: str, note: str) -> NoteVerifier:
    """The verifier of whichever generation of the log's key signed this checkpoint.

    Raises:
        Mismatch: none of the key store's did.
    """
    for key in keystore.public_keys():
        if key.use is SigningUse.LOG:
            verifier = NoteVerifier.of(origin, key.public)
            try:
                verifier.open(note)
            except BadSignature:
                continue
            return verifier
    raise Mismatch(
        "No key of this key store signed the log: restore the keys of the same gateway with --keys, or name "
        "its key store with FLG_KEYSTORE_URL"
    )


def stated_size(bundle: Path) -> int:
    """How many entries a bundle says that it has; nothing is verified. Raises Mismatch."""
    try:
        with open_bundle(bundle) as opened:
            return parse_checkpoint(parse_note(opened.checkpoint).text).size
    except AuditError as error:
        raise Mismatch(f"The bundle cannot be used: {error}") from None


def look_beyond(
    bundle: Path,
    *,
    keystore: KeyStore,
    sealer: SubjectSealer,
    origin: str,
    start: int,
    pending: Collection[str],
    sizes: Collection[int],
) -> Beyond:
    """Verify a bundle of the same log, and note what its entries from `start` on say.

    Raises:
        Mismatch: it does not verify, or is of another log.
    """
    seen = Beyond()
    wanted = {*sizes}

    def visit(entry: Entry, tree: CompactRange) -> None:
        if tree.size in wanted:
            seen.roots[tree.size] = tree.root()
        if entry.seq >= start:
            _note(seen, entry, pending, sealer)

    try:
        with open_bundle(bundle) as opened:
            seen.note = opened.checkpoint
            seen.signed = verifier_of(keystore, origin, seen.note).open(seen.note)
            seen.size = seen.signed.size
            told = _trees(keystore, origin, opened.rotations.values())
            wanted |= {tree.size for tree in told}
            walk(opened.lines(), seen.signed, visit)
            seen.rotations = {
                tree: note for tree, note in told.items() if seen.roots.get(tree.size) == tree.root
            }
    except ChainBroken as broken:
        raise Mismatch(f"The bundle does not verify at seq {broken.seq}: {broken.problem}") from None
    except AuditError as error:
        raise Mismatch(f"The bundle cannot be used: {error}") from None
    return seen


def _trees(keystore: KeyStore, origin: str, notes: Iterable[str]) -> dict[SignedTree, str]:
    """The trees of those checkpoints that a key of the log signed."""
    trees = {}
    for note in notes:
        try:
            trees[verifier_of(keystore, origin, note).open(note)] = note
        except Mismatch:
            continue  # it would help nobody to go on, and the log is whole without it
    return trees


def entries_from(bundle: Path, start: int) -> Iterator[Entry]:
    """The entries of a bundle from a place on."""
    with open_bundle(bundle) as opened:
        for line in islice(opened.lines(), start, None):
            yield parse_entry(line.removesuffix(b"\n"))


def _note(seen: Beyond, entry: Entry, pending: Collection[str], sealer: SubjectSealer) -> None:
    if entry.id in pending:
        seen.sequenced.add(entry.id)  # the backup has its effect
        return
    number = entry.details.get("round_number")
    match entry.event_type:
        case EventType.ROUND_CREATED:
            _note_round(seen, entry)
        case EventType.UPDATE_ACCEPTED if isinstance(number, int):
            seen.lost_updates[number] += 1
        case EventType.ROUND_FROZEN | EventType.ROUND_COMPLETED | EventType.ROUND_FAILED if isinstance(
            number, int
        ):
            seen.ended_rounds.add(number)
        case EventType.CLIENT_SUSPENDED | EventType.CLIENT_RESUMED | EventType.CLIENT_REVOKED as moved:
            if client := _opened(entry, sealer, "details.client_id", entry.details.get("client_id")):
                _move(seen, str(client), EventType(moved))
        case EventType.CLIENT_CHANGED if not _LETS_IN.isdisjoint(_texts(entry.details.get("changed"))):
            if client := _opened(entry, sealer, "details.client_id", entry.details.get("client_id")):
                seen.outdated.add(str(client))
                seen.shut_out.add(str(client))
        case EventType.USER_CHANGED:
            if person := _opened(entry, sealer, "details.user_id", entry.details.get("user_id")):
                _note_user(seen, str(person), entry)
        case EventType.TOKEN_REVOKED:
            actor = _opened(entry, sealer, "actor", entry.members["actor"])
            if isinstance(actor, dict) and "client_id" in actor:
                seen.shut_out.add(actor["client_id"])  # which of its tokens, nobody can tell: all of them
    if entry.event_type in _TO_DO_AGAIN:
        seen.lost_effects[entry.event_type] += 1


def _texts(told: JsonValue) -> list[str]:
    return [value for value in told if isinstance(value, str)] if isinstance(told, list) else []


def _move(seen: Beyond, client_id: str, moved: EventType) -> None:
    seen.moved_clients[client_id] = _MOVED_TO[moved].value
    if moved is EventType.CLIENT_REVOKED:
        seen.shut_out.add(client_id)


def _note_user(seen: Beyond, user_id: str, entry: Entry) -> None:
    status = entry.details.get("status")
    if isinstance(status, str):
        seen.moved_users[user_id] = status
    else:
        seen.outdated_users.add(user_id)
        seen.lost_effects[entry.event_type] += 1


def _note_round(seen: Beyond, entry: Entry) -> None:
    told = entry.details
    number, policy = told.get("round_number"), told.get("policy")
    texts = [told.get(name) for name in ("model_id", "model_version", "policy_hash")]
    if not isinstance(number, int) or not all(isinstance(text, str) for text in texts):
        return
    model_id, base_version, policy_hash = map(str, texts)
    try:
        read = json.loads(policy) if isinstance(policy, str) else {}
    except ValueError:
        read = {}
    seen.late_rounds[number] = LateRound(number, model_id, base_version, read, policy_hash, entry.time)


def _opened(entry: Entry, sealer: SubjectSealer, name: str, value: JsonValue) -> JsonValue:
    """What a sealed field says; nothing where its key is gone."""
    sealed = Sealed.read(value)
    try:
        return sealer.open(sealed, f"{entry.id}.{name}") if sealed else None
    except (KeyDestroyed, CannotOpen):
        return None
