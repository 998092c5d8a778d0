"""The signed promise that an acknowledged update is in the log, with just this content (RULES 21)."""

from __future__ import annotations

from datetime import datetime

from audit.entry import Draft
from compliance.jws import sign_compact
from compliance.keyring.keys import SigningUse
from gateway.services import Services

TYPE = "fl-receipt+jwt"


def sign_receipt(services: Services, draft: Draft, body_sha256: bytes, received_at: datetime) -> str:
    """The receipt for an entry that is about to be staged: a compact JWS (EdDSA).

    Args:
        services: its receipt key and the log's origin.
        draft: the entry.
        body_sha256: digest of the body as the client sent it.
        received_at: when it was complete.
    """
    payload = {
        "entry_id": draft.id,
        "entry_digest": draft.digest().hex(),
        "body_hash": body_sha256.hex(),
        "received_at": received_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "origin": services.origin,
        "max_delay": services.config.receipt_max_delay_s,
    }
    return sign_compact(TYPE, payload, services.keystore.signing_key(SigningUse.RECEIPT))
