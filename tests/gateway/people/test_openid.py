"""Signing in through an outside OpenID provider: a real one, and one that lies (OpenID Connect Core 1.0; RFC 9700)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import RSAKey
from services.clock import FixedClock
from services.ports import free_port
from staff import CHEAP, Browser

from gateway.app import create_app
from gateway.auth.people.accounts import Account, Move, Proofs, add_person, move_person
from gateway.auth.people.cookies import Cookie
from gateway.auth.people.openid import new_asking
from gateway.auth.people.openid_settings import read_provider
from gateway.auth.people.passwords import Passwords
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import Role
from gateway.config import Config
from gateway.console.next_page import LONGEST, read_next
from gateway.errors import ConfigError
from gateway.services import Services

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CLIENT, SECRET = "gateway at fl", "s3cret: of the gateway"  # both need encoding (RFC 6749, section 2.3.1)
ADA = "provider|ada"
RETURN = "/console/sign-in/openid/return"


@pytest.fixture(scope="module")
def real_provider() -> Iterator[str]:
    """The issuer of `oidc-provider-mock`, a process of its own."""
    port = free_port()
    issuer = f"http://localhost:{port}"
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await_provider(issuer, process)
            yield issuer
        finally:
            process.terminate()


def await_provider(issuer: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the provider answers; fail at once if it has ended."""
    for _ in range(300):
        assert process.poll() is None, f"the provider ended with {process.returncode}"
        try:
            httpx.get(f"{issuer}/.well-known/openid-configuration", timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the provider did not answer in time")


@dataclass
class Liar:
    """A provider that answers as a test wishes."""

    issuer: str
    key: RSAKey
    now_s: Callable[[], float]
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    signing_key: Any = None
    answer: dict[str, Any] | None = None
    status: int = 200
    metadata: dict[str, Any] = field(default_factory=dict)
    nonce: str = ""
    asked: list[tuple[dict[str, str], str]] = field(default_factory=list)

    def id_token(self) -> str:
        """An ID token, right but for what the test changed."""
        now_s = int(self.now_s())
        claims = {
            "iss": self.issuer,
            "sub": ADA,
            "aud": CLIENT,
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": self.nonce,
        }
        claims = {name: value for name, value in (claims | self.claims).items() if value is not None}
        header = {"alg": "RS256", "kid": self.key.kid} | self.header
        return jwt.encode(header, claims, self.signing_key or self.key, algorithms=[header["alg"]])

    def page(self, path: str) -> tuple[int, dict[str, Any]]:
        """What it answers."""
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize?tenant=a",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                **self.metadata,
            }
        if path == "/jwks":
            return 200, {"keys": [self.key.as_dict(private=False)]}
        return self.status, self.answer if self.answer is not None else {"id_token": self.id_token()}


@pytest.fixture
def liar(clock: FixedClock) -> Iterator[Liar]:
    """A provider in this process."""
    liar = Liar("", RSAKey.generate_key(2048, {"kid": "one"}), lambda: clock().timestamp())

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            liar.asked.append((dict(parse_qsl(form)), self.headers.get("Authorization", "")))
            self._answer()

        def _answer(self) -> None:
            status, body = liar.page(self.path)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    liar.issuer = f"http://127.0.0.1:{server.server_port}"
    yield liar
    server.shutdown()
    thread.join()
    server.server_close()


def setting(issuer: str, **more: Any) -> str:
    """`FLG_OPENID_PROVIDER`."""
    return json.dumps(
        {"issuer": issuer, "client_id": CLIENT, "client_secret": SECRET, "name": "Example Bank", **more}
    )


@pytest.fixture
def app_at(services: Services) -> Iterator[Callable[..., Flask]]:
    """Makes the application with a provider."""
    made: list[Flask] = []

    def make(issuer: str, **more: Any) -> Flask:
        config = replace(services.config, openid_provider=setting(issuer, **more))
        made.append(create_app(replace(services, config=config)))
        return made[-1]

    yield make
    for app in made:
        close_refusals(app)


def add_ada(services: Services, issuer: str, subject: str = ADA) -> Account:
    """Somebody whom the provider knows."""
    proofs = Proofs(outside=(issuer, subject))
    return add_person(services, "Ada", Role.DPO, proofs, passwords=Passwords(CHEAP))


@ON_SQLITE
def test_a_person_signs_in_at_a_real_provider(
    services: Services, app_at: Callable[..., Flask], real_provider: str, entries: Any, clock: FixedClock
) -> None:
    """Discovery, code, PKCE, nonce, RS256 and keys of a provider that we did not write; then the page asked for."""
    from datetime import UTC, datetime

    clock.now = datetime.now(UTC)  # the provider has the machine's
    add_ada(services, real_provider)
    plain = {"client_id": "gateway", "client_secret": "secret"}  # it does not decode what RFC 6749 encodes
    chrome = Browser(app_at(real_provider, **plain).test_client())
    page = chrome.get("/console/sign-in", query_string={"next": "/oauth/authorize?client_id=x"})
    assert "Sign in with Example Bank" in page.text

    there = chrome.get("/console/sign-in/openid", query_string={"next": "/oauth/authorize?client_id=x"})
    with httpx.Client() as elsewhere:
        back = elsewhere.post(there.location, data={"sub": ADA}).headers["Location"]
    arrived = chrome.get(back.removeprefix("http://localhost"))

    assert (arrived.status_code, arrived.location) == (303, "/oauth/authorize?client_id=x")
    assert "Ada" in chrome.get("/console/").text
    assert entries("user.signed_in")[0]["details"] == {"auth": "openid"}


@ON_SQLITE
def test_who_was_not_added_does_not_come_in(
    services: Services, app_at: Callable[..., Flask], liar: Liar, entries: Any
) -> None:
    """No account makes itself: the provider says who somebody is, and the operator who may come in."""
    chrome = Browser(app_at(liar.issuer).test_client())

    assert come_back(chrome, liar).status_code == 403
    assert not chrome.is_in()
    assert entries("user.refused")[0]["details"]["reason"] == "SIGN_IN_REFUSED"


@ON_SQLITE
def test_who_is_suspended_here_does_not_come_in_through_the_provider(
    services: Services, app_at: Callable[..., Flask], liar: Liar
) -> None:
    """The account's status counts, whatever the provider says."""
    ada = add_ada(services, liar.issuer)
    move_person(services, ada.user_id, Move.SUSPEND)

    assert come_back(Browser(app_at(liar.issuer).test_client()), liar).status_code == 403


def set_out(chrome: Browser, liar: Liar) -> dict[str, str]:
    """Go to the provider; what it was asked."""
    there = chrome.get("/console/sign-in/openid")
    assert there.status_code == 303, there.text
    asked = dict(parse_qsl(urlsplit(there.location).query))
    liar.nonce = asked["nonce"]
    return asked


def come_back(chrome: Browser, liar: Liar, **changed: str | None) -> Any:
    """Go there, and come back with a code, or with what the test says."""
    asked = set_out(chrome, liar)
    answer = {"code": "a code", "state": asked["state"], **changed}
    told = {name: value for name, value in answer.items() if value is not None}
    return chrome.get(f"{RETURN}?{urlencode(told)}")


@ON_SQLITE
def test_what_is_asked_binds_the_answer(services: Services, app_at: Callable[..., Flask], liar: Liar) -> None:
    """PKCE S256, state, nonce, exact redirect URI, the client's proof in the header, and no secret in a URL."""
    from base64 import b64decode, urlsafe_b64encode
    from hashlib import sha256

    add_ada(services, liar.issuer)
    chrome = Browser(app_at(liar.issuer, scopes=["openid", "profile"]).test_client())
    asked = set_out(chrome, liar)

    arrived = chrome.get(f"{RETURN}?{urlencode({'code': 'c', 'state': asked['state']})}")

    form, authorization = liar.asked[0]
    challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert arrived.status_code == 303
    assert (asked["response_type"], asked["scope"], asked["tenant"]) == ("code", "openid profile", "a")
    assert (asked["code_challenge_method"], asked["code_challenge"]) == ("S256", challenge)
    assert asked["redirect_uri"] == form["redirect_uri"] == f"http://localhost{RETURN}"
    assert b64decode(authorization.removeprefix("Basic ")) == b"gateway+at+fl:s3cret%3A+of+the+gateway"
    assert "client_secret" not in form
    assert len({asked["state"], asked["nonce"], form["code_verifier"]}) == 3


@ON_SQLITE
def test_an_answer_counts_once_and_in_its_own_browser(
    services: Services, app_at: Callable[..., Flask], liar: Liar
) -> None:
    """RFC 9700, 4.7: nobody is signed in by somebody else's answer, and no answer twice."""
    add_ada(services, liar.issuer)
    app = app_at(liar.issuer)
    mallory, victim, other = (Browser(app.test_client()) for _ in range(3))
    asked = set_out(mallory, liar)
    link = f"{RETURN}?{urlencode({'code': 'c', 'state': asked['state']})}"
    set_out(other, liar)
    liar.nonce = asked["nonce"]

    answers = [browser.get(link).status_code for browser in (victim, other, mallory, mallory)]

    assert answers == [403, 403, 303, 403]
    assert (victim.is_in(), other.is_in()) == (False, False)


@ON_SQLITE
@pytest.mark.parametrize(
    "changed",
    [
        {"state": "another"},
        {"state": None},
        {"code": None},
        {"code": "x" * 3000},
        {"error": "access_denied"},
        {"iss": "https://evil.example"},
        {"iss": ""},
    ],
    ids=str,
)
def test_an_answer_that_is_not_the_provider_s_is_refused(
    services: Services, app_at: Callable[..., Flask], liar: Liar, changed: dict[str, str | None]
) -> None:
    """State, code, and the issuer of RFC 9207; the token endpoint is not even asked."""
    add_ada(services, liar.issuer)

    answer = come_back(Browser(app_at(liar.issuer).test_client()), liar, **changed)

    assert answer.status_code == 403
    assert liar.asked == []


@ON_SQLITE
@pytest.mark.parametrize(("said", "status"), [(True, 303), (False, 403)])
def test_a_provider_that_promises_its_name_must_say_it(
    services: Services, app_at: Callable[..., Flask], liar: Liar, said: bool, status: int
) -> None:
    """RFC 9207, section 2.4: `authorization_response_iss_parameter_supported`."""
    add_ada(services, liar.issuer)
    liar.metadata["authorization_response_iss_parameter_supported"] = True

    answer = come_back(
        Browser(app_at(liar.issuer).test_client()), liar, **({"iss": liar.issuer} if said else {})
    )

    assert answer.status_code == status


def with_public_key_as_secret(liar: Liar) -> str:
    """The old trick: what checks a signature is public, so an HMAC under it is anybody's."""
    import hmac
    from base64 import urlsafe_b64encode

    liar.header.clear()
    right = liar.id_token()
    header = urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).rstrip(b"=").decode()
    signed = f"{header}.{right.split('.')[1]}".encode()
    mac = hmac.digest(liar.key.as_pem(private=False), signed, "sha256")
    return f"{signed.decode()}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


FOREIGN = RSAKey.generate_key(2048, {"kid": "one"})
BAD_TOKENS: dict[str, Callable[[Liar], None]] = {
    "another's signature": lambda liar: setattr(liar, "signing_key", FOREIGN),
    "unknown key": lambda liar: liar.header.update(kid="two"),
    "HS256 with the public key": lambda liar: (
        liar.header.update(alg="HS256"),
        setattr(liar, "answer", {"id_token": with_public_key_as_secret(liar)}),
    ),
    "an access token": lambda liar: liar.header.update(typ="at+jwt"),
    "embedded key": lambda liar: liar.header.update(jwk=liar.key.as_dict(private=False)),
    "another issuer": lambda liar: liar.claims.update(iss="https://evil.example"),
    "another audience": lambda liar: liar.claims.update(aud="somebody else"),
    "many audiences, no azp": lambda liar: liar.claims.update(aud=[CLIENT, "somebody else"]),
    "azp of another": lambda liar: liar.claims.update(azp="somebody else"),
    "another nonce": lambda liar: liar.claims.update(nonce="another"),
    "no nonce": lambda liar: liar.claims.update(nonce=None),
    "expired": lambda liar: liar.claims.update(exp=int(liar.now_s()) - 61),
    "no exp": lambda liar: liar.claims.update(exp=None),
    "no iat": lambda liar: liar.claims.update(iat=None),
    "issued long ago": lambda liar: liar.claims.update(iat=int(liar.now_s()) - 3600),
    "issued tomorrow": lambda liar: liar.claims.update(iat=int(liar.now_s()) + 86_400),
    "no sub": lambda liar: liar.claims.update(sub=None),
    "numeric sub": lambda liar: liar.claims.update(sub=7),
    "endless sub": lambda liar: liar.claims.update(sub="x" * 300),
    "no token": lambda liar: setattr(liar, "answer", {"access_token": "x"}),
    "token of another kind": lambda liar: setattr(liar, "answer", {"id_token": ["x"]}),
    "no JWT": lambda liar: setattr(liar, "answer", {"id_token": "x.y.z"}),
    "alg none": lambda liar: setattr(liar, "answer", {"id_token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."}),
    "refused code": lambda liar: (
        setattr(liar, "status", 400),
        setattr(liar, "answer", {"error": "invalid_grant"}),
    ),
}


@ON_SQLITE
def test_no_id_token_that_says_too_little_or_of_somebody_else_lets_anybody_in(
    services: Services, app_at: Callable[..., Flask], liar: Liar, entries: Any
) -> None:
    """OpenID Connect Core, 3.1.3.7, step by step: one row a lie; each is refused alike, and written down."""
    add_ada(services, liar.issuer)
    app, right = app_at(liar.issuer), replace(liar)
    let_in = []

    for name, lie in BAD_TOKENS.items():
        liar.claims, liar.header, liar.signing_key = {}, {}, None
        liar.answer, liar.status = right.answer, right.status
        lie(liar)
        answer = come_back(Browser(app.test_client()), liar)
        if answer.status_code != 403 or "did not succeed" not in answer.text:
            let_in.append((name, answer.status_code))

    assert let_in == []
    assert {entry["details"]["reason"] for entry in entries("user.refused")} == {"PROVIDER_REFUSED"}
    liar.claims, liar.header, liar.signing_key, liar.answer, liar.status = {}, {}, None, None, 200
    liar.claims = {"aud": [CLIENT, "somebody else"], "azp": CLIENT, "exp": int(liar.now_s()) - 30}
    assert come_back(Browser(app.test_client()), liar).status_code == 303


@ON_SQLITE
def test_a_provider_that_is_away_is_a_503_and_passwords_go_on(
    services: Services, app_at: Callable[..., Flask]
) -> None:
    """Who has a password signs in meanwhile."""
    app = app_at(f"http://127.0.0.1:{free_port()}")

    answer = Browser(app.test_client()).get("/console/sign-in/openid")

    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert "does not answer" in answer.text
    assert Browser(app.test_client()).get("/console/sign-in").status_code == 200


def test_the_longest_way_on_fits_into_the_cookie() -> None:
    """RFC 6265bis, 5.6: browsers drop a cookie whose name and value have more than 4096 bytes."""
    longest = read_next("/oauth/authorize?" + "x" * (LONGEST - 17))

    assert len(longest) == LONGEST
    assert len(f"__Host-{Cookie.PROVIDER}{new_asking(longest).cookie}") <= 4096


@ON_SQLITE
def test_without_a_provider_there_is_no_way_to_one(http: Any) -> None:
    """The routes answer 404, and the page shows no button."""
    assert [http.get(f"/console/sign-in/openid{end}").status_code for end in ("", "/return")] == [404, 404]
    assert "Sign in with" not in http.get("/console/sign-in").text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "JSON object"),
        ("[]", "object"),
        ('{"issuer": "https://a.example", "issuer": "https://b.example"}', "once"),
        ('{"client_id": "a", "client_secret": "b"}', "issuer"),
        (setting("http://idp.example"), "https"),
        (setting("https://u:p@idp.example"), "user"),
        (setting("https://idp.example", scopes=["profile"]), "openid"),
        (setting("https://idp.example", algorithms=["HS256"]), "algorithms"),
        (setting("https://idp.example", client_secret_file="f"), "not both"),
        (setting("https://idp.example", colour="red"), "colour"),
    ],
)
def test_a_setting_that_is_wrong_is_named_and_not_repeated(text: str, why: str) -> None:
    """RULES 30: the message says which member to mend, and no value."""
    with pytest.raises(ConfigError, match=why) as refused:
        read_provider(Config(openid_provider=text))

    assert SECRET not in str(refused.value)


def test_a_secret_in_a_file_is_read_anew(tmp_path: Any) -> None:
    """A renewed secret needs no restart; a file that is gone is said, and a secret is in no repr."""
    place = tmp_path / "secret"
    place.write_text("one\n")
    text = json.dumps({"issuer": "https://a.example", "client_id": "a", "client_secret_file": str(place)})
    provider = read_provider(Config(openid_provider=text))
    assert provider is not None

    first = provider.secret()
    place.write_text("two\n")
    second = provider.secret()
    place.unlink()

    assert (first, second) == ("one", "two")
    with pytest.raises(ConfigError, match="cannot be read"):
        provider.secret()
    shown = read_provider(Config(openid_provider=setting("https://a.example")))
    assert SECRET not in repr(shown)
