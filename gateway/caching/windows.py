"""Windows of rate limits in Redis, shared by all replicas: those of the library `limits`, with bounded waits.

Redis is never needed: one that is away, stopped, slow, or holds something else counts nothing, and each process counts
for itself meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from limits.storage import RedisStorage
from redis import RedisError

from gateway.caching.shared import Breaker, open_client

TIMEOUT_S = 0.25
_ROUNDED_S = 0.5  # Redis tells what is left of a window to the nearest second
log = logging.getLogger(__name__)


class SharedWindows:
    """The windows that the gateway's processes keep in one Redis; no method raises for what Redis does.

    Args:
        url: `FLG_CACHE_URL`.
        prefix: keeps gateways that share a Redis apart.
        breaker: decides whether Redis is asked.
        disguise: makes of a key what names nobody: Redis is no place for client ids and addresses.

    Raises:
        ConfigError: the URL is none of a Redis.
    """

    def __init__(self, url: str, prefix: str, breaker: Breaker, disguise: Callable[[str], str]) -> None:
        pool = open_client(url, TIMEOUT_S, connect_timeout_s=TIMEOUT_S).connection_pool
        self._storage = RedisStorage("redis://", connection_pool=pool, key_prefix=prefix)
        self._breaker, self._disguise = breaker, disguise

    def count(self, name: str, key: str, period_s: int) -> tuple[int, float] | None:
        """Count one hit; tells how many there were and the seconds left (never too few), or None without Redis."""
        if not self._breaker.lets_through():
            return None
        hidden = f"{name}:{self._disguise(f'window:{name}:{key}')}"
        try:
            used = self._storage.incr(hidden, period_s)
            left_s = self._storage.get_expiry(hidden) - time.time()
        except (RedisError, OSError) as error:
            if self._breaker.opens():
                # Only the kind: the text may hold the address.
                log.warning("each process counts for itself: Redis fails (%s)", type(error).__name__)
            return None
        if self._breaker.closes():
            log.warning("requests are counted in Redis again")
        return used, max(0.0, left_s) + _ROUNDED_S
