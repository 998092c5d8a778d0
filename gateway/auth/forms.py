"""The requests of the authorization server: parameters in a form, or in the URL that a browser was sent to."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from authlib.oauth2.rfc6749 import OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from flask import Request, request

from gateway.auth.transport import check_transport
from gateway.errors import PayloadTooLarge

LONGEST_FORM_BYTES = 16_384
_FORM = "application/x-www-form-urlencoded"
_SECRETS = (
    "client_secret",
    "client_assertion",
    "client_id",
    "token",
    "code",
    "code_verifier",
    "refresh_token",
)


def limit_form() -> None:
    """Read no form that is longer than one of ours can be.

    Raises:
        PayloadTooLarge: it is.
    """
    request.max_content_length = LONGEST_FORM_BYTES
    announced = request.content_length or 0
    if announced > LONGEST_FORM_BYTES or _is_chunked_and_long():
        raise PayloadTooLarge(f"A form may have {LONGEST_FORM_BYTES} bytes")


def _is_chunked_and_long() -> bool:
    """Whether a form without a length fills the room for one: werkzeug would cut it there unseen."""
    is_chunked = request.content_length is None and "Transfer-Encoding" in request.headers
    return is_chunked and len(request.get_data()) >= LONGEST_FORM_BYTES


class FormPayload(OAuth2Payload):  # type: ignore[misc]
    """The parameters of the form alone: what stands in the URL is in every access log."""

    def __init__(self, source: Request) -> None:
        self._source = source

    @property
    def data(self) -> Any:
        """The parameters."""
        return self._source.form

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        """The parameters with all their values."""
        return defaultdict(list, {name: list(values) for name, values in self.data.lists()})


class FormRequest(OAuth2Request):  # type: ignore[misc]
    """A request with form parameters, each given once (RFC 6749, section 3.2)."""

    def __init__(self, source: Request) -> None:
        check_transport()  # our rule, since Authlib's goes by the URL that is left behind nginx
        super().__init__(source.method, f"https://gateway{source.path}", headers=source.headers)
        if source.mimetype != _FORM:
            raise InvalidRequestError(f"Send the parameters as {_FORM}")
        if any(name in source.args for name in _SECRETS):
            raise InvalidRequestError("Send the parameters in the form, never in the URL")
        self._source = source
        self.payload = FormPayload(source)
        if any(len(values) > 1 for values in self.payload.datalist.values()):
            raise InvalidRequestError("A parameter is given twice")

    @property
    def form(self) -> Any:
        """The parameters."""
        return self._source.form

    @property
    def args(self) -> Any:
        """The URL's parameters."""
        return self._source.args


class PagePayload(FormPayload):
    """The parameters of an authorization request: in the URL at first, in the form that answers it."""

    @property
    def data(self) -> Any:
        """The parameters."""
        return self._source.args if self._source.method == "GET" else self._source.form


class PageRequest(OAuth2Request):  # type: ignore[misc]
    """A person's browser at the authorization endpoint (RFC 6749, section 3.1)."""

    def __init__(self, source: Request) -> None:
        check_transport()
        super().__init__(source.method, f"https://gateway{source.path}", headers=source.headers)
        self.payload = PagePayload(source)
