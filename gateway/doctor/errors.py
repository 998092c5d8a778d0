"""What the doctor finds wrong."""

from __future__ import annotations


class Ailing(Exception):
    """A setting or a store needs a hand; the text says which. It answers no request, and has no code."""


class Risky(Exception):
    """All works, and is less safe than it could be; the text says what to do. It fails no examination."""


class Passed(Exception):
    """Nothing was looked at, because of something that another check tells."""
