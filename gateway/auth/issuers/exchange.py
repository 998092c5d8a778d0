"""One exchange with an issuer over HTTP: a deadline for all of it, a limit on the answer, no redirect, TLS verified."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.auth.issuers.errors import ExchangeFailed

if TYPE_CHECKING:  # its loading takes a tenth of a second, and most gateways have no outside issuer
    import httpx

LONGEST_ANSWER = 256 << 10
_LATE = "it did not answer in time"
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=\"?(\d{1,9})")
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "fl-gateway"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object, and for how long its sender lets it be kept (RFC 9111), if it says so."""

    content: Mapping[str, Any] = field(repr=False)
    max_age_s: float | None


@dataclass(slots=True)
class Line:
    """A way to one issuer, for one exchange at a time; its connection is kept between them.

    Args:
        ca_file: PEM file of the authorities; empty: the machine's.
        timeout_s: for a whole exchange.
    """

    ca_file: str = ""
    timeout_s: float = 5.0
    _client: httpx.Client | None = None
    _socket: socket.socket | None = None

    def get(self, url: str) -> Answer:
        """Fetch a JSON object. Raises ExchangeFailed."""
        return self._exchange("GET", url, {}, None)

    def post(self, url: str, form: Mapping[str, str], basic: tuple[str, str] | None = None) -> Answer:
        """Send a form, with user and password of HTTP Basic if given, and take a JSON object. Raises ExchangeFailed."""
        return self._exchange("POST", url, dict(form), basic)

    def close(self) -> None:
        """Close the connection."""
        client, self._client, self._socket = self._client, None, None
        if client:
            client.close()

    def _exchange(self, method: str, url: str, form: dict[str, str], basic: tuple[str, str] | None) -> Answer:
        import httpx

        deadline = time.monotonic() + self.timeout_s
        end = threading.Timer(
            self.timeout_s, self._shut
        )  # httpx limits each silence, not all of them together
        end.daemon = True
        try:
            client = self._client = self._client or self._open(url)
            end.start()
            watch = {"trace": self._watch}
            with client.stream(method, url, data=form or None, auth=basic, extensions=watch) as answer:
                content = _read(answer, deadline)
                return _judged(answer, content)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            self.close()
            raise ExchangeFailed(_LATE if time.monotonic() >= deadline else _words(error)) from None
        except ExchangeFailed:
            self.close()
            raise
        finally:
            end.cancel()

    def _watch(self, event: str, told: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = told["return_value"].get_extra_info("socket")

    def _shut(self) -> None:
        """End the connection under a thread that waits for it; TLS need not be ended in order."""
        with suppress(OSError):  # it has ended already
            if self._socket:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _open(self, url: str) -> httpx.Client:
        import httpx

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody: to load authorities takes its time
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=self.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return httpx.Client(
            timeout=self.timeout_s, verify=context, headers=_HEADERS, trust_env=False, follow_redirects=False
        )


def _read(answer: httpx.Response, deadline: float) -> bytes:
    parts, length = [], 0
    for part in answer.iter_raw():
        parts.append(part)
        length += len(part)
        if length > LONGEST_ANSWER:
            raise ExchangeFailed("its answer is too long", is_answer=True)
        if time.monotonic() > deadline:
            raise ExchangeFailed(_LATE)
    return b"".join(parts)


def _judged(answer: httpx.Response, content: bytes) -> Answer:
    if answer.status_code != 200:
        raise ExchangeFailed(f"it answered {answer.status_code}", is_answer=True)
    try:
        told = json.loads(content, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise ExchangeFailed("its answer is no JSON, or has a member twice", is_answer=True) from None
    if not isinstance(told, dict):
        raise ExchangeFailed("its answer is no JSON object", is_answer=True)
    allowed = answer.headers.get("Cache-Control", "").lower()
    age = _MAX_AGE.search(allowed)
    if "no-store" in allowed or "no-cache" in allowed:
        return Answer(told, 0.0)
    return Answer(told, float(age[1]) if age else None)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _words(error: BaseException) -> str:
    """What went wrong, in words that repeat nothing that was sent."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return _LATE
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({cause.verify_message.rstrip('.')})"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        if isinstance(cause, OSError):
            return cause.strerror or "it cannot be reached"
        cause = cause.__cause__ or cause.__context__
    return "it ended the connection without a whole answer"
