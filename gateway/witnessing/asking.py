"""One witness asked: C2SP tlog-witness `add-checkpoint`, with the proof from the tree that it cosigned last.

A witness is somebody else's: nothing that it answers is believed but a cosignature that verifies, and what it may
make us do is bounded. Its refusal of our log is told all the same: it is the alarm that witnesses are for.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from audit.checkpoint import parse_note
from audit.errors import BadNote
from audit.reading import reading
from audit.store import StoredCheckpoint, add_cosignature, last_cosigned, newest_checkpoint
from audit.tree import consistency
from audit.witness.submission import PATH, Submission
from gateway.witnessing.addresses import WitnessAddress
from gateway.witnessing.cutting import Cutter

TIMEOUT_S = 5.0
_ANSWER_S = 15.0  # the answer as a whole
_MOST_BYTES = 64 << 10
_TRIES = 4  # another gateway may ask at the same time
_SIZE = re.compile(r"(0|[1-9][0-9]{0,14})\n?")  # no log has more, and no entry can hold a longer number


class Standing(StrEnum):
    """How a witness stands to our log."""

    COSIGNED = "cosigned"
    """It cosigned the newest checkpoint, or did so before."""
    AWAY = "away"
    """It does not answer, or not sensibly; it is asked again."""
    UNWILLING = "unwilling"
    """It does not follow this log, or knows it by another key: its operator must tell it (`--log`)."""
    REFUSED = "refused"
    """It says that our log is not the continuation of what it cosigned."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of asking; `reason` is in our words, `known_size` what the witness says to have cosigned."""

    standing: Standing
    reason: str = ""
    size: int = 0
    known_size: int | None = None


class Asker:
    """Asks one witness.

    Args:
        engine: the main database.
        writer: the same as a role that may write cosignatures (RULES 24).
        witness: whom.
        clock: when a cosignature came.
    """

    def __init__(
        self, engine: Engine, writer: Engine, witness: WitnessAddress, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._witness = witness
        self._clock = clock
        import httpx  # it takes its time to load, and not every gateway has a witness

        self._client = httpx.Client(
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
            verify=ssl.create_default_context(),
            headers={
                "User-Agent": "fl-gateway",
                "Content-Type": "text/plain; charset=utf-8",
                "Accept-Encoding": "identity",
            },
        )
        self._cutter = Cutter()
        self._cosigned: int | None = None
        self._has_asked = False

    def ask(self) -> Finding:
        """Have the newest checkpoint cosigned, unless it is; the first time in any case.

        A witness that was asked before this process began may know more than this log has.
        """
        old, newest = self._last_cosigned(), self._newest()
        if newest is None or (self._has_asked and newest.size <= old):
            return Finding(Standing.COSIGNED, size=old)
        for _ in range(_TRIES):
            if old > newest.size:
                return _refused("it cosigned a larger tree than this log has", newest, old)
            status, text = self._send(self._submission(old, newest))
            if status == 200:
                return self._kept(newest, text)
            known = _known_size(status, text)
            if known is None or known == old == newest.size:
                return _finding(status, text, newest, old)
            old, newest = known, self._newest() or newest  # another gateway may have signed what it knows
        return Finding(Standing.AWAY, "it tells another size each time", newest.size)

    def knock(self) -> Finding | None:
        """Whether the witness is there and follows this log: None if so.

        It is sent what it must refuse, an old size beyond the checkpoint, so that it cosigns nothing; a witness that
        compares with what it knows first answers 409.
        """
        newest = self._newest() or StoredCheckpoint(0, b"", "")
        status, text = self._send(Submission(newest.size + 1, (), newest.note))
        return None if status in (400, 409) else _finding(status, text, newest, newest.size)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _last_cosigned(self) -> int:
        if self._cosigned is None:
            with reading(self._engine) as conn:
                self._cosigned = last_cosigned(conn, self._witness.name) or 0
        return self._cosigned

    def _newest(self) -> StoredCheckpoint | None:
        with reading(self._engine) as conn:
            return newest_checkpoint(conn, cosigned=False)

    def _submission(self, old: int, newest: StoredCheckpoint) -> Submission:
        with reading(self._engine) as conn:
            return Submission(old, tuple(consistency(conn, old, newest.size)), newest.note)

    def _send(self, submission: Submission) -> tuple[int, str]:
        """The status and the body of the answer; status 0 and the kind of trouble if there is none."""
        import httpx

        url, heard = self._witness.url + PATH, {"trace": self._cutter.hear}
        try:
            with (
                self._cutter.within(_ANSWER_S),
                self._client.stream("POST", url, content=submission.body(), extensions=heard) as answer,
            ):
                body = b""
                for part in answer.iter_raw():  # as it came: nothing small grows large here
                    body += part
                    if len(body) > _MOST_BYTES:
                        return 0, "its answer has no end"
                return answer.status_code, body.decode("utf-8", "replace")
        except httpx.HTTPError as error:
            late = "in time" if self._cutter.is_late else f"({type(error).__name__})"
            return 0, f"it does not answer {late}"

    def _kept(self, newest: StoredCheckpoint, text: str) -> Finding:
        try:
            line = self._witness.verifier.pick(parse_note(newest.note).text, text)
        except BadNote as error:
            return Finding(Standing.AWAY, f"its answer cannot be used: {error}", newest.size)
        try:
            with self._writer.begin() as conn:
                add_cosignature(conn, newest.size, self._witness.name, line, self._clock())
        except IntegrityError:
            pass  # another gateway was faster with the same
        self._cosigned, self._has_asked = newest.size, True
        return Finding(Standing.COSIGNED, size=newest.size)


def _known_size(status: int, text: str) -> int | None:
    found = _SIZE.fullmatch(text) if status == 409 else None
    return int(found[1]) if found else None


def _finding(status: int, text: str, newest: StoredCheckpoint, old: int) -> Finding:
    match status:
        case 409 if old == newest.size:  # what it knows is told for another old size alone
            return _refused("it cosigned another tree of this size", newest, old)
        case 422:
            return _refused("this log is no continuation of the tree that it cosigned", newest, old)
        case 403 | 404:
            return Finding(
                Standing.UNWILLING, f"it does not know this log or its key ({status})", newest.size
            )
        case 0:
            return Finding(Standing.AWAY, text, newest.size)
    return Finding(Standing.AWAY, f"it answers {status}", newest.size)


def _refused(reason: str, newest: StoredCheckpoint, known_size: int) -> Finding:
    return Finding(Standing.REFUSED, reason, newest.size, known_size)
