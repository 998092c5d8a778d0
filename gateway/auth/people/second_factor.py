"""The second factor: time-based one-time codes (RFC 6238), each taken once; their secret is sealed."""

from __future__ import annotations

import hmac
from datetime import datetime

from sqlalchemy import Connection, or_, update

from gateway.tables import users

STEP_S = 30
DIGITS = 6
_ISSUER = "fl-gateway"
_DRIFT_STEPS = (0, -1, 1)  # a clock half a minute off, on either side
_NOBODYS = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


def new_totp_secret() -> str:
    """160 random bits in base32, as authenticator apps take them (RFC 4226, section 4, R6)."""
    import pyotp  # a start needs it not

    return pyotp.random_base32()


def totp_uri(secret: str, name: str) -> str:
    """What an authenticator app reads, often from a picture."""
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=_ISSUER)


def code_at(secret: str, step: int) -> str:
    """The code of one step of half a minute."""
    import pyotp

    return pyotp.HOTP(secret).at(step)  # RFC 6238, section 4.2: TOTP is HOTP of the step


def matching_step(secret: str | None, code: str, now: datetime) -> int | None:
    """The step whose code this is, among the present one and its neighbours; takes the same time without a secret."""
    typed = code.replace(" ", "").encode()
    present, found = int(now.timestamp()) // STEP_S, None
    for drift in _DRIFT_STEPS:
        right = hmac.compare_digest(code_at(secret or _NOBODYS, present + drift).encode(), typed)
        if right and found is None:
            found = present + drift
    return found if secret else None


def take_step(conn: Connection, user_id: str, step: int) -> bool:
    """Note the step as used, in the transaction that lets the person in; False if it was used before."""
    fresh = or_(users.c.totp_step.is_(None), users.c.totp_step < step)
    noted = update(users).where(users.c.user_id == user_id, fresh).values(totp_step=step)
    return conn.execute(noted).rowcount > 0
