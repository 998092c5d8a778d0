"""The form of a token request, whoever sends it: how it is written, which grant and which scope it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from refused.case import ACCESS_REFUSED, Ask, Case
from refused.scene import GRANT, TOKEN, Scene


def malformed(of: Callable[[Scene], Ask], section: str = "RFC 6749, 5.2", **more: Any) -> Case:
    return Case(section, 400, "invalid_request", of, **more)


def with_form(**form: Any) -> Callable[[Scene], Ask]:
    """A request of a good client with a good secret, and these parameters."""
    return lambda scene: scene.ask_token(scene.client(), **form)


def sent_as(**sent: Any) -> Callable[[Scene], Ask]:
    """A good client's request, sent in another way."""

    def of(scene: Scene) -> Ask:
        good = scene.ask_token(scene.client())
        return Ask(good.method, good.path, good.sent | sent)

    return of


def _in_the_url(scene: Scene) -> Ask:
    new = scene.client()
    named = {"client_id": new.client_id, "client_secret": new.client_secret}
    return scene.ask(TOKEN, GRANT, query_string=named)


def _also_in_the_url(**told: str) -> Callable[[Scene], Ask]:
    """A good request, and this in its URL."""
    return sent_as(query_string=told)


def _written(end: bytes) -> Callable[[Scene], Ask]:
    """A good form, and these very bytes behind it."""
    body = urlencode(GRANT).encode() + end
    return sent_as(data=body, content_type="application/x-www-form-urlencoded")


def _by_get(scene: Scene) -> Ask:
    new = scene.client()
    return Ask("GET", TOKEN, {"query_string": GRANT, "auth": (new.client_id, new.client_secret)})


def _without_grant(scene: Scene) -> Ask:
    new = scene.client()
    return scene.ask(TOKEN, {}, auth=(new.client_id, new.client_secret))


def scope(wish: str) -> Case:
    return Case("RFC 6749, 5.2", 400, "invalid_scope", with_form(scope=wish))


def grant(name: str, section: str = "RFC 6749, 5.2") -> Case:
    of = with_form(grant_type=name, username="nurse", password="canary-of-a-password")
    return Case(section, 400, "unsupported_grant_type", of)


CASES = {
    "GET in place of POST": Case(
        "RFC 6749, 3.2", 405, "invalid_request", _by_get, None, ACCESS_REFUSED, "METHOD_NOT_ALLOWED"
    ),
    "JSON in place of a form": malformed(sent_as(data=None, json=GRANT), "RFC 6749, 4.4.2"),
    "a multipart form": malformed(sent_as(content_type="multipart/form-data"), "RFC 6749, 4.4.2"),
    "a form of 100 kB": Case(
        "RFC 9110, 15.5.14",
        413,
        "invalid_request",
        with_form(scope="x" * 100_000),
        reason="PAYLOAD_TOO_LARGE",
    ),
    "a parameter given twice": malformed(with_form(scope=["model:download"] * 2), "RFC 6749, 3.2"),
    "the secret in the URL": malformed(_in_the_url, "RFC 6749, 2.3.1"),
    "the scope in the URL": malformed(_also_in_the_url(scope="model:download"), "RFC 6749, 3.2"),
    "an access token in the URL of a token request": malformed(
        _also_in_the_url(access_token="flg_token_canary-in-the-url"), "RFC 9700, 4.3.2"
    ),
    "a parameter that is not UTF-8": malformed(_written(b"&scope=canary%FFcanary"), "RFC 6749, appendix B"),
    "half a letter raw, half of it escaped": malformed(
        _written(b"&scope=canary\xc3%A9"), "RFC 6749, appendix B"
    ),
    "a password in the URL of a token request": malformed(
        _also_in_the_url(password="canary-of-a-password"), "RFC 6749, 2.3.1"
    ),
    "a secret over plain http from a network": malformed(
        sent_as(environ_base={"REMOTE_ADDR": "192.0.2.9"}), "RFC 6749, 2.3.1", reason="INSECURE_TRANSPORT"
    ),
    "no grant_type": malformed(_without_grant, "RFC 6749, 4.4.2"),
    "an empty grant_type": malformed(with_form(grant_type=""), "RFC 6749, 3.2"),
    "an unknown grant": grant("urn:example:canary-grant"),
    "the password grant": grant("password", "RFC 9700, 2.4"),
    "the implicit grant at the token endpoint": grant("implicit", "RFC 9700, 2.1.2"),
    "an assertion as a grant": grant("urn:ietf:params:oauth:grant-type:jwt-bearer", "RFC 7523, 2.1"),
    "an unknown scope": scope("canary:scope-of-nobody"),
    "a scope beyond the role": scope("training:participate round:manage"),
    "a wildcard beyond the role": scope("privacy:*"),
    "a number for a scope": scope("7"),
    "a scope with a NUL": scope("model:download\x00"),
    "a scope beyond ASCII": scope("model:downloäd"),
    "a blank for a scope": scope(" "),
    "two blanks between two scopes": scope("training:participate  model:download"),
    "a no-break space between two scopes": scope("training:participate\u00a0model:download"),
    "a tab between two scopes": scope("training:participate\tmodel:download"),
}
