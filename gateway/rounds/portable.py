"""Which JSON values every database keeps and every JSON reader takes; the others are refused at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

DEEPEST = 64
WHAT = f"must be JSON of at most {DEEPEST} levels, without NUL characters, lone surrogates, NaN or infinities"


def is_portable(value: Any, *, levels: int = DEEPEST) -> bool:
    """Whether the parsed JSON value can be sealed, stored in PostgreSQL, and read by any client."""
    match value:
        case str():
            return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value)
        case float():
            return math.isfinite(value)
        case list():
            return levels > 0 and all(is_portable(item, levels=levels - 1) for item in value)
        case Mapping():
            parts = (part for pair in value.items() for part in pair)
            return levels > 0 and all(is_portable(part, levels=levels - 1) for part in parts)
        case _:
            return True
