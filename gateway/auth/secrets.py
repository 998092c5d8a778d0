"""Secrets we hand out: 256 random bits behind a prefix that leak scanners find; only the SHA-256 is kept."""

from __future__ import annotations

import hmac
import secrets
from enum import StrEnum
from hashlib import sha256

SECRET_BYTES = 32


class SecretKind(StrEnum):
    """What a secret is for, said by its prefix."""

    CLIENT_SECRET = "flg_secret_"  # noqa: S105 - a prefix, as the others
    API_KEY = "flg_key_"
    ACCESS_TOKEN = "flg_token_"  # noqa: S105
    REFRESH_TOKEN = "flg_refresh_"  # noqa: S105
    AUTHORIZATION_CODE = "flg_code_"
    REGISTRATION_TOKEN = "flg_reg_"  # noqa: S105


def new_secret(kind: SecretKind) -> str:
    """A secret that nobody can guess: shown once, never stored."""
    return kind.value + secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> str:
    """The stored form of a secret. No salt and no slow hash: 256 random bits cannot be searched."""
    return sha256(secret.encode()).hexdigest()


def matches(secret: str, stored: str | None) -> bool:
    """Whether the secret has that stored form; takes the same time when there is none to compare with."""
    same = hmac.compare_digest(digest(secret), stored or _NOBODYS)
    return same and stored is not None


_NOBODYS = digest(new_secret(SecretKind.CLIENT_SECRET))
