"""The Authorization header as a whole: whether it holds one credential, or several that a server has joined."""

from __future__ import annotations

import re

_WITHOUT_COMMAS = ("basic", "bearer")  # schemes whose credentials never have one; Digest's have
_BEHIND_A_COMMA = re.compile(rf",\s*(?:{'|'.join(_WITHOUT_COMMAS)})(?:\s|$)", re.IGNORECASE)


def are_several(header: str) -> bool:
    """Whether there was more than one header: servers join them with commas (RFC 9110, section 5.3)."""
    if "," not in header:
        return False
    scheme = header.partition(" ")[0].lower()
    return scheme in _WITHOUT_COMMAS or _BEHIND_A_COMMA.search(header) is not None
