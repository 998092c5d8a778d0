"""Authorization requests that are refused: shown to the person, or sent back to the tool; and where codes may go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from consent import CALLBACK, CHALLENGE, Tool, add_somebody, add_tool, answer_of, ask, sign_in
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from gateway.app import create_app
from gateway.auth.grants.code import challenge_of
from gateway.auth.redirects import BadRedirectUri, check_registrable, form_source, is_registered, with_answer
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import MEANINGS, Scope
from gateway.cli.opening import prepared_services
from gateway.config import Config
from gateway.services import Services

ISSUER = "http://localhost"


@pytest.fixture(scope="module")
def quick_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Stores that the tables of refusals share: they change nothing."""
    home: Path = tmp_path_factory.mktemp("refusals")
    config = Config(
        database_url=f"sqlite:///{home / 'fl-gateway.db'}",
        keystore_url=f"sqlite:///{home / 'keys' / 'subjects.db'}",
        blob_url=f"file:{home / 'blobs'}",
        state_url=f"file:{home / 'keys' / 'state'}",
        master_key="5a" * 32,
        siem_sinks="",
    )
    services = prepared_services(config, part="console")
    yield services
    services.close()


@pytest.fixture(scope="module")
def quick_app(quick_services: Services) -> Iterator[Flask]:
    """The application on them."""
    app = create_app(quick_services)
    yield app
    close_refusals(app)


@pytest.fixture(scope="module")
def quick(quick_app: Flask, quick_services: Services) -> FlaskClient:
    """A browser in which an auditor has signed in."""
    http = quick_app.test_client()
    sign_in(http, quick_services, add_somebody(quick_services))
    return http


@pytest.fixture(scope="module")
def quick_tool(quick_services: Services) -> Tool:
    """A third-party tool there."""
    return add_tool(quick_services)


@pytest.mark.parametrize("redirect_uri", [CALLBACK, "https://evil.example/"])
def test_head_is_answered_as_get_is(quick: FlaskClient, quick_tool: Tool, redirect_uri: str) -> None:
    """RFC 9110, section 9.3.2: who only looks gets the same answer without its body."""
    wish = quick_tool.wish(redirect_uri=redirect_uri)

    got, looked = (ask_by("/oauth/authorize", query_string=wish) for ask_by in (quick.get, quick.head))

    assert looked.status_code == got.status_code
    assert looked.content_type == got.content_type
    assert looked.data == b""


BEFORE_THE_URI_IS_TRUSTED = {
    "no client": {"client_id": None},
    "an unknown client": {"client_id": "8a3f3a64-0000-4000-8000-000000000000"},
    "no client id at all": {"client_id": "nobody"},
    "no redirect URI": {"redirect_uri": None},
    "an empty redirect URI": {"redirect_uri": ""},
    "another path": {"redirect_uri": f"{CALLBACK}/more"},
    "another case": {"redirect_uri": CALLBACK.replace("tool", "TOOL")},
    "another query": {"redirect_uri": f"{CALLBACK}?x=1"},
    "a port": {"redirect_uri": CALLBACK.replace(".example", ".example:8443")},
    "a fragment": {"redirect_uri": f"{CALLBACK}#x"},
    "another scheme": {"redirect_uri": CALLBACK.replace("https", "http")},
    "a user before the host": {"redirect_uri": CALLBACK.replace("//", "//tool.example@evil.example")},
    "an upward path": {"redirect_uri": f"{CALLBACK}/../callback"},
    "a quote in it": {"redirect_uri": f'{CALLBACK}"'},
}


@pytest.mark.parametrize("changes", BEFORE_THE_URI_IS_TRUSTED.values(), ids=BEFORE_THE_URI_IS_TRUSTED)
def test_a_request_that_cannot_be_trusted_is_shown_and_never_sent_on(
    quick: FlaskClient, quick_tool: Tool, changes: dict[str, str | None]
) -> None:
    """RFC 6749, 4.1.2.1; RFC 9700, 2.1 and 4.11: exact redirect URIs, and no open redirector."""
    answered = ask(quick, quick_tool, **changes)

    assert answered.status_code == 400
    assert answered.mimetype == "text/html"
    assert "Location" not in answered.headers


SENT_BACK = {
    "no response type": ({"response_type": None}, "invalid_request"),
    "the implicit grant": ({"response_type": "token"}, "unsupported_response_type"),
    "a hybrid": ({"response_type": "code token"}, "unsupported_response_type"),
    "OpenID": ({"response_type": "code id_token"}, "unsupported_response_type"),
    "another response mode": ({"response_mode": "fragment"}, "invalid_request"),
    "no challenge": ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    "an empty challenge": ({"code_challenge": ""}, "invalid_request"),
    "no method, which means plain": ({"code_challenge_method": None}, "invalid_request"),
    "plain": ({"code_challenge_method": "plain"}, "invalid_request"),
    "a method in small letters": ({"code_challenge_method": "s256"}, "invalid_request"),
    "a short challenge": ({"code_challenge": CHALLENGE[:-1]}, "invalid_request"),
    "a long challenge": ({"code_challenge": CHALLENGE + "A"}, "invalid_request"),
    "a padded challenge": ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
    "a challenge with a line end": ({"code_challenge": CHALLENGE + "\n"}, "invalid_request"),
    "an unknown scope": ({"scope": "openid"}, "invalid_scope"),
    "a scope beyond the client's role": ({"scope": "audit:read client:manage"}, "invalid_scope"),
    "a state that is no text": ({"state": "a\nb"}, "invalid_request"),
}


@pytest.mark.parametrize(("changes", "error"), SENT_BACK.values(), ids=SENT_BACK)
def test_an_error_goes_back_to_the_tool(
    quick: FlaskClient, quick_tool: Tool, changes: dict[str, str | None], error: str
) -> None:
    """RFC 6749, 4.1.2.1; RFC 7636, 4.4.1; RFC 9207, 2: error, description, state, iss."""
    answered = ask(quick, quick_tool, **changes)
    told = answer_of(answered)

    assert answered.status_code == 303
    assert answered.location.startswith(f"{CALLBACK}?error=")
    state = {"state": "the tool's state"} if "state" not in changes else {}
    assert told == {"error": error, "error_description": told["error_description"], **state, "iss": ISSUER}


def test_a_link_to_the_gateway_leads_no_stranger_elsewhere(quick_app: Flask, quick_tool: Tool) -> None:
    """RFC 9700, 4.11.2: no redirect before somebody has signed in; the page says where a click would lead."""
    answered = ask(quick_app.test_client(), quick_tool, scope="openid", state='"><b>')

    assert (answered.status_code, answered.mimetype) == (400, "text/html")
    assert "Location" not in answered.headers
    assert f"<code>{CALLBACK}</code>" in answered.text
    assert f'href="{CALLBACK}?error=invalid_scope&amp;' in answered.text
    assert "<b>" not in answered.text


@pytest.mark.parametrize("path", ["/oauth/authorize", "/console/"])
def test_a_database_that_is_away_is_a_page_too(
    quick: FlaskClient, quick_services: Services, quick_tool: Tool, path: str
) -> None:
    """A person reads no JSON: 503, with when to come again; nothing of the outage is told."""

    def fail(*_: object) -> None:
        raise OperationalError("SELECT 1", None, Exception("connection to 10.0.0.7 refused"))

    event.listen(quick_services.engine, "before_cursor_execute", fail)
    try:
        answered = quick.get(path, query_string=quick_tool.wish())
    finally:
        event.remove(quick_services.engine, "before_cursor_execute", fail)

    assert (answered.status_code, answered.mimetype) == (503, "text/html")
    assert "Retry-After" in answered.headers
    assert "10.0.0.7" not in answered.text
    assert answered.headers["X-Frame-Options"] == "DENY"


def test_a_method_that_is_not_taken_is_a_page(quick: FlaskClient) -> None:
    """RFC 9110, 15.5.6, at the address that people are sent to."""
    answered = quick.delete("/oauth/authorize")

    assert (answered.status_code, answered.mimetype) == (405, "text/html")
    assert "GET" in answered.headers["Allow"]


@pytest.mark.parametrize(
    "name", ["response_type", "scope", "state", "code_challenge", "code_challenge_method", "resource"]
)
def test_a_parameter_is_taken_once(quick: FlaskClient, quick_tool: Tool, name: str) -> None:
    """RFC 6749, 3.1: request parameters must not be included more than once."""
    pairs = [*quick_tool.wish(scope="audit:read", resource="x").items()]
    pairs.append((name, dict(pairs)[name]))

    answered = quick.get("/oauth/authorize", query_string=pairs)

    assert answer_of(answered)["error"] == "invalid_request"
    assert ("state" in answer_of(answered)) == (name != "state")


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
def test_two_clients_or_two_places_are_trusted_in_nothing(
    quick: FlaskClient, quick_tool: Tool, name: str
) -> None:
    """RFC 6749, 3.1: which of them would the answer go to?"""
    pairs = [*quick_tool.wish().items(), (name, quick_tool.wish()[name])]

    answered = quick.get("/oauth/authorize", query_string=pairs)

    assert answered.status_code == 400
    assert "Location" not in answered.headers


def test_the_challenge_is_that_of_the_standard() -> None:
    """RFC 7636, appendix B."""
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == (
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


@pytest.mark.parametrize(
    ("known", "asked", "is_same"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb", True),
        ("http://127.0.0.1:8000/cb", "http://127.0.0.1/cb", True),
        ("http://[::1]/cb?a=1", "http://[::1]:49152/cb?a=1", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/other", False),
        ("http://127.0.0.1/cb", "http://[::1]:49152/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152@evil.example/cb", False),
        ("http://127.0.0.1", "http://127.0.0.1.evil.example/", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", False),
        ("https://127.0.0.1/cb", "https://127.0.0.1:49152/cb", False),
        ("https://tool.example/cb", "https://tool.example:443/cb", False),
    ],
)
def test_redirect_uris_are_compared_whole_but_for_a_loopback_port(
    known: str, asked: str, is_same: bool
) -> None:
    """RFC 9700, 2.1; RFC 8252, 7.3."""
    assert is_registered(asked, [known]) is is_same


@pytest.mark.parametrize(
    "uri",
    [
        "https://tool.example/cb#part",
        "https://user@tool.example/cb",
        "http://tool.example/cb",
        "http://localhost/cb",
        "http://127.0.0.1.evil.example/",
        "com.example.tool:/cb",
        "javascript:alert(1)",
        "https://",
        "https:///cb",
        "https://tool.example:0/",
        "https://tool.example:x/",
        "https://tool.example/a b",
        "https://tool.example;evil/",
        "https://*.example/",
        "/cb",
        "",
        "https://tool.example/" + "x" * 2048,
    ],
)
def test_what_no_code_may_be_sent_to_is_not_registered(uri: str) -> None:
    """RFC 6749, 3.1.2: absolute, no fragment; https, or a loopback address."""
    with pytest.raises(BadRedirectUri):
        check_registrable(uri)


def test_an_answer_joins_the_query_that_is_there() -> None:
    """RFC 6749, 3.1.2: the query of a registered URI is kept as it is."""
    assert with_answer("https://a.example/cb", {"code": "a b&c"}) == "https://a.example/cb?code=a%20b%26c"
    assert with_answer("https://a.example/cb?x=%7e", {"code": "1"}) == "https://a.example/cb?x=%7e&code=1"
    assert form_source("https://a.example:8443/cb") == "https://a.example:8443"
    assert form_source("http://[::1]:80/cb") == "http:"


def test_every_scope_has_words_for_people() -> None:
    """The consent page says in plain words what is asked."""
    assert set(MEANINGS) == set(Scope)
