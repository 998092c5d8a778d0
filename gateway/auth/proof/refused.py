"""What a client hears that did not prove who it is (RFC 6749, section 5.2)."""

from __future__ import annotations

from authlib.oauth2.rfc6749.errors import InvalidClientError


class ClientRefused(InvalidClientError):  # type: ignore[misc]
    """The client is unknown, its proof wrong, or it may not come in: the answer does not say which.

    Args:
        why: what is wrong with the form of the proof; nothing that only who knows the client could say.
        reason: a stable code for the audit entry, which may say more than the answer.
        is_counted: it counts as a failed attempt.
    """

    def __init__(self, why: str = "", *, reason: str = "INVALID_CLIENT", is_counted: bool = True) -> None:
        super().__init__(
            why or "The client id or its secret is wrong, or the client is suspended", status_code=401
        )
        self.reason = reason
        self.is_counted = is_counted

    def get_headers(self) -> list[tuple[str, str]]:
        """The JSON headers and the challenge."""
        plain = [pair for pair in super().get_headers() if pair[0] != "WWW-Authenticate"]
        return [*plain, ("WWW-Authenticate", 'Basic realm="fl-gateway", charset="UTF-8"')]
