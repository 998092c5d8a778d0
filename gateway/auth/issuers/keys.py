"""The keys of an issuer, fetched when first needed and kept: fresh by age, looked for anew when one is missing.

No stranger makes the gateway fetch more often than `AGAIN_S` says, no request fetches itself, and few wait for one
that does: an issuer that hangs costs the others nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.auth.issuers.errors import ExchangeFailed, IssuerAway
from gateway.auth.issuers.exchange import Line
from gateway.auth.issuers.metadata import Published, fetch_published
from gateway.auth.jose import BadJwt, Fault, ReadJwt, verify_jwt
from gateway.auth.jwk import ALGORITHMS, Key

log = logging.getLogger(__name__)
AGAIN_S = 10.0
FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 1.0, 60.0
SHORTEST_AGE_S, USUAL_AGE_S, LONGEST_AGE_S = 60.0, 600.0, 86_400.0
STALE_S = 3600.0
PATIENCE_S = 3.0
MOST_WAITING = 8


@dataclass(frozen=True, slots=True)
class _Held:
    """What was fetched, until when it is fresh, and until when it may be used while the issuer is away."""

    published: Published
    fresh_until: float
    usable_until: float


@dataclass(slots=True)
class _Flight:
    """A fetch under way, for all who need it."""

    landed: threading.Event = field(default_factory=threading.Event)


class Provider:
    """An issuer outside of the gateway: its keys and its metadata.

    Args:
        issuer: its name, exactly as its metadata and its tokens say it.
        jwks_uri: where its keys are; None: its metadata says so.
        algorithms: what its keys are taken for.
        ca_file: PEM file of the authorities; empty: the machine's.
        timeout_s: for each exchange with it.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        issuer: str,
        jwks_uri: str | None = None,
        *,
        algorithms: tuple[str, ...] = ALGORITHMS,
        ca_file: str = "",
        timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._jwks_uri = jwks_uri
        self._algorithms = algorithms
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._seats = threading.BoundedSemaphore(MOST_WAITING)
        self._held: _Held | None = None
        self._flight: _Flight | None = None
        self._failures = 0
        self._not_before = float("-inf")

    def verify(self, jwt: ReadJwt) -> None:
        """Check a JWT's signature with the key that it names, or with the only one (OpenID Connect Core, 10.1).

        Raises:
            BadJwt: the issuer has no such key, or it did not sign it.
            IssuerAway: the keys cannot be had now.
        """
        if jwt.kid is None:
            self._verify_unnamed(jwt)
            return
        key = self.key(jwt.kid)
        if key is None:
            raise BadJwt(Fault.KEY)
        verify_jwt(jwt, {key.kid: key})

    def key(self, kid: str) -> Key | None:
        """The issuer's key of that name, or None if it has no such key. Raises IssuerAway."""
        now = self._clock()
        held = self._usable(now)
        if held is not None and (key := held.published.keys.get(kid)) is not None:
            if now >= held.fresh_until:
                self._start(now)  # and nobody waits for it
            return key
        return self._fetched(now).keys.get(kid)

    def metadata(self) -> Mapping[str, Any]:
        """The issuer's metadata; empty where a `jwks_uri` is given. Raises IssuerAway."""
        return self._current(self._clock()).metadata

    def _verify_unnamed(self, jwt: ReadJwt) -> None:
        now = self._clock()
        try:
            verify_jwt(jwt, self._current(now).keys)
        except BadJwt:  # the key may be another one by now, which no name tells
            verify_jwt(jwt, self._fetched(now).keys)

    def _current(self, now: float) -> Published:
        """What is held, or else fetched."""
        held = self._usable(now)
        if held is None:
            return self._fetched(now)
        if now >= held.fresh_until:
            self._start(now)
        return held.published

    def _fetched(self, now: float) -> Published:
        """What the issuer publishes now, or what it published a moment ago."""
        flight = self._start(now)
        if flight is not None:
            self._wait(flight)
        held = self._usable(now)
        if held is None or self._failures:
            raise IssuerAway
        return held.published

    def _usable(self, now: float) -> _Held | None:
        held = self._held
        return held if held is not None and now < held.usable_until else None

    def _start(self, now: float) -> _Flight | None:
        """The flight under way, or a new one if it is time for it."""
        with self._lock:
            if self._flight is None and now >= self._not_before:
                flight = _Flight()
                threading.Thread(target=self._fly, args=(flight,), daemon=True).start()
                self._flight = flight  # it cannot land before the lock is free
            return self._flight

    def _wait(self, flight: _Flight) -> None:
        """Wait a little; of many, only a few may, since their threads serve everybody."""
        if not self._seats.acquire(blocking=False):
            raise IssuerAway
        try:
            if not flight.landed.wait(PATIENCE_S):
                raise IssuerAway
        finally:
            self._seats.release()

    def _fly(self, flight: _Flight) -> None:
        line = Line(self._ca_file, self._timeout_s)
        published: Published | None = None
        try:
            published = fetch_published(line, self.issuer, self._jwks_uri, self._algorithms)
        except ExchangeFailed as failed:
            log.warning("no keys of the issuer %s: %s", self.issuer, failed.why)
        finally:
            line.close()
            self._land(flight, published)

    def _land(self, flight: _Flight, published: Published | None) -> None:
        with self._lock:
            now = self._clock()
            if published is None:
                wait_s = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self._failures, 10))
                self._failures += 1
            else:
                wait_s, self._failures = AGAIN_S, 0
                age_s = USUAL_AGE_S if published.max_age_s is None else published.max_age_s
                fresh_until = now + min(LONGEST_AGE_S, max(SHORTEST_AGE_S, age_s))
                self._held = _Held(published, fresh_until, fresh_until + STALE_S)
            self._not_before = now + wait_s
            self._flight = None
        flight.landed.set()
