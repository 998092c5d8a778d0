"""What stands in a path: what cannot be the name of anything is not found, and no database is asked for it."""

from __future__ import annotations

import re

from gateway.errors import NotFound

VERSION = r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$"
_LARGEST_NUMBER = (1 << 31) - 1  # of an integer column


def insist_version(text: str) -> str:
    """The text, if it has the form of a model version.

    Raises:
        NotFound: it has not.
    """
    if not re.fullmatch(VERSION, text):
        raise NotFound("There is no such model version")
    return text


def insist_number(number: int) -> int:
    """The number, if a round or an entry can have it.

    Raises:
        NotFound: it is too large.
    """
    if number > _LARGEST_NUMBER:
        raise NotFound("There is no object with so large a number")
    return number
