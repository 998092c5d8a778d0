"""What is sent to `add-checkpoint`: from which size on, the proof, and the checkpoint (C2SP tlog-witness)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass

from audit.merkle import HASH_BYTES
from audit.witness.errors import BadSubmission

PATH = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
MAX_PROOF_LINES = 63
_OLD = re.compile(r"old (0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint with the proof that it continues the tree of `old` entries; nothing in it is verified."""

    old: int
    proof: tuple[bytes, ...]
    note: str

    def body(self) -> bytes:
        """The request's body."""
        hashes = "".join(f"{b64encode(step).decode()}\n" for step in self.proof)
        return f"old {self.old}\n{hashes}\n{self.note}".encode()


def parse_submission(body: bytes) -> Submission:
    """Take a request's body apart; raises BadSubmission."""
    try:
        head, separator, note = body.decode().partition("\n\n")
    except UnicodeDecodeError:
        raise BadSubmission("the body is not UTF-8") from None
    first, *lines = head.split("\n")
    old = _OLD.fullmatch(first)
    if not separator or old is None:
        raise BadSubmission("a body reads: `old` and a size, proof lines, an empty line, a checkpoint")
    if len(lines) > MAX_PROOF_LINES:
        raise BadSubmission(f"a proof has at most {MAX_PROOF_LINES} lines")
    return Submission(int(old[1]), tuple(map(_hash, lines)), note)


def _hash(line: str) -> bytes:
    try:
        step = b64decode(line, validate=True)
    except (Base64Error, ValueError):
        step = b""
    if len(step) != HASH_BYTES or b64encode(step).decode() != line:
        raise BadSubmission("a proof line is 32 bytes in base64")
    return step
