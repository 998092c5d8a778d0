"""An HTTP server of a SIEM: one request at a time, with a deadline, a limit on the answer, and no word of a secret."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.siem.errors import SinkDown
from audit.siem.tls import TlsFiles, words_of

if TYPE_CHECKING:
    import httpx  # takes its time to load, and not every sink speaks HTTP

_LONGEST_ANSWER = 8 << 20
_LATE = "it did not answer in time"
_SECRET = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; `content` is its JSON, an empty object where there is none."""

    status: int
    content: Mapping[str, Any]
    retry_after_s: float | None


@dataclass(slots=True)
class Endpoint:
    """Where a sink posts to.

    Args:
        name: the sink's, for what is told about it.
        url: scheme, host, port and the path before all others.
        scheme: of the header Authorization.
        secret_file: holds what stands behind the scheme; empty: no such header. Read anew for each request.
        tls: the files of https.
        timeout_s: for a whole exchange; connecting and silence have the same limit.
    """

    name: str
    url: str
    scheme: str
    secret_file: str = ""
    tls: TlsFiles = field(default_factory=TlsFiles)
    timeout_s: float = 30.0
    _client: httpx.Client | None = None
    _socket: socket.socket | None = None

    def post(self, path: str, body: bytes, kind: str, **headers: str) -> Answer:
        """Post a body and read the answer.

        Args:
            path: behind the URL.
            body: the bytes.
            kind: their media type.
            headers: more of them, with `_` for `-`.

        Raises:
            SinkDown: no whole answer came in time.
        """
        sent = {"Content-Type": kind, **self._authorization()}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self._exchange("POST", path, sent, body)

    def reach(self, path: str) -> None:
        """See that the server answers at all, whatever it says."""
        self._exchange("GET", path, self._authorization(), b"")

    def close(self) -> None:
        """Close its connections."""
        if self._client:
            self._client.close()
            self._client = None

    def _exchange(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        import httpx

        deadline = time.monotonic() + self.timeout_s
        client = self._client = self._client or self._open()
        watch = {"trace": self._watch}
        end = threading.Timer(
            self.timeout_s, self._shut
        )  # httpx limits each silence, not all of them together
        end.daemon = True  # nothing waits for it when the process ends
        end.start()
        try:
            with client.stream(
                method, self.url + path, content=body, headers=headers, extensions=watch
            ) as answer:
                content = self._read(answer, deadline)
        except httpx.HTTPError as error:
            self.close()  # the next exchange reads the files anew
            why = _LATE if time.monotonic() >= deadline else _words(error)
            raise SinkDown(self.name, why) from None  # the cause holds the secret
        finally:
            end.cancel()
        return Answer(answer.status_code, _parsed(content), _retry_after_s(answer.headers))

    def _read(self, answer: httpx.Response, deadline: float) -> bytes:
        parts, length = [], 0
        for part in answer.iter_raw():
            parts.append(part)
            length += len(part)
            if length > _LONGEST_ANSWER:
                raise SinkDown(self.name, "its answer is endless")
            if time.monotonic() > deadline:
                raise SinkDown(self.name, _LATE)
        return b"".join(parts)

    def _watch(self, event: str, told: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = told["return_value"].get_extra_info("socket")

    def _shut(self) -> None:
        """End the connection under a request that waits for it; TLS need not be ended in order."""
        with suppress(OSError):  # it has ended already
            if self._socket:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _open(self) -> httpx.Client:
        import httpx

        verify = self.tls.context(self.name) if self.url.startswith("https:") else True
        plain = {"Accept-Encoding": "identity", "User-Agent": "fl-gateway"}
        return httpx.Client(
            timeout=self.timeout_s, verify=verify, headers=plain, trust_env=False, follow_redirects=False
        )

    def _authorization(self) -> dict[str, str]:
        if not self.secret_file:
            return {}
        try:
            secret = Path(self.secret_file).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise SinkDown(self.name, "its secret_file cannot be read") from None
        if not _SECRET.fullmatch(secret):
            raise SinkDown(self.name, "its secret_file must hold one line without blanks") from None
        return {"Authorization": f"{self.scheme} {secret}"}


def _words(error: httpx.HTTPError) -> str:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return _LATE
    cause: BaseException | None = error
    while cause := cause and (cause.__cause__ or cause.__context__):
        if isinstance(cause, OSError):
            return words_of(cause)
    return "it ended the connection without a whole answer"


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds, or a time beside the answer's own Date (RFC 9110, 10.2.3)."""
    said = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", said):
        return float(said)
    try:
        until, now = parsedate_to_datetime(said), parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, OverflowError):
        return None
    wait_s = (
        until.replace(tzinfo=until.tzinfo or UTC) - now.replace(tzinfo=now.tzinfo or UTC)
    ).total_seconds()
    return max(0.0, wait_s)
