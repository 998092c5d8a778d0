"""Promise 5 for what lets people and clients in: all of it is in the export, without its secrets, and none is left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from consent import Tool, add_somebody, add_tool, code_for, exchange, sign_in, tokens_for
from flask.testing import FlaskClient
from proof_keys import assertion_form, jwk, key_set
from sqlalchemy import select
from staff import CHEAP, Member, add_member

from audit.draft import Personal
from audit.tables import metadata as audit_tables
from compliance.places import ExportTable
from compliance.tables import metadata as compliance_tables
from gateway.auth.clients import add_client
from gateway.auth.people.cookies import Cookie
from gateway.auth.people.openid_settings import read_provider
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.place import PeoplePlace
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role
from gateway.auth.tokens import find
from gateway.config import Config
from gateway.places import ClientsPlace, erased_tables
from gateway.privacy import privacy_desk
from gateway.services import Services
from gateway.starting import note_start
from gateway.tables import metadata

OFFICER = Personal("system", "officer")
ISSUER = "https://gateway.example"
SECRETS = ("hash", "totp", "index", "thumbprint", "challenge")


@pytest.fixture
def config(config: Config) -> Config:
    """With an issuer, which JWTs need."""
    return replace(config, issuer=ISSUER)


@pytest.fixture
def tool(services: Services) -> Tool:
    """A tool of somebody else's."""
    return add_tool(services)


@pytest.fixture
def ada(services: Services, http: FlaskClient) -> Member:
    """An auditor who is signed in."""
    person = add_somebody(services, name="Ada Canary")
    sign_in(http, services, person)
    return person


def rows(services: Services) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table that an erasure removes from."""
    with services.engine.connect() as conn:
        return {
            table.name: [dict(row) for row in conn.execute(select(table)).mappings()]
            for table in metadata.sorted_tables
            if table.name in erased_tables()
        }


def erase(services: Services, subject: str) -> None:
    desk = privacy_desk(services)
    case = desk.open("erasure", subject, requested_by=OFFICER).id
    desk.approve(case, by=OFFICER)
    assert desk.run(case).status == "completed"


def told(parts: Iterable[ExportTable]) -> Mapping[str, list[dict[str, Any]]]:
    return {part.category: [dict(row) for row in part.rows] for part in parts}


def test_what_tools_got_for_a_person_is_exported_and_erased(
    services: Services, http: FlaskClient, tool: Tool, ada: Member
) -> None:
    """Art. 15, 17: account, session, consent and tokens; the tool itself stays, and its tokens for ada are dead."""
    got = tokens_for(http, tool)
    before = rows(services)
    assert all(before[name] for name in ("users", "sessions", "authorization_codes", "tokens"))
    files = told(PeoplePlace(services).export(ada.subject_id))

    erase(services, ada.subject_id)

    assert {line["kind"] for line in files["staff_tokens"]} == {"access", "refresh"}
    assert {line["client_id"] for line in files["staff_tokens"]} == {tool.client_id}
    assert not [name for lines in files.values() for line in lines for name in line if name.endswith(SECRETS)]
    left = json.dumps(rows(services), default=str)
    assert ada.user_id not in left
    assert ada.subject_id not in left
    assert not any(rows(services)[name] for name in ("users", "sessions", "authorization_codes", "tokens"))
    assert find(services, got["access_token"]) is None
    assert tool.client_id in left


def test_what_let_a_client_in_is_exported_and_erased(services: Services, http: FlaskClient) -> None:
    """Tokens, revoked ones and used assertions: in the package without a hash, and in no table afterwards."""
    keys = key_set(jwk("Ed25519", kid="a"))
    new = add_client(
        services, "silo", Role.AUDITOR, auth=AuthMethod.PRIVATE_KEY_JWT, jwks=keys, token_format="jwt"
    )

    def proven() -> dict[str, str]:
        return assertion_form(new.client_id, ISSUER, services.clock())

    ended, live = (http.post("/oauth/token", data=proven()).get_json()["access_token"] for _ in range(2))
    form = proven() | {"token": ended}
    assert http.post("/oauth/revoke", data=form).status_code == 200
    assert all(rows(services)[name] for name in ("tokens", "revoked_tokens", "used_assertions"))
    files = told(ClientsPlace(services).export(new.subject_id))

    erase(services, new.subject_id)

    assert sorted(line["kind"] for line in files["tokens"]) == ["access", "revoked"]
    assert not [name for lines in files.values() for line in lines for name in line if name.endswith(SECRETS)]
    left = json.dumps(rows(services), default=str)
    assert new.client_id not in left
    assert new.subject_id not in left
    assert find(services, live) is None
    assert find(services, ended) is None


def test_nothing_that_lets_somebody_in_is_kept_in_clear(
    services: Services, http: FlaskClient, tool: Tool, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 8: password, one-time secret, cookie, code, tokens, the provider's secrets: in no row, entry or log."""
    grace = add_member(services, Passwords(CHEAP), "Grace", role="auditor")
    sign_in(http, services, grace)
    code = code_for(http, tool)
    got = exchange(http, tool, code).get_json()
    exchange(http, tool, code)  # a code in two hands, which is told aloud
    setting = json.dumps({"issuer": ISSUER, "client_id": "x", "client_secret": "the provider's own"})
    note_start(replace(services, config=replace(services.config, openid_provider=setting)), "web")
    cookie = http.get_cookie(Cookie.SESSION.value)
    assert cookie is not None
    secrets = (
        grace.password,
        grace.secret,
        cookie.value,
        code,
        got["access_token"],
        got["refresh_token"],
        tool.secret,
    )

    with services.engine.connect() as conn:
        kept = [
            repr(tuple(row))
            for tables in (metadata, audit_tables, compliance_tables)
            for table in tables.sorted_tables
            for row in conn.execute(select(table))
        ]

    everything = "\n".join(
        [*kept, caplog.text, repr(services), repr(read_provider(Config(openid_provider=setting)))]
    )
    assert "token.reused" in everything  # the search looks in the right place
    assert not [secret for secret in (*secrets, "the provider's own") if str(secret) in everything]
