"""Looks at the master key and at the key that signs the log, in their files or in KMS; no key is made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select

from audit.checkpoint import NoteKey
from compliance.keyring.tables import signing_keys
from gateway.config import Config
from gateway.doctor.errors import Ailing
from gateway.doctor.stores import LATER, is_to_be_made, looked_at
from gateway.log_key import USE, Places
from gateway.storage.master_key import KEY_FILE, MasterKeys

_PROBE = b"fl-gateway doctor\n"  # no checkpoint reads so


def master_key(config: Config) -> str:
    """It has the right form, nobody else can read it, KMS opens it, and no rotation was left unfinished."""
    keys = MasterKeys(config)
    if not keys.is_there:
        return f"{config.master_key.partition(',')[0] or KEY_FILE} {LATER}"
    if len(keys.load()) > 1:
        raise Ailing(
            "there are two master keys: a rotation is not finished; give `fl-gateway keys rotate master` again, and "
            "take the old key out of FLG_MASTER_KEY if it stands there"
        )
    return "set" if config.master_key else f"{KEY_FILE} is the gateway's alone"


def log_key(config: Config) -> str:
    """What is held outside of the key store can be opened and signs, and it is the log's key."""
    newest, places = _newest(config), Places(config)
    wished = places.at(config.log_key) if config.log_key else None
    if wished and newest and wished.public_key().public_bytes_raw() != newest.public:
        raise Ailing(
            "FLG_LOG_KEY names another key than the one that signs the log: announce it with `fl-gateway keys rotate "
            "log`, or set the old one again"
        )
    held_at = config.log_key or (newest.held_at if newest else None)
    if not held_at:
        return "in the key store" if newest else f"in the key store; it {LATER}"
    _insist_signs(wished or places.at(held_at))
    return f"{held_at.partition(':')[0]}: it signs"


def _insist_signs(key: NoteKey) -> None:
    key.public_key().verify(key.sign(_PROBE), _PROBE)


def _newest(config: Config) -> Row[Any] | None:
    """The log's key that has begun last, if there is one."""
    if is_to_be_made(config.keystore_url):
        return None
    begun = select(signing_keys).where(signing_keys.c.use == USE.value, signing_keys.c.awaits.is_(None))
    with looked_at(config, config.keystore_url, "keystore") as conn:
        return conn.execute(begun.order_by(signing_keys.c.generation.desc()).limit(1)).first()
