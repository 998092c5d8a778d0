"""Why a request may be refused: the grounds of Art. 11, 12 and 17(3), as codes that stay the same."""

from __future__ import annotations

from enum import StrEnum

from compliance.errors import BadRefusal


class Refusal(StrEnum):
    """The ground of a refusal; the person is told it, and the way to the supervisory authority (Art. 12(4))."""

    NOT_IDENTIFIED = "not_identified"
    """The person did not show who they are, though they were asked to (Art. 12(6))."""
    NOT_IDENTIFIABLE = "not_identifiable"
    """The controller can show that it cannot tell whose data it is (Art. 11(2), 12(2))."""
    MANIFESTLY_UNFOUNDED = "manifestly_unfounded"
    """Nobody could think that it has a ground (Art. 12(5))."""
    EXCESSIVE = "excessive"
    """It is repeated without reason (Art. 12(5))."""
    EXEMPT = "exempt"
    """The data must be kept; the letter of Art. 17(3) says for what."""
    THIRD_PARTY_RIGHTS = "third_party_rights"
    """The answer would harm the rights of others (Art. 15(4), 20(4))."""
    NOT_COVERED = "not_covered"
    """The right does not reach this data or this processing."""


class Exemption(StrEnum):
    """The letters of Art. 17(3): for what data may be kept though its erasure is asked for."""

    EXPRESSION = "a"
    """Freedom of expression and information."""
    LEGAL_DUTY = "b"
    """A legal obligation, or a task in the public interest."""
    PUBLIC_HEALTH = "c"
    """Public interest in the area of public health."""
    ARCHIVE = "d"
    """Archiving in the public interest, research, statistics."""
    LEGAL_CLAIMS = "e"
    """Establishing, exercising or defending legal claims."""


def check_refusal(reason: Refusal, exemption: Exemption | None, *, is_erasure: bool) -> None:
    """Let through a ground that is whole: `exempt` names its letter, and is for erasures alone.

    Raises:
        BadRefusal: a letter is missing, or stands where none belongs.
    """
    if reason is Refusal.EXEMPT and not is_erasure:
        raise BadRefusal("only an erasure can be exempt under Art. 17(3): choose another ground")
    if (reason is Refusal.EXEMPT) != (exemption is not None):
        raise BadRefusal("`exempt`, and no other ground, names a letter of Art. 17(3), a to e")
