"""`FLG_TRUSTED_ISSUERS`: what can be read, what is refused and how it is named, and what the doctor says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from services.issuer import SECRET, USER, OutsideIssuer, issuing, new_key

from gateway.auth.issuers import parse_issuers
from gateway.auth.jwk import ALGORITHMS
from gateway.auth.scopes import Role, Scope
from gateway.config import Config
from gateway.doctor.errors import Ailing, Risky
from gateway.doctor.issuers import trusted_issuers
from gateway.doctor.provider import openid_provider
from gateway.errors import ConfigError

GOOD: dict[str, Any] = {"issuer": "https://idp.example/realms/fl", "audience": "fl-gateway"}
ASKING = {"endpoint": "https://idp.example/introspect", "client_id": "g", "client_secret_file": "/run/secret"}
CANARY = "canary-7f3a"


def test_the_least_that_must_be_said_is_whom_and_for_whom() -> None:
    """All the rest is the strict case: our algorithms, at+jwt, names equal to ours, a participant."""
    (issuer,) = parse_issuers(json.dumps([GOOD]))

    assert issuer.jwks_uri is None
    assert issuer.algorithms == ALGORITHMS
    assert issuer.typ == ("at+jwt",)
    assert (issuer.scope_claim, issuer.scopes, issuer.roles) == ("scope", None, {})
    assert issuer.signs
    assert not issuer.takes_opaque


def test_everything_that_may_be_said_is_read() -> None:
    """Each member of docs/outside-issuers.md."""
    text = json.dumps(
        [
            GOOD
            | {
                "jwks_uri": "https://idp.example/keys?p=1",
                "algorithms": ["RS256"],
                "typ": ["JWT", "none"],
                "subject_claim": "oid",
                "client_claim": "azp",
                "clients": ["a"],
                "scope_claim": "realm_access.roles",
                "scopes": {"silo": ["training:participate"]},
                "role_claim": "groups",
                "roles": {"ops": "operator"},
                "introspection": ASKING | {"cache_s": 1.5, "opaque": False},
                "ca_file": "/etc/ca.pem",
            }
        ]
    )

    (issuer,) = parse_issuers(text)

    assert issuer.scopes == {"silo": (Scope.TRAINING_PARTICIPATE,)}
    assert issuer.roles == {"ops": Role.OPERATOR}
    assert issuer.signs
    assert not issuer.takes_opaque
    assert parse_issuers("") == parse_issuers("  ") == parse_issuers("[]") == ()


def with_(**members: Any) -> str:
    return json.dumps([GOOD | members])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("no JSON", "FLG_TRUSTED_ISSUERS: Invalid JSON"),
        ("{}", "FLG_TRUSTED_ISSUERS: Input should be a valid"),
        ('["x"]', "FLG_TRUSTED_ISSUERS[0]"),
        ('[{"audience": "a"}]', "FLG_TRUSTED_ISSUERS[0].issuer"),
        ('[{"issuer": "https://a.example"}]', "FLG_TRUSTED_ISSUERS[0].audience"),
        ('[{"issuer": "https://a.example", "audience": "a", "audience": "b"}]', "a member twice"),
        (with_(jwks="x"), "FLG_TRUSTED_ISSUERS[0].jwks:"),
        (with_(issuer="http://idp.example"), "FLG_TRUSTED_ISSUERS[0].issuer: must be https"),
        (with_(issuer="https://idp.example?x=1"), "[0].issuer: must be a URL without query"),
        (with_(issuer="https://u:p@idp.example"), "[0].issuer"),
        (with_(issuer="https://"), "[0].issuer"),
        (with_(issuer="https://[x"), "[0].issuer"),
        (with_(issuer="https://a.example:99999"), "[0].issuer"),
        (with_(issuer="https://a b.example"), "[0].issuer"),
        (with_(issuer="idp.example"), "[0].issuer"),
        (with_(issuer=7), "[0].issuer"),
        (with_(jwks_uri="http://idp.example/keys"), "[0].jwks_uri: must be https"),
        (with_(jwks_uri="file:///etc/passwd"), "[0].jwks_uri"),
        (with_(jwks_uri="https://a.example/#x"), "[0].jwks_uri"),
        (with_(audience=""), "[0].audience"),
        (with_(audience=["a"]), "[0].audience"),
        (with_(algorithms=["HS256"]), "[0].algorithms[0]"),
        (with_(algorithms=["none"]), "[0].algorithms[0]"),
        (with_(algorithms=[]), "[0].algorithms"),
        (with_(algorithms="RS256"), "[0].algorithms"),
        (with_(typ=["ID"]), "[0].typ[0]"),
        (with_(typ=[]), "[0].typ"),
        (with_(scope_claim=""), "[0].scope_claim"),
        (with_(scopes={"a": ["audit:reveal-all"]}), "[0].scopes.a[0]"),
        (with_(scopes={"a": "audit:read"}), "[0].scopes.a"),
        (with_(scopes={"a b": ["audit:read"]}), "[0].scopes.a b"),
        (with_(roles={"a": "emperor"}), "[0].roles.a"),
        (with_(clients=[]), "[0].clients"),
        (with_(introspection={}), "[0].introspection.endpoint"),
        (with_(introspection=ASKING | {"endpoint": "http://idp.example/"}), "[0].introspection.endpoint"),
        (with_(introspection=ASKING | {"client_secret": CANARY}), "[0].introspection.client_secret:"),
        (with_(introspection=ASKING | {"cache_s": 61}), "[0].introspection.cache_s"),
        (with_(introspection=ASKING | {"cache_s": -1}), "[0].introspection.cache_s"),
        (json.dumps([GOOD, GOOD]), "2 objects have the issuer"),
        (
            json.dumps(
                [
                    GOOD | {"introspection": ASKING},
                    GOOD | {"issuer": "https://b.example", "introspection": ASKING},
                ]
            ),
            "introspection.opaque",
        ),
    ],
)
def test_what_cannot_be_read_is_named(text: str, named: str) -> None:
    """Member by member, and no value is repeated: one of them may be a secret in the wrong place."""
    with pytest.raises(ConfigError) as error:
        parse_issuers(text)

    assert named in str(error.value)
    assert CANARY not in str(error.value)


# The doctor


@pytest.fixture
def issuer() -> Iterator[OutsideIssuer]:
    with issuing() as running:
        yield running


@pytest.fixture
def asking(issuer: OutsideIssuer, tmp_path: Path) -> dict[str, Any]:
    """Introspection that works."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET, "ascii")
    secret.chmod(0o600)
    return {"endpoint": f"{issuer.url}/introspect", "client_id": USER, "client_secret_file": str(secret)}


def examined(text: str, **settings: Any) -> str:
    return trusted_issuers(replace(Config(), trusted_issuers=text, **settings))


def test_the_doctor_fetches_and_asks(issuer: OutsideIssuer, asking: dict[str, Any]) -> None:
    """Keys are there, and the gateway's secret is taken."""
    said = examined(issuer.trusted(jwks_uri=f"{issuer.url}/jwks", introspection=asking))

    assert said == "1 of them, with keys or answers"
    assert issuer.asked == {"/jwks": 1, "/introspect": 1}
    assert examined("") == "none: tokens are our own"


def test_an_issuer_that_is_away_is_a_risk(issuer: OutsideIssuer) -> None:
    """It fails no examination: it may come back, and the gateway waits for it."""
    away = {"issuer": "http://127.0.0.1:1", "audience": "a"}

    with pytest.raises(Risky, match=r"1 of 2 .* http://127\.0\.0\.1:1 \(Connection refused\)"):
        examined(json.dumps([*json.loads(issuer.trusted()), away]))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda issuer, _asking: issuer.metadata.update(issuer="https://other.example"), "another issuer"),
        (lambda issuer, _asking: issuer.keys.clear(), "no key"),
        (lambda issuer, _asking: issuer.keys.__setitem__(0, new_key("r", "RS256")), ""),
        (lambda issuer, _asking: issuer.answers.update({"/jwks": (404, {}, b"")}), "404"),
        (lambda _issuer, asking: Path(asking["client_secret_file"]).write_text("wrong"), "401"),
        (lambda _issuer, asking: Path(asking["client_secret_file"]).chmod(0o644), "chmod 600"),
        (lambda _issuer, asking: Path(asking["client_secret_file"]).unlink(), "cannot be read"),
    ],
)
def test_what_must_be_mended_fails_the_examination(
    issuer: OutsideIssuer, asking: dict[str, Any], fault: Any, said: str
) -> None:
    """With the setting's name, and what to do."""
    fault(issuer, asking)
    text = json.dumps(
        [
            *json.loads(issuer.trusted(algorithms=["ES256"])),
            {"issuer": f"{issuer.url}/asked", "audience": "a", "introspection": asking},
        ]
    )

    with pytest.raises((Ailing, ConfigError), match=f"FLG_TRUSTED_ISSUERS.*{said}"):
        examined(text)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_no_outage(
    issuer: OutsideIssuer, tmp_path: Path, content: str | None
) -> None:
    """Waiting would not help: the examination of issuers and that of the OpenID provider fail."""
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    provider = {"issuer": issuer.name, "client_id": "x", "client_secret": "y", "ca_file": str(ca_file)}

    with pytest.raises(Ailing, match=r"FLG_TRUSTED_ISSUERS.*ca\.pem"):
        examined(issuer.trusted(ca_file=str(ca_file)))
    with pytest.raises(Ailing, match=r"FLG_OPENID_PROVIDER.*ca\.pem"):
        openid_provider(replace(Config(), openid_provider=json.dumps(provider)))


def test_this_gateway_is_no_outside_issuer(issuer: OutsideIssuer) -> None:
    """Its own tokens are judged by its own rules."""
    with pytest.raises(Ailing, match="is this gateway"):
        examined(issuer.trusted(), issuer=issuer.name)
