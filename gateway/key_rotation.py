"""Rotates keys so that nobody who checks the old key's work is lost, and a crash at any moment leaves no half.

A new signing key is committed, then announced by an entry, then it begins; the log's begins with the first checkpoint
that covers this entry, which the old key signs too (decision 0107). The master key is replaced by wrapping every secret
of the key store anew, before the old one is forgotten (decision 0108).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from audit.canonical import JsonValue
from audit.checkpoint import NoteKey, NoteSigner
from audit.entry import Draft
from audit.events import EventType, Phase
from audit.key_succession import statement, written_time
from audit.reading import reading
from audit.store import entry_by_id, is_pending
from audit.tables import audit_checkpoints
from compliance.keyring.keys import SigningKeyRow, SigningUse
from compliance.keyring.rewrapping import rewrap
from compliance.keyring.wrapping import kid_of
from gateway.errors import ConfigError
from gateway.log_key import Places, log_keys
from gateway.services import Services
from gateway.storage.master_key import MasterKeys

MASTER = "master"
JWKS_FRESH = timedelta(minutes=10)  # twice the time for which an answer of `jwks.json` may be kept
_ANOTHER = (
    "another command rotates this key at this moment: see `fl-gateway keys list`, and give this one again"
)
_TAKE_UP = timedelta(minutes=1)  # within which every process signs with the new key


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key that follows another one; `has_begun` tells whether the new one signs already."""

    use: str
    old_kid: str
    new_kid: str
    has_begun: bool
    both_until: datetime | None = None
    rewrapped: int = 0


def rotate_signing_key(
    services: Services, use: SigningUse, *, both_for: timedelta, at_once: bool = False
) -> Rotation:
    """Announce the next signing key, or go on with the one that was announced already.

    Args:
        services: the stores.
        use: what the key signs.
        both_for: how long the log's old key signs beside the new one; receipts and packages have no such time.
        at_once: the old key of tokens was stolen: a new one, drawn now, signs from now on, and what the old one signed
            ends. One that was announced already gives way: who read the old one may have read it, too.

    Raises:
        ConfigError: there is no key yet, `FLG_LOG_KEY` names the one that signs now, or another command rotates it.
        KmsAway: a key is in KMS, which does not answer.
    """
    old, next_one = services.keystore.signing.newest(use), services.keystore.signing.waiting(use)
    if old is None:
        raise ConfigError(
            f"there is no {use.value} key yet that another one could follow: start the gateway first"
        )
    is_stolen = at_once and use is SigningUse.TOKEN
    if next_one is None or is_stolen or not _is_announced(services, next_one):
        next_one = _announce(services, use, old, next_one, both_for, is_stolen=is_stolen)
    if is_stolen and not services.keystore.signing.begin(next_one, before_until=services.clock()):
        raise ConfigError(_ANOTHER)
    begin_announced(services)
    rows = services.keystore.signing.rows(use)
    retires_at = next(row.retires_at for row in rows if row.kid == old.kid)
    has_begun = any(row.kid == next_one.kid and row.awaits is None for row in rows)
    return Rotation(use.value, old.kid, next_one.kid, has_begun, retires_at)


def begin_announced(services: Services) -> None:
    """Let every key begin whose announcement is safe; the sequencer asks after each batch, so it is cheap."""
    for use in SigningUse:
        row = services.keystore.signing.waiting(use)
        if row is None:
            continue
        if use is SigningUse.LOG:
            may_begin = _is_covered(services, row)
        else:
            may_begin = _is_announced(services, row) and _is_known(services, row)
        if may_begin:
            services.keystore.signing.begin(row, before_until=_last_token(services, use))


def known_from(row: SigningKeyRow) -> datetime:
    """When everybody knows a key of tokens who looks at `jwks.json` as often as it asks for: then it may sign."""
    return row.created_at + JWKS_FRESH


def _is_known(services: Services, row: SigningKeyRow) -> bool:
    return row.use is not SigningUse.TOKEN or services.clock() >= known_from(row)


def _last_token(services: Services, use: SigningUse) -> datetime | None:
    """When the last token has ended that the key before could sign; receipts never end, and their keys are kept."""
    if use is not SigningUse.TOKEN:
        return None
    return services.clock() + timedelta(seconds=services.config.token_ttl_s) + _TAKE_UP


def rotate_master_key(
    services: Services,
    *,
    grace_s: float,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int], None] = lambda _rows: None,
) -> Rotation:
    """Bring every secret under a new master key, and forget the old one; goes on with what a crash left.

    Args:
        services: the stores.
        grace_s: the longest time in which a process may still write a row under the key that it knew.
        sleep: waits.
        progress: is told how many rows were looked at.

    Raises:
        ConfigError: the gateway cannot write where the key is kept, or somebody else rotates it.
        BadMasterKey: a row opens under none of the keys.
    """
    keys, master, state = MasterKeys(services.config), services.keystore.master, services.state
    with keys.alone():
        known = keys.load()
        if len(known) == 1:
            facts = {"use": MASTER, "old_kid": kid_of(known[0])}
            services.trail.note(EventType.KEYS_ROTATED, phase=Phase.INTENDED.value, **facts)
            keys.add()
            services.crash("keys.master.added")
        state.bump_epoch()  # from now on every process wraps under the new key
        master.refresh()
        new_kid, old_kid = (kid_of(key) for key in keys.load()[:2])
        rewrapped = rewrap(services.keystore_engine, master, progress)
        services.crash("keys.master.rewrapped")
        sleep(grace_s)
        rewrapped += rewrap(services.keystore_engine, master)
        facts = {"use": MASTER, "old_kid": old_kid, "new_kid": new_kid}
        services.trail.note(EventType.KEYS_ROTATED, phase=Phase.DONE.value, rewrapped=rewrapped, **facts)
        services.crash("keys.master.told")
        keys.drop()
    state.bump_epoch()
    return Rotation(MASTER, old_kid, new_kid, has_begun=True, rewrapped=rewrapped)


def _announce(
    services: Services,
    use: SigningUse,
    old: SigningKeyRow,
    waiting: SigningKeyRow | None,
    both_for: timedelta,
    *,
    is_stolen: bool,
) -> SigningKeyRow:
    """Commit the next key and stage its entry; the one that waits, if there is one, gives way."""
    signing = services.keystore.signing
    keys = log_keys(services)
    place = services.config.log_key if use is SigningUse.LOG else ""
    private = None if place else signing.draw()
    key: NoteKey = private or Places(services.config).at(place)
    public = key.public_key().public_bytes_raw()
    if any(row.public == public for row in signing.rows(use) if row != waiting):
        raise ConfigError("FLG_LOG_KEY names a key that signs the log, or signed it: name a new one first")
    told: dict[str, JsonValue] = {
        "use": use.value,
        "old_kid": old.kid,
        "new_kid": sha256(public).hexdigest()[:16],
    }
    if is_stolen:
        told |= {"reason": "stolen"}
    both_until = None
    if use is SigningUse.LOG:
        both_until = (services.clock() + both_for).replace(microsecond=0)
        both = NoteSigner(services.origin, key, keys.open(old))
        new_vkey, old_vkey = both.vkeys
        told |= {"old_vkey": old_vkey, "new_vkey": new_vkey, "both_until": written_time(both_until)}
        told |= {"statement": statement(both, both_until)}
    entry = services.trail.draft(EventType.KEYS_ROTATED, details=told)
    try:
        row = signing.prepare(
            use,
            private,
            public=public,
            held_at=place,
            awaits=entry.id,
            retires_at=both_until,
            instead_of=waiting,
        )
    except IntegrityError:
        raise ConfigError(_ANOTHER) from None
    services.crash("keys.prepared")
    _write(services, entry)
    services.crash("keys.announced")
    return row


def _write(services: Services, entry: Draft) -> None:
    with services.engine.begin() as conn:
        services.trail.write(conn, entry)


def _is_announced(services: Services, row: SigningKeyRow) -> bool:
    with reading(services.engine) as conn:
        awaited = row.awaits or ""
        return is_pending(conn, awaited) or entry_by_id(conn, awaited) is not None


def _is_covered(services: Services, row: SigningKeyRow) -> bool:
    """Whether a published checkpoint, which both keys have signed, covers the announcement."""
    with reading(services.engine) as conn:
        entry = entry_by_id(conn, row.awaits or "")
        if entry is None:
            return False
        covering = select(audit_checkpoints.c.size).where(audit_checkpoints.c.size > entry.seq).limit(1)
        return conn.execute(covering).first() is not None
