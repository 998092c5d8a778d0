"""Model versions as they stand in routes: what has not the form of one is not found, and asks no database."""

from __future__ import annotations

import re

from gateway.errors import NotFound

VERSION = r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$"


def insist_version(text: str) -> str:
    """The text, if it has the form of a version.

    Raises:
        NotFound: it has not.
    """
    if not re.fullmatch(VERSION, text):
        raise NotFound("There is no such model version")
    return text
