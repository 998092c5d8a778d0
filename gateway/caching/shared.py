"""Models in Redis, for all processes of a gateway: bounded waits, and no byte believed that does not hash right.

Redis is never needed. One that is away, stopped, slow, full or filled with something else makes a miss, and after
a failure nobody asks it for a few seconds.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from gateway.errors import ConfigError

READ_TIMEOUT_S = 0.5
WHOLE_TIMEOUT_S = 1.0  # for all of a model, one way
PAUSE_S = 5.0
_HEALTH_CHECK_S = 15
_PIECE_BYTES = 1 << 20  # read three times as fast as in one piece, and it can be given up between two
_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
log = logging.getLogger(__name__)


class Breaker:
    """Keeps everybody from a server that failed: for a pause nobody asks it, then one asks for all."""

    def __init__(self, pause_s: float = PAUSE_S, now_s: Callable[[], float] = time.monotonic) -> None:
        self._pause_s, self._now_s = pause_s, now_s
        self._until_s: float | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the server failed when it was last asked."""
        return self._until_s is not None

    def lets_through(self) -> bool:
        """Whether to ask the server now."""
        with self._lock:
            if self._until_s is None:
                return True
            if self._now_s() < self._until_s:
                return False
            self._until_s = self._now_s() + self._pause_s
            return True

    def closes(self) -> bool:
        """The server answered; says whether that is news."""
        with self._lock:
            was_open, self._until_s = self._until_s is not None, None
            return was_open

    def opens(self) -> bool:
        """The server failed; says whether that is news."""
        with self._lock:
            was_open, self._until_s = self._until_s is not None, self._now_s() + self._pause_s
            return not was_open


class SharedModels:
    """The models that the gateway's processes keep in one Redis; no method raises for what Redis does.

    Args:
        url: `redis://…`, or `rediss://…`, whose certificate is always verified.
        prefix: keeps gateways that share a Redis apart.
        ttl_s: how long a model stays.
        breaker: decides whether Redis is asked.
        read_timeout_s: how long to wait for its next bytes.
        whole_timeout_s: how long a whole model may take.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        ttl_s: int,
        breaker: Breaker,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        whole_timeout_s: float = WHOLE_TIMEOUT_S,
    ) -> None:
        self._reads = open_client(url, read_timeout_s)
        self._writes = open_client(url, whole_timeout_s)
        self._whole_timeout_s = whole_timeout_s
        self._prefix, self._ttl_s, self._breaker = prefix, ttl_s, breaker

    def fetch(self, version: str, checksum: str, size_bytes: int) -> bytes | None:
        """The model's bytes, if Redis has them all, in time, and they hash to the checksum; others are dropped."""
        found: bytes | None = None
        with self._asked() as asked:
            if asked:
                found = self._read(self._key(version), size_bytes)
        if not found:
            return None
        if hmac.compare_digest(sha256(found).hexdigest(), checksum):
            return found
        log.warning("the cache held other bytes than those of model %s: dropped", version)
        self.drop(version)
        return None

    def store(self, version: str, data: bytes) -> None:
        """Keep the model's bytes for the time to live."""
        with self._asked() as asked:
            if asked:
                self._writes.set(self._key(version), data, ex=self._ttl_s)

    def drop(self, version: str) -> None:
        """Remove the model's bytes."""
        with self._asked() as asked:
            if asked:
                self._reads.unlink(self._key(version))

    def answers(self) -> bool:
        """Whether Redis answers, as far as it may be asked now."""
        with self._asked() as asked:
            if asked:
                self._reads.ping()
        return not self._breaker.is_open

    def close(self) -> None:
        """Give the connections back."""
        self._reads.close()
        self._writes.close()

    def _key(self, version: str) -> str:
        return f"{self._prefix}:model:{version}"

    def _read(self, key: str, size_bytes: int) -> bytes:
        deadline, pieces = time.monotonic() + self._whole_timeout_s, []
        for start in range(0, size_bytes, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, size_bytes)
            piece = self._reads.getrange(key, start, end - 1)
            pieces.append(piece if isinstance(piece, bytes) else piece.encode())
            if len(pieces[-1]) < end - start:
                break  # not there, cut, or just gone
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(pieces)

    @contextmanager
    def _asked(self) -> Iterator[bool]:
        """A block that may ask Redis if it is given True; a failure in it ends the block and nothing else."""
        if not self._breaker.lets_through():
            yield False
            return
        try:
            yield True
        except (RedisError, OSError) as error:
            if self._breaker.opens():
                # Only the kind: the text may hold the address.
                log.warning("the cache does not answer (%s): going on without it", type(error).__name__)
        else:
            if self._breaker.closes():
                log.warning("the cache answers again")


def open_client(url: str, timeout_s: float, *, connect_timeout_s: float = READ_TIMEOUT_S) -> Redis:
    """A client that connects when it is first used, and asks once.

    Raises:
        ConfigError: `FLG_CACHE_URL` is no URL of a Redis, or it asks for less than we promise.
    """
    try:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("redis", "rediss")
            or not parts.hostname
            or not parse_qs(parts.query).keys() <= _OPTIONS
        ):
            raise ValueError
        return Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=connect_timeout_s,
            retry=Retry(NoBackoff(), 0),  # to wait again is what a cache is not for
            health_check_interval=_HEALTH_CHECK_S,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError:  # its text may hold the password
        allowed = ", ".join(sorted(_OPTIONS))
        raise ConfigError(
            "FLG_CACHE_URL must have the form redis://[USER:PASSWORD@]HOST[:PORT][/DB] or rediss://…; "
            f"its options may be {allowed}"
        ) from None
