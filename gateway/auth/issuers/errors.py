"""What can be wrong between this gateway and an issuer outside of it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import Busy


class IssuerAway(Busy):
    """The issuer of a token does not answer, so that nobody can say whether the token is good."""

    code, title = "ISSUER_AWAY", "The issuer of the token does not answer: try again later"

    @property
    def headers(self) -> Mapping[str, str]:
        """When to come again."""
        return {"Retry-After": "5"}


class ExchangeFailed(Exception):
    """An exchange with an issuer came to no good end; `why` repeats nothing that was sent or received.

    `is_answer`: it did answer, but with something else than was asked for.
    """

    def __init__(self, why: str, *, is_answer: bool = False) -> None:
        super().__init__(why)
        self.why, self.is_answer = why, is_answer
