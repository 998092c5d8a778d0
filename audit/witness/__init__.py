"""A witness: a small server of its own that cosigns a log's checkpoints as long as they continue each other.

C2SP tlog-witness. It knows of logs only their public keys, and needs nothing of the gateway: the standard library
and `cryptography` (`python -m audit.witness`). Whoever runs it must not be whoever runs the log.
"""

from __future__ import annotations

from audit.witness.errors import WitnessError
from audit.witness.judging import Witness
from audit.witness.memory import Memory, Refused
from audit.witness.serving import WitnessServer
from audit.witness.submission import Submission, parse_submission

__all__ = [
    "Memory",
    "Refused",
    "Submission",
    "Witness",
    "WitnessError",
    "WitnessServer",
    "parse_submission",
]
