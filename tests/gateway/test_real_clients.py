"""The flows with OAuth clients that others wrote, over TLS through a real nginx to a real `serve`."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests
from authlib.deprecate import AuthlibDeprecationWarning
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey, OKPKey
from living.home import Home, home_in
from living.processes import Gateway, gateway_in
from oauthlib.oauth2 import BackendApplicationClient, WebApplicationClient
from refused.browsing import REDIRECT, allow, new_pkce
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as LibSession
from services.authority import Authority, Pair
from services.nginx import running_nginx
from services.pebble import make_certificate
from services.ports import free_port

from gateway.auth.clients import NewClient, add_client
from gateway.auth.people.accounts import Proofs, add_person
from gateway.auth.people.passwords import Cost, Passwords
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role
from gateway.front import ClientCertificates, Front, render

with warnings.catch_warnings(
    action="ignore", category=AuthlibDeprecationWarning
):  # it would rather have httpx2
    from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuth2Client

NAME = "fl.example.com"
NURSE, PASSWORD = "nurse@ward.example", "canary correct horse battery"
CLIENTS = "/api/v1/clients"


@dataclass(slots=True)
class Site:
    """A gateway behind a TLS front that asks for client certificates, and who may come to it."""

    home: Home
    gateway: Gateway
    directory: Path
    url: str
    authority: Authority
    secrets: set[str] = field(default_factory=set, repr=False)

    @property
    def certificate(self) -> str:
        return str(self.directory / "fullchain.pem")

    def add(self, role: str = "operator", **about: Any) -> NewClient:
        """A new client, made at the console."""
        with self.home.stores() as services:
            new = add_client(services, f"a {role}", Role(role), **about)
        self.secrets.update(filter(None, (new.client_secret, new.api_key)))
        return new

    def metadata(self) -> dict[str, str]:
        """What a client finds out by itself (RFC 8414)."""
        with self.browser() as client:
            found: dict[str, str] = client.get("/.well-known/oauth-authorization-server").json()
        return found

    def tls(self, pair: Pair | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.certificate)
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    def browser(self, pair: Pair | None = None) -> httpx.Client:
        """Plain httpx, nothing of our own client code."""
        return httpx.Client(base_url=self.url, verify=self.tls(pair), trust_env=False, timeout=30)

    def status_with(self, token: str, pair: Pair | None) -> int:
        """What the API answers to a token over a connection with this certificate."""
        self.secrets.add(token)
        with self.browser(pair) as client:
            return client.get(CLIENTS, headers={"Authorization": f"Bearer {token}"}).status_code

    def allow(self, asked: str) -> str:
        """A person signs in, reads the question, allows; the URI that the browser is sent to."""
        with self.browser() as browser:
            return allow(browser, asked, NURSE, PASSWORD)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One gateway for all of them."""
    directory = tmp_path_factory.mktemp("clients")
    port, authority = free_port(), Authority(directory / "authority")
    make_certificate(directory / "fullchain.pem", directory / "privkey.pem", NAME)
    url = f"https://127.0.0.1:{port}"
    settings = {"trusted_proxy": "true", "public_url": url}
    with home_in(directory / "home", **settings) as home, gateway_in(home) as gateway:
        front = Front(
            server_names=(NAME,),
            upstreams=(f"127.0.0.1:{gateway.http.base_url.port}",),
            certificate=directory / "fullchain.pem",
            certificate_key=directory / "privkey.pem",
            webroot=directory / "webroot",
            access_log=directory / "access.log",
            error_log=directory / "site-error.log",
            addresses=("127.0.0.1",),
            http_port=free_port(),
            https_port=port,
            client_certificates=ClientCertificates.SELF_SIGNED,
            client_ca=authority.ca_file,
        )
        with running_nginx(directory / "nginx", render(front), port=port):
            found = Site(home, gateway, directory, url, authority, {PASSWORD})
            with home.stores() as services:
                proofs, cheap = Proofs(password=PASSWORD), Passwords(Cost(1, 8, 1))
                add_person(services, NURSE, Role.OPERATOR, proofs, passwords=cheap)
            yield found


def _requests(site: Site, *who: Any, **options: Any) -> Any:
    session = OAuth2Session(*who, **options)
    session.verify, session.trust_env = site.certificate, False
    return session


def _httpx(site: Site, *who: Any, **options: Any) -> Any:
    return OAuth2Client(*who, verify=site.tls(), trust_env=False, timeout=30, **options)


def _async_httpx(site: Site, *who: Any, **options: Any) -> Any:
    return AsyncOAuth2Client(*who, verify=site.tls(), trust_env=False, timeout=30, **options)


AUTHLIB: dict[str, Callable[..., Any]] = {
    "Authlib on requests": _requests,
    "Authlib on httpx": _httpx,
    "Authlib on httpx, asynchronous": _async_httpx,
}


@pytest.fixture(params=AUTHLIB.values(), ids=AUTHLIB.keys())
def authlib(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes one of Authlib's clients."""
    made: Callable[..., Any] = request.param
    return made


async def _now(value: Any) -> Any:
    """The value, awaited where the client is an asynchronous one."""
    return await value if inspect.isawaitable(value) else value


async def _run(course: Callable[[Site, Any], Awaitable[list[Any]]], site: Site, client: Any) -> list[Any]:
    """The course of a client, which is closed afterwards."""
    try:
        return await course(site, client)
    finally:
        await _now(client.aclose() if hasattr(client, "aclose") else client.close())


async def _course(site: Site, client: Any) -> list[Any]:
    """Get a token for oneself, use it, ask about it, end it, and try it again."""
    found = site.metadata()
    token = await _now(client.fetch_token(found["token_endpoint"], grant_type="client_credentials"))
    site.secrets.add(token["access_token"])
    used = await _now(client.get(f"{site.url}{CLIENTS}"))
    asked = await _now(client.introspect_token(found["introspection_endpoint"], token=token["access_token"]))
    ended = await _now(client.revoke_token(found["revocation_endpoint"], token=token["access_token"]))
    again = await _now(client.get(f"{site.url}{CLIENTS}"))
    return [used.status_code, asked.json()["active"], ended.status_code, again.status_code]


@pytest.mark.parametrize(
    ("method", "token_format"), [("client_secret_basic", "opaque"), ("client_secret_post", "jwt")]
)
def test_a_secret_gets_a_token_that_works_until_it_is_ended(
    site: Site, authlib: Callable[..., Any], method: str, token_format: str
) -> None:
    """RFC 6749, 4.4; RFC 7662; RFC 7009: found by RFC 8414, with tokens of both kinds."""
    new = site.add(token_format=token_format)
    by = dict.fromkeys(("token_endpoint_auth_method", "revocation_endpoint_auth_method"), method)
    client = authlib(site, new.client_id, new.client_secret, **by)

    course = asyncio.run(_run(_course, site, client))

    assert course == [200, True, 200, 401]


@pytest.mark.parametrize("alg", ["ES256", "Ed25519"])
def test_a_signed_assertion_is_as_good(site: Site, authlib: Callable[..., Any], alg: str) -> None:
    """RFC 7523: Authlib's own private_key_jwt, at each endpoint with an assertion of its own."""
    key = ECKey.generate_key("P-256") if alg == "ES256" else OKPKey.generate_key("Ed25519")
    jwk = key.as_dict(private=False, kid="k1")
    new = site.add(auth=AuthMethod.PRIVATE_KEY_JWT, jwks={"keys": [jwk]})
    by = dict.fromkeys(("token_endpoint_auth_method", "revocation_endpoint_auth_method"), "private_key_jwt")
    client = authlib(site, new.client_id, key, **by)
    audience = site.metadata()["token_endpoint"]
    client.register_client_auth_method(PrivateKeyJWT(audience, headers={"kid": "k1"}, alg=alg))

    course = asyncio.run(_run(_course, site, client))

    assert course == [200, True, 200, 401]


async def _course_for_a_person(site: Site, client: Any) -> list[Any]:
    """Ask a person, exchange the code, use the token, refresh it, use the next one, and the old one once more."""
    found, pkce = site.metadata(), new_pkce()
    asked, state = client.create_authorization_url(
        found["authorization_endpoint"], code_verifier=pkce.verifier
    )
    answer = site.allow(asked)
    first = await _now(
        client.fetch_token(
            found["token_endpoint"],
            authorization_response=answer,
            state=state,
            code_verifier=pkce.verifier,
        )
    )
    used = await _now(client.get(f"{site.url}{CLIENTS}"))
    second = await _now(client.refresh_token(found["token_endpoint"], first["refresh_token"]))
    again = await _now(client.get(f"{site.url}{CLIENTS}"))
    site.secrets.update(
        token[kind] for token in (first, second) for kind in ("access_token", "refresh_token")
    )
    is_new = first["refresh_token"] != second["refresh_token"]
    return [f"iss={_quoted(found['issuer'])}" in answer, used.status_code, is_new, again.status_code]


def _quoted(text: str) -> str:
    return str(httpx.QueryParams({"v": text})).removeprefix("v=")


def test_a_person_lets_a_tool_act_for_them(site: Site, authlib: Callable[..., Any]) -> None:
    """RFC 6749, 4.1 and 6, with PKCE (RFC 7636) and who answers (RFC 9207), signing in on the way."""
    new = site.add(redirect_uris=[REDIRECT])
    client = authlib(
        site,
        new.client_id,
        new.client_secret,
        redirect_uri=REDIRECT,
        scope="client:manage",
        code_challenge_method="S256",
    )

    course = asyncio.run(_run(_course_for_a_person, site, client))

    assert course == [True, 200, True, 200]


@pytest.mark.parametrize("in_the_form", [False, True], ids=["Basic", "form"])
def test_requests_oauthlib_gets_a_token_for_a_client(site: Site, *, in_the_form: bool) -> None:
    """RFC 6749, 4.4, by requests-oauthlib's backend client."""
    new = site.add("auditor")
    with LibSession(client=BackendApplicationClient(new.client_id)) as session:
        session.verify, session.trust_env = site.certificate, False
        proof: dict[str, Any] = {"auth": HTTPBasicAuth(new.client_id, new.client_secret)}
        if in_the_form:
            proof = {"client_secret": new.client_secret, "include_client_id": True}

        token = session.fetch_token(f"{site.url}/oauth/token", **proof)
        used = session.get(f"{site.url}/api/v1/audit/entries?limit=1")

    site.secrets.add(token["access_token"])
    assert (token["scope"], used.status_code) == (["audit:read"], 200)


def test_requests_oauthlib_asks_a_person(site: Site) -> None:
    """RFC 6749, 4.1 and 6, RFC 7636, by requests-oauthlib's web client, which refreshes by itself."""
    new = site.add(redirect_uris=[REDIRECT])
    found, kept = site.metadata(), []
    proof = HTTPBasicAuth(new.client_id, new.client_secret)
    with LibSession(
        client=WebApplicationClient(new.client_id),
        redirect_uri=REDIRECT,
        pkce="S256",
        auto_refresh_url=found["token_endpoint"],
        token_updater=kept.append,
    ) as session:
        session.verify, session.trust_env = site.certificate, False
        asked, _state = session.authorization_url(found["authorization_endpoint"])
        first = session.fetch_token(
            found["token_endpoint"], authorization_response=site.allow(asked), auth=proof
        )
        session.token = first | {"expires_at": 1}

        used = session.get(
            f"{site.url}{CLIENTS}", auth=None, client_id=new.client_id, client_secret=new.client_secret
        )

    site.secrets.update((first["access_token"], first["refresh_token"]))
    assert used.status_code == 200
    assert kept[0]["refresh_token"] != first["refresh_token"]


@pytest.mark.parametrize("token_format", ["opaque", "jwt"])
@pytest.mark.parametrize(
    "is_self_signed", [False, True], ids=["tls_client_auth", "self_signed_tls_client_auth"]
)
def test_a_certificate_gets_a_token_that_is_worth_nothing_without_it(
    site: Site, tmp_path: Path, token_format: str, *, is_self_signed: bool
) -> None:
    """RFC 8705, 2 and 3: nginx saw the handshake, and the token is good over this certificate's connections alone."""
    own, other = (
        _pair(site, tmp_path, "silo-a", is_self_signed),
        _pair(site, tmp_path, "silo-b", is_self_signed),
    )
    new = _client_with(site, own, is_self_signed, token_format)
    client = _requests(site, new.client_id, token_endpoint_auth_method="none")
    client.cert = (str(own.certificate), str(own.key))

    token = client.fetch_token(f"{site.url}/oauth/token", grant_type="client_credentials")["access_token"]

    assert site.status_with(token, own) == 200
    assert site.status_with(token, other) == 401
    assert site.status_with(token, None) == 401
    assert site.status_with(token, own) == 200


@pytest.mark.parametrize(
    "is_self_signed", [False, True], ids=["tls_client_auth", "self_signed_tls_client_auth"]
)
def test_another_certificate_gets_no_token(site: Site, tmp_path: Path, *, is_self_signed: bool) -> None:
    """RFC 8705, 2: neither another one of the authority, nor a self-signed one of the same name, nor none."""
    own = _pair(site, tmp_path, "silo-a", is_self_signed)
    new = _client_with(site, own, is_self_signed, "opaque")
    others = (
        _pair(site, tmp_path, "silo-b", is_self_signed),
        _pair(site, tmp_path / "2", "silo-a", True),
        None,
    )

    answers = [_asked_with(site, new, pair) for pair in others]

    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [
        (401, "invalid_client")
    ] * 3
    assert _asked_with(site, new, own).status_code == 200


def test_a_certificate_in_a_header_is_none(site: Site, tmp_path: Path) -> None:
    """RFC 9700, 4.13: nginx blanks what the client says of its certificate."""
    own = _pair(site, tmp_path, "silo-a", True)
    new = _client_with(site, own, True, "opaque")
    pem = requests.utils.quote(own.certificate.read_text())
    said = {
        "X-SSL-Client-Cert": pem,
        "X-SSL-Client-Verify": "SUCCESS",
        "Client-Cert": pem,
        "X_SSL_Client_Cert": pem,
    }

    answer = _asked_with(site, new, None, headers=said)

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_no_secret_of_all_that_is_in_a_log(site: Site) -> None:
    """Promise 8: neither the gateway's log, nor nginx's, nor what the SIEM was sent tells any of them."""
    new = site.add()
    site.secrets.add(_token(site, new))

    written = site.gateway.log() + "".join(
        path.read_text(errors="replace")
        for path in (
            *site.directory.rglob("*.log"),
            *site.directory.rglob("*.jsonl"),
            *site.directory.rglob("*.out"),
        )
    )

    assert "ready" in written
    assert urlsplit(site.url).netloc not in "".join(site.secrets)
    assert [secret for secret in site.secrets if secret in written] == []


def _token(site: Site, new: NewClient) -> str:
    with site.browser() as client:
        form = {"grant_type": "client_credentials"}
        answer = client.post("/oauth/token", data=form, auth=(new.client_id, new.client_secret))
    return str(answer.json()["access_token"])


def _pair(site: Site, directory: Path, name: str, is_self_signed: bool) -> Pair:
    if not is_self_signed:
        return site.authority.pair(name)
    directory.mkdir(exist_ok=True)
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
    make_certificate(pair.certificate, pair.key, name)
    return pair


def _client_with(site: Site, pair: Pair, is_self_signed: bool, token_format: str) -> NewClient:
    if not is_self_signed:
        return site.add(auth=AuthMethod.TLS_CLIENT_AUTH, subject_dn="CN=silo-a", token_format=token_format)
    jwk = ECKey.import_key(pair.key.read_text()).as_dict(private=False)
    jwks = {"keys": [jwk]}
    return site.add(auth=AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH, jwks=jwks, token_format=token_format)


def _asked_with(site: Site, new: NewClient, pair: Pair | None, **sent: Any) -> httpx.Response:
    form = {"grant_type": "client_credentials", "client_id": new.client_id}
    with site.browser(pair) as client:
        return client.post("/oauth/token", data=form, **sent)
