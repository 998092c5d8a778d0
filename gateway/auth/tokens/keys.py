"""The keys of our own JWTs: which one signs, and whose tokens are good.

Read anew four times a second, since a rotation on another machine moves no epoch of this one.
"""

from __future__ import annotations

from collections.abc import Mapping

from compliance.keyring.keys import PublicKeyRow, SigningKey, SigningUse
from gateway.auth.jose import Key, ed25519_key
from gateway.services import Services
from gateway.storage.verdicts import PART_S


def own_keys(services: Services) -> Mapping[str, Key]:
    """The key that signs, those before it while their tokens live, and the next one, which others may know already."""

    def load() -> Mapping[str, Key]:
        waiting, in_force = services.keystore.signing.standing_now(SigningUse.TOKEN)
        rows = in_force if waiting is None else [*in_force, waiting]
        return {row.kid: ed25519_key(row.kid, row.public) for row in rows}

    return services.verdicts.find("token keys", load, epoch=services.state.epoch(), longest_s=PART_S) or {}


def published_keys(services: Services) -> list[PublicKeyRow]:
    """What `jwks.json` shows: every key of receipts and packages, which never end; of tokens only those still good."""
    good = own_keys(services)
    return [
        row for row in services.keystore.public_keys() if row.use is not SigningUse.TOKEN or row.kid in good
    ]


def token_key(services: Services) -> SigningKey:
    """The key that signs access tokens now."""

    def load() -> SigningKey:
        return services.keystore.signing.current(SigningUse.TOKEN)

    found = services.verdicts.find("token key", load, epoch=services.state.epoch())
    return found or load()
