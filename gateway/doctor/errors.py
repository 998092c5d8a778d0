"""What the doctor finds wrong."""

from __future__ import annotations


class Ailing(Exception):
    """A setting or a store needs a hand; the text says which. It answers no request, and has no code."""
