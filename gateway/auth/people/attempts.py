"""How often somebody may try to sign in, so that no password is guessed, and nobody is kept out by strangers' guesses.

Attempts are counted before a password is looked at, so that many at once gain nothing. A browser that signed in before
to this very account proves it by a cookie and is counted apart (OWASP, device cookies): decision 0132.
"""

from __future__ import annotations

import hmac
import secrets
from math import ceil

from flask import g

from gateway.auth.origin import address_of
from gateway.auth.rate_limits import hit
from gateway.auth.refusals import network_of
from gateway.auth.rules import LimitClass
from gateway.auth.windows import Standing
from gateway.errors import RateLimited
from gateway.services import Services

BROWSER_AGE_S = 180 * 86_400
_NONCE_BYTES = 16
_LONGEST_COOKIE = 160


class SignInWaits(RateLimited):
    """Too many attempts: from this browser, from this network, or from browsers that the account does not know."""

    code, title = "SIGN_IN_WAITS", "Too many attempts to sign in"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(f"Try again in {_told(retry_after_s)}", retry_after_s=retry_after_s)


def new_browser_cookie(services: Services, account: str) -> str:
    """What proves later that this browser has signed in to the account.

    Args:
        services: the stores; their key signs it.
        account: the index of the person's name.
    """
    issued_s, nonce = int(services.clock().timestamp()), secrets.token_hex(_NONCE_BYTES)
    return f"{issued_s}.{nonce}.{_signature(services, account, issued_s, nonce)}"


def known_browser(services: Services, account: str, cookie: str) -> str | None:
    """The random name of a browser that signed in to this account before; None for all others."""
    issued, _, rest = cookie.partition(".")
    nonce, _, signature = rest.partition(".")
    if len(cookie) > _LONGEST_COOKIE or not (cookie.isascii() and issued.isdecimal()):
        return None
    right = _signature(services, account, int(issued), nonce)
    is_young = services.clock().timestamp() < int(issued) + BROWSER_AGE_S
    return nonce if hmac.compare_digest(right, signature) and is_young else None


def count_attempt(services: Services, account: str, browser: str | None) -> None:
    """Count one attempt, before anything of it is looked at.

    Args:
        services: the stores.
        account: the index of the name that was typed, whether somebody has it or not.
        browser: what `known_browser` said.

    Raises:
        SignInWaits: it is one too many.
    """
    if browser is not None:
        standings = [
            hit(LimitClass.SIGN_INS, "browser", browser),
            hit(LimitClass.ACCOUNT_SIGN_INS, "browser", browser),
        ]
    else:
        nearby = hit(LimitClass.SIGN_INS, "network", account, network_of(address_of(g.origin)))
        # What one network tries beyond its share does not count against the account as a whole.
        standings = (
            [nearby] if nearby.is_over else [nearby, hit(LimitClass.ACCOUNT_SIGN_INS, "strangers", account)]
        )
    over = [standing for standing in standings if standing.is_over]
    if over:
        raise SignInWaits(retry_after_s=_wait_s(services, over))


def may_show_code(password_hash: str, browser: str | None) -> bool:
    """Count a one-time code that comes with the right password; says whether it may be looked at.

    Who has learned a password could else try codes all year. It is no `SignInWaits`: that would tell that the password
    was right.

    Args:
        password_hash: the stored one; with another password the count begins anew.
        browser: what `known_browser` said.
    """
    return not hit(LimitClass.ACCOUNT_CODES, browser or "strangers", password_hash).is_over


def _wait_s(services: Services, over: list[Standing]) -> int:
    last_s = max(standing.resets_at_s for standing in over)
    return max(1, ceil(last_s - services.clock().timestamp()))


def _signature(services: Services, account: str, issued_s: int, nonce: str) -> str:
    return services.keystore.index(f"browser:{account}:{issued_s}:{nonce}")


def _told(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 120 else f"{ceil(seconds / 60)} minutes"
