"""A gateway in the test's own process, the people and clients of the cases, and what each request leaves behind."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from living.home import home_in
from refused.browsing import REDIRECT, answered, sign_in
from refused.case import Ask
from refused.jwts import Json, Jws, eddsa, read
from services.clock import FixedClock
from sqlalchemy import MetaData, func, select
from werkzeug.test import TestResponse

import audit.tables
import compliance.tables
import gateway.tables
from audit.entry import Sealed
from audit.reading import reading
from audit.tables import audit_pending
from compliance.keyring.keys import SigningUse
from gateway.app import create_app
from gateway.auth.clients import NewClient, add_client
from gateway.auth.people.accounts import Proofs, add_person
from gateway.auth.people.passwords import Cost, Passwords
from gateway.auth.refusals import close_refusals
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role
from gateway.config import load_config
from gateway.services import Services, open_services

ISSUER = "https://fl.example.com"
CLIENTS = "/api/v1/clients"
TOKEN = "/oauth/token"
GRANT = {"grant_type": "client_credentials"}
FRONT = "10.9.0.1"
NAME, PASSWORD = "nurse@ward.example", "canary correct horse battery"
_METADATAS: tuple[MetaData, ...] = (
    audit.tables.metadata,
    compliance.tables.metadata,
    gateway.tables.metadata,
)
_LOG = frozenset(table.name for table in audit.tables.metadata.sorted_tables)
_SECRET_FIELDS = (
    "client_secret",
    "client_assertion",
    "code",
    "code_verifier",
    "refresh_token",
    "token",
    "access_token",
    "password",
)
_SHORTEST_CANARY = 12


@dataclass(slots=True)
class Scene:
    """What every case starts from. Each case has a network of its own, so that no count of another reaches it."""

    directory: Path
    services: Services
    app: Flask
    clock: FixedClock
    secrets: set[str] = field(default_factory=set, repr=False)
    number: int = 0
    user_id: str = ""
    _browser: FlaskClient | None = None
    _jwt: Jws | None = None

    @property
    def address(self) -> str:
        """Where the caller of this case stands: on this machine, hence no front."""
        return f"127.{self.number // 250}.{self.number % 250 + 1}.1"

    @property
    def http(self) -> FlaskClient:
        """A client of the application without cookies."""
        return self.app.test_client(use_cookies=False)

    def client(self, role: str = "participant", **about: Any) -> NewClient:
        """A new client with a secret."""
        return self.keep(add_client(self.services, f"a {role}", Role(role), **about))

    def signing_client(self, jwk: Json, role: str = "participant", **about: Any) -> NewClient:
        """A new client that proves itself by assertions, signed with this key."""
        return self.client(role, auth=AuthMethod.PRIVATE_KEY_JWT, jwks={"keys": [jwk]}, **about)

    def tls_client(self, subject_dn: str, role: str = "participant", **about: Any) -> NewClient:
        """A new client that proves itself by a certificate of that name from an authority."""
        return self.client(role, auth=AuthMethod.TLS_CLIENT_AUTH, subject_dn=subject_dn, **about)

    def self_signed_client(self, jwks: Json, role: str = "participant", **about: Any) -> NewClient:
        """A new client that proves itself by a certificate of its own making."""
        return self.client(role, auth=AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH, jwks=jwks, **about)

    def keep(self, new: NewClient) -> NewClient:
        """Note the client's secrets: they may never be seen again."""
        self.secrets.update(secret for secret in (new.client_secret, new.api_key) if secret)
        return new

    def canary(self, text: str) -> str:
        """Note a text that may be seen nowhere."""
        self.secrets.add(text)
        return text

    def token(self, new: NewClient | None = None, **form: str) -> str:
        """A good access token; of an operator unless a client is given."""
        new = new or self.client("operator")
        answer = self.send(self.ask_token(new, **form))
        assert answer.status_code == 200, answer.text
        return self.canary(str(answer.get_json()["access_token"]))

    def jwt(self) -> Jws:
        """What a JWT of the gateway's for an operator is made of, ready to be changed and signed again."""
        if self._jwt is None or self._jwt.claims["exp"] < self.now_s + 60:
            header, claims = read(self.token(self.client("operator", token_format="jwt")))
            key = self.services.keystore.signing_key(SigningUse.TOKEN)
            assert header["kid"] == key.kid
            self._jwt = Jws(header, claims, eddsa(key.private))
        return self._jwt

    def tool(self, *redirect_uris: str) -> NewClient:
        """A new client that acts for people."""
        return self.client("operator", redirect_uris=redirect_uris or (REDIRECT,))

    @property
    def browser(self) -> FlaskClient:
        """The browser of an operator, who has signed in."""
        if not self._is_signed_in():
            self._browser = self.app.test_client()
            self._browser.environ_base = {"REMOTE_ADDR": self.address}
            sign_in(self._browser, NAME, self.canary(PASSWORD), base_url=ISSUER)
        assert self._browser is not None
        return self._browser

    def _is_signed_in(self) -> bool:
        if not self.user_id:
            proofs, cheap = Proofs(password=PASSWORD), Passwords(Cost(1, 8, 1))
            self.user_id = add_person(self.services, NAME, Role.OPERATOR, proofs, passwords=cheap).user_id
        return (
            self._browser is not None and self._browser.get("/console/", base_url=ISSUER).status_code == 200
        )

    def code(self, answer: TestResponse) -> str:
        """The code in an answer for the client."""
        return self.canary(answered(answer)["code"])

    @property
    def now_s(self) -> int:
        return int(self.clock().timestamp())

    # Requests

    def ask_token(self, new: NewClient, **form: Any) -> Ask:
        """A token request with the client's secret in a Basic header."""
        return self.ask(TOKEN, GRANT | form, auth=(new.client_id, new.client_secret))

    def ask(self, path: str, form: Mapping[str, Any] | None = None, **sent: Any) -> Ask:
        """A POST of a form."""
        return Ask("POST", path, {"data": form, **sent})

    def ask_api(self, token: object, **sent: Any) -> Ask:
        """A call of the API with a bearer token."""
        return self.ask_api_with(f"Bearer {token}", **sent)

    def ask_api_with(self, authorization: str | None, **sent: Any) -> Ask:
        """A call of the API with this very Authorization header."""
        environ = {"HTTP_AUTHORIZATION": authorization} if authorization is not None else {}
        return Ask("GET", CLIENTS, {"environ_base": environ, **sent})

    def send(self, ask: Ask) -> TestResponse:
        """Send it, from the address of this case unless it has one of its own; its secrets are noted."""
        sent = dict(ask.sent)
        sent["environ_base"] = {"REMOTE_ADDR": self.address} | sent.get("environ_base", {})
        self.secrets.update(text for text in _secrets_of(sent) if len(text) >= _SHORTEST_CANARY)
        sender = self.browser if ask.has_session else self.http
        return sender.open(ask.path, method=ask.method, **sent)

    # What is left

    def kept(self) -> dict[str, frozenset[str] | int]:
        """Rows by table: whole ones of the auth tables, the count of the others'; the log's are not among them."""
        with reading(self.services.engine) as conn:
            return {
                table.name: frozenset(map(repr, conn.execute(select(table)).all()))
                if table.name in _WHOLE
                else conn.execute(select(func.count()).select_from(table)).scalar_one()
                for metadata in _METADATAS
                for table in metadata.sorted_tables
                if table.name not in _LOG
            }

    def entry_ids(self) -> set[str]:
        with reading(self.services.engine) as conn:
            return set(conn.execute(select(audit_pending.c.id)).scalars())

    def entries_beside(self, known: set[str]) -> list[dict[str, Any]]:
        """The entries staged since, with `opened` beside them: the whole text with every sealed field in clear."""
        with reading(self.services.engine) as conn:
            bodies = conn.execute(
                select(audit_pending.c.id, audit_pending.c.body).order_by(audit_pending.c.id)
            )
            new = [json.loads(body) for entry_id, body in bodies if entry_id not in known]
        return [entry | {"opened": json.dumps(self._opened(entry))} for entry in new]

    def _opened(self, entry: dict[str, Any]) -> dict[str, Any]:
        places = {name: entry[name] for name in ("actor", "ip_address")}
        places |= {f"details.{name}": value for name, value in entry["details"].items()}
        return {
            place: self.services.sealer.open(sealed, f"{entry['id']}.{place}")
            if (sealed := Sealed.read(value))
            else value
            for place, value in places.items()
        }


_WHOLE = frozenset(
    {"tokens", "revoked_tokens", "authorization_codes", "used_assertions", "sessions", "outbox"}
)


@contextmanager
def scene_in(directory: Path) -> Iterator[Scene]:
    """A gateway on SQLite; its TLS front stands at 10.9.0.0/16 and nowhere else."""
    clock = FixedClock()
    settings = {
        "public_url": ISSUER,
        "trusted_proxy": "10.9.0.0/16",
        "siem_sinks": "",
        "refresh_ttl_s": "3600",
        "session_idle_s": "28800",
        "receipt_max_delay_s": "864000",  # there is no sequencer here, and the clock makes leaps
    }
    with home_in(directory, **settings) as home:
        services = open_services(load_config(home.environment()), part="web", clock=clock)
        app = create_app(services)
        yield Scene(home.directory, services, app, clock)
        close_refusals(app)
        services.close()


def _secrets_of(sent: Mapping[str, Any]) -> Iterator[str]:
    """The credentials in a request, as they are written in it."""
    form, query = sent.get("data") or {}, sent.get("query_string") or {}
    for given in (form, query):
        if isinstance(given, Mapping):
            for name in _SECRET_FIELDS:
                value = given.get(name, [])
                yield from map(str, value if isinstance(value, list) else [value])
    header = sent.get("environ_base", {}).get("HTTP_AUTHORIZATION", "")
    header = header or dict(sent.get("headers") or {}).get("Authorization", "")
    scheme, _, credential = str(header).partition(" ")
    yield from filter(None, (word.strip() for word in credential.split(",")))
    if scheme.lower() == "basic":
        with suppress(ValueError, UnicodeDecodeError):
            yield b64decode(credential).decode().partition(":")[2]


def later(minutes: float = 0, seconds: float = 0) -> timedelta:
    return timedelta(minutes=minutes, seconds=seconds)
