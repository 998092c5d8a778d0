"""How often a client may call a class of routes (`FLG_RATE_LIMITS`): windows in memory, of bounded number.

A window begins with the first request in it, so that a client has its whole allowance whenever it starts.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import ceil

from flask import Flask, Response, current_app, g

from gateway.auth.scopes import Scope
from gateway.auth.tokens import AuthenticatedClient
from gateway.errors import ConfigError, RateLimited
from gateway.services import Services, current_services

EXTENSION = "fl_gateway_rate_limits"
AUTH_FAILURES = "auth_failures"
MOST_WINDOWS = 50_000
_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_LIMIT = re.compile(r"([a-z_]+)\s*=\s*(\d{1,9})\s*/\s*(second|minute|hour|day)")
_UNLIMITED = frozenset({Scope.ROUND_MANAGE, Scope.AUDIT_READ})


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in so many seconds."""

    count: int
    period_s: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a client stands in its window after a request."""

    limit: Limit
    used: int
    resets_at_s: float

    @property
    def is_over(self) -> bool:
        """Whether this request was one too many."""
        return self.used > self.limit.count

    def headers(self) -> dict[str, str]:
        """The standing as response headers; the reset is in epoch seconds."""
        return {
            "X-RateLimit-Limit": str(self.limit.count),
            "X-RateLimit-Remaining": str(max(0, self.limit.count - self.used)),
            "X-RateLimit-Reset": str(ceil(self.resets_at_s)),
        }


class Windows:
    """The open windows of one class; past `most` of them the oldest is forgotten."""

    def __init__(self, limit: Limit, *, most: int = MOST_WINDOWS) -> None:
        self._limit = limit
        self._most = most
        self._open: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, key: Hashable, now_s: float) -> Standing:
        """Count one request."""
        with self._lock:
            self._forget(now_s)
            began_s, used = self._open.get(key, (now_s, 0))
            used = min(used + 1, self._limit.count + 1)
            self._open[key] = (began_s, used)
        return Standing(self._limit, used, began_s + self._limit.period_s)

    def __len__(self) -> int:
        return len(self._open)

    def _forget(self, now_s: float) -> None:
        """Windows stand in the order in which they began: what is over, or too much, is in front."""
        while self._open:
            began_s, _ = next(iter(self._open.values()))
            if now_s < began_s + self._limit.period_s and len(self._open) < self._most:
                return
            self._open.popitem(last=False)


def parse_limits(text: str) -> Mapping[str, Limit]:
    """The limits of `FLG_RATE_LIMITS`, by class.

    Raises:
        ConfigError: a part is not of the form `class=COUNT/PERIOD`.
    """
    limits = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        found = _LIMIT.fullmatch(part)
        if found is None or int(found[2]) == 0:
            raise ConfigError(
                "FLG_RATE_LIMITS must have the form class=COUNT/PERIOD;… with second, minute, hour or day"
            )
        limits[found[1]] = Limit(int(found[2]), _PERIODS_S[found[3]])
    return limits


def install_rate_limits(app: Flask, services: Services) -> None:
    """Give the application its windows and the headers that tell of them."""
    limits = parse_limits(services.config.rate_limits)
    app.extensions[EXTENSION] = {name: Windows(limit) for name, limit in limits.items()}
    app.after_request(_tell)


def spend(client: AuthenticatedClient, name: str) -> None:
    """Count a request of the client in a class; operators and readers of the log are not counted.

    Raises:
        RateLimited: it is one too many.
    """
    if not client.scopes.isdisjoint(_UNLIMITED):
        return
    standing = _count(name, client.client_id)
    if standing is None:
        return
    g.rate_standing = standing
    if standing.is_over:
        raise _refusal(standing)


def count_auth_failure(address: str, client_id: str) -> None:
    """Count a wrong secret; call it only after the secret was found to be wrong.

    Raises:
        RateLimited: there were too many from this address for this client.
    """
    standing = _count(AUTH_FAILURES, (address, client_id))
    if standing is not None and standing.is_over:
        raise _refusal(standing)


def _count(name: str, key: Hashable) -> Standing | None:
    windows: Windows | None = current_app.extensions[EXTENSION].get(name)
    return windows.count(key, current_services().clock().timestamp()) if windows is not None else None


def _refusal(standing: Standing) -> RateLimited:
    wait_s = max(1, ceil(standing.resets_at_s - current_services().clock().timestamp()))
    return RateLimited(f"Come again in {wait_s} seconds", retry_after_s=wait_s)


def _tell(response: Response) -> Response:
    standing: Standing | None = g.get("rate_standing")
    if standing is not None:
        response.headers.update(standing.headers())
    return response
