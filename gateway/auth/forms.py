"""Forms, and the authorization server's requests: parameters in a form, or in the URL that a browser was sent to."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from urllib.parse import unquote_to_bytes

from authlib.oauth2.rfc6749 import OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from flask import Request, request

from gateway.auth.transport import check_transport
from gateway.errors import BadRequest, PayloadTooLarge

LONGEST_FORM_BYTES = 16_384
_FORM = "application/x-www-form-urlencoded"
_IN_THE_FORM_ALONE = frozenset(
    {
        "access_token",
        "assertion",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_verifier",
        "grant_type",
        "password",
        "redirect_uri",
        "refresh_token",
        "scope",
        "token",
        "token_type_hint",
    }
)


class NotText(BadRequest):
    """A parameter that is no UTF-8: werkzeug would hand on another text in its place."""

    code, title = "INVALID_REQUEST", "A parameter is not UTF-8"

    def __init__(self) -> None:
        super().__init__("Encode each parameter as UTF-8 before it is percent-encoded (RFC 6749, appendix B)")


class NotAForm(BadRequest):
    """A form in parts: none of ours is one, and each part would have an encoding of its own."""

    code, title = "INVALID_REQUEST", "The form cannot be read"

    def __init__(self) -> None:
        super().__init__(f"Send the parameters as {_FORM}")


def check_form() -> None:
    """Read no form that is longer than one of ours can be or comes in parts, and none, nor a query, that is not text.

    Raises:
        PayloadTooLarge: it is too long.
        NotAForm: it comes in parts.
        NotText: a parameter is not UTF-8.
    """
    request.max_content_length = LONGEST_FORM_BYTES
    announced = request.content_length or 0
    if announced > LONGEST_FORM_BYTES or _is_chunked_and_long():
        raise PayloadTooLarge(f"A form may have {LONGEST_FORM_BYTES} bytes")
    if request.mimetype == "multipart/form-data":
        raise NotAForm
    if not _is_text(request.query_string) or (request.mimetype == _FORM and not _is_text(request.get_data())):
        raise NotText


def _is_text(encoded: bytes) -> bool:
    try:
        unquote_to_bytes(encoded.decode()).decode()  # half a letter raw and half of it escaped is none
    except UnicodeDecodeError:
        return False
    return True


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
        if not _IN_THE_FORM_ALONE.isdisjoint(source.args):
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
        return self._source.form if self._source.method == "POST" else self._source.args


class PageRequest(OAuth2Request):  # type: ignore[misc]
    """A person's browser at the authorization endpoint (RFC 6749, section 3.1)."""

    def __init__(self, source: Request) -> None:
        check_transport()
        super().__init__(source.method, f"https://gateway{source.path}", headers=source.headers)
        self.payload = PagePayload(source)
