"""Asking an issuer about a token (RFC 7662): few at a time, answers kept for moments, floods kept back."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import quote_plus

from gateway.auth.issuers.errors import ExchangeFailed, IssuerAway
from gateway.auth.issuers.exchange import Line
from gateway.auth.issuers.settings import Introspecting
from gateway.errors import ConfigError

log = logging.getLogger(__name__)
LINES = 4
MOST_WAITING = 8
PATIENCE_S = 1.0
TIMEOUT_S = 3.0
MOST_KEPT = 4096
STRANGERS_PER_S, MOST_STRANGERS = 10.0, 40.0
FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the issuer said of a token, None for nothing good, and until when it may be repeated."""

    answer: Mapping[str, Any] | None = field(repr=False)
    until: float


class Introspector:
    """One issuer's introspection endpoint.

    Tokens that were active the last time are asked about freely. For all others together there is an allowance, so
    that whoever sends nonsense keeps newcomers waiting, but neither the issuer busy nor the known ones out.

    Args:
        asking: the endpoint, and how the gateway proves itself there.
        ca_file: PEM file of the authorities; empty: the machine's.
        clock: seconds that never go back.
    """

    def __init__(
        self, asking: Introspecting, *, ca_file: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asking = asking
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._seats = threading.BoundedSemaphore(LINES + MOST_WAITING)
        self._lines: queue.LifoQueue[Line] = queue.LifoQueue()
        for _ in range(LINES):
            self._lines.put(Line(ca_file, TIMEOUT_S))
        self._allowance, self._counted_at = MOST_STRANGERS, clock()
        self._failures, self._not_before = 0, float("-inf")

    def ask(self, token: str) -> Mapping[str, Any] | None:
        """What the issuer says of an active token; None for one that is not.

        Raises:
            IssuerAway: it does not answer, or too many other questions wait for it.
        """
        name = sha256(token.encode()).digest()
        now = self._clock()
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None and now < kept.until:
                return kept.answer
            is_known = kept is not None and kept.answer is not None
            if now < self._not_before or not (is_known or self._may_pass(now)):
                raise IssuerAway
        if not self._seats.acquire(blocking=False):  # the threads that wait here serve everybody
            raise IssuerAway
        try:
            return self._asked(token, name)
        finally:
            self._seats.release()

    def probe(self) -> None:
        """Ask about a token that nobody has. Raises ExchangeFailed."""
        line = self._lines.get()
        try:
            self._exchange(line, "flg-doctor")
        finally:
            line.close()
            self._lines.put(line)

    def close(self) -> None:
        """Close its connections."""
        lines = [self._lines.get() for _ in range(LINES)]
        for line in lines:
            line.close()
            self._lines.put(line)

    def _asked(self, token: str, name: bytes) -> Mapping[str, Any] | None:
        try:
            line = self._lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise IssuerAway from None
        try:
            kept = self._kept.get(name)  # of several that wait with the same token, one asks
            if kept is not None and self._clock() < kept.until:
                return kept.answer
            answer = self._exchange(line, token)
        except ExchangeFailed as failed:
            self._fail(failed)
            raise IssuerAway from None
        finally:
            self._lines.put(line)
        self._keep(name, answer)
        return answer

    def _exchange(self, line: Line, token: str) -> Mapping[str, Any] | None:
        asking = self._asking
        try:
            basic = quote_plus(asking.client_id), quote_plus(asking.secret())  # RFC 6749, section 2.3.1
        except ConfigError as error:
            raise ExchangeFailed(error.detail) from None
        content = line.post(
            asking.endpoint, {"token": token, "token_type_hint": "access_token"}, basic
        ).content
        if not isinstance(content.get("active"), bool):
            raise ExchangeFailed("its answer does not say whether the token is active", is_answer=True)
        return content if content["active"] else None

    def _may_pass(self, now: float) -> bool:
        """Take one from the allowance of tokens that are not known; the lock is held."""
        more = (now - self._counted_at) * STRANGERS_PER_S
        self._allowance, self._counted_at = min(MOST_STRANGERS, self._allowance + more), now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _fail(self, failed: ExchangeFailed) -> None:
        """Leave the issuer alone for a while. If it did answer, one token may be to blame: the known ones go on."""
        with self._lock:
            if not self._failures:
                log.warning("no introspection at %s: %s", self._asking.endpoint, failed.why)
            wait_s = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self._failures, 10))
            self._failures += 1
            self._allowance = 0.0
            if not failed.is_answer:
                self._not_before = self._clock() + wait_s

    def _keep(self, name: bytes, answer: Mapping[str, Any] | None) -> None:
        with self._lock:
            self._failures = 0
            self._kept[name] = _Kept(answer, self._clock() + self._asking.cache_s)
            self._kept.move_to_end(name)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
