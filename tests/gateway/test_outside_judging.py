"""Each token of an outside issuer that must not be taken, and each form of one that may."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from services.issuer import AUDIENCE, OutsideIssuer, forged, issuing, new_key, sign

from gateway.auth.issuers import Provider
from gateway.auth.issuers.claims import claim_at, role_of_claims, scopes_of_claims
from gateway.auth.issuers.judging import Judged, judge_answer, judge_jwt
from gateway.auth.issuers.settings import Issuer, parse_issuers
from gateway.auth.jose import BadJwt, Fault, read_jwt
from gateway.auth.jwk import ALGORITHMS, OUTSIDE_ALGORITHMS
from gateway.auth.scopes import BUNDLES, Role, Scope

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOW_S = NOW.timestamp()
THUMBPRINT = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"  # RFC 8705, section 3.1
Make = Callable[[OutsideIssuer], str]


@pytest.fixture(scope="module")
def issuer() -> Iterator[OutsideIssuer]:
    """An issuer with a key of each algorithm, and one that only it has."""
    with issuing(keys=[new_key(name, name) for name in ("EdDSA", "ES256", "PS256")]) as running:
        running.keys.append(new_key("wide", "RS256"))
        yield running


@pytest.fixture(scope="module")
def judge(issuer: OutsideIssuer) -> Callable[..., Judged]:
    """Judges a token by the issuer's keys: `judge(token, typ=["JWT"])`."""
    providers: dict[tuple[str, ...], Provider] = {}

    def judged(token: str, **members: Any) -> Judged:
        (trust,) = parse_issuers(issuer.trusted(**members))
        new = Provider(trust.issuer, algorithms=trust.algorithms)
        provider = providers.setdefault(trust.algorithms, new)
        return judge_jwt(trust, provider, read_jwt(token, OUTSIDE_ALGORITHMS), NOW)

    return judged


def claimed(**claims: Any) -> Make:
    """A token with these claims."""
    return lambda issuer: sign(issuer.keys[1], issuer.claims(NOW_S, **claims))


def headed(**header: Any) -> Make:
    """A token with this header."""
    return lambda issuer: sign(issuer.keys[1], issuer.claims(NOW_S), **header)


def signed_as(algorithm: str) -> Make:
    """A token with this algorithm."""
    return lambda issuer: sign(
        next(key for key in issuer.keys if key.kid == algorithm), issuer.claims(NOW_S), algorithm
    )


def with_the_public_key_as_secret(issuer: OutsideIssuer) -> str:
    """Algorithm confusion (RFC 8725, section 2.1): what everybody knows, used as if it were a secret."""
    pem = issuer.keys[1].public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": "ES256", "typ": "at+jwt"}
    signed = forged(header, issuer.claims(NOW_S)).rpartition(".")[0]
    return forged(header, issuer.claims(NOW_S), hmac.digest(pem, signed.encode(), "sha256"))


def by_a_stranger(issuer: OutsideIssuer) -> str:
    """Another key that goes by the name of the issuer's."""
    return sign(new_key("ES256"), issuer.claims(NOW_S))


def tampered(issuer: OutsideIssuer) -> str:
    """Claims of one token under the signature of another."""
    good, other = claimed()(issuer), claimed(sub="somebody-else")(issuer)
    head, _, signature = good.split(".")
    return f"{head}.{other.split('.')[1]}.{signature}"


REFUSED: list[tuple[str, Make, Fault]] = [
    ("alg none", lambda i: forged({"alg": "none", "typ": "at+jwt"}, i.claims(NOW_S)), Fault.ALGORITHM),
    ("HS256 with the public key", with_the_public_key_as_secret, Fault.ALGORITHM),
    ("RS256 that is not configured", lambda i: sign(i.keys[3], i.claims(NOW_S), "RS256"), Fault.ALGORITHM),
    ("a stranger's key", by_a_stranger, Fault.SIGNATURE),
    ("changed claims", tampered, Fault.SIGNATURE),
    (
        "no signature",
        lambda i: forged({"alg": "ES256", "kid": "ES256", "typ": "at+jwt"}, i.claims(NOW_S)),
        Fault.SIGNATURE,
    ),
    ("a key that there is not", headed(kid="made-up"), Fault.KEY),
    ("no kid", headed(kid=None), Fault.KEY),
    ("the key of another algorithm", headed(kid="EdDSA"), Fault.KEY),
    ("its own key", headed(jwk={"kty": "EC"}), Fault.HEADER),
    ("a place for its key", headed(jku="http://127.0.0.1:1/jwks"), Fault.HEADER),
    ("a place for its certificate", headed(x5u="http://127.0.0.1:1/cert"), Fault.HEADER),
    ("its own certificate", headed(x5c=["MII"]), Fault.HEADER),
    ("no typ", headed(typ=None), Fault.TYPE),
    ("an ID token's typ", headed(typ="JWT"), Fault.TYPE),
    ("another typ", headed(typ="dpop+jwt"), Fault.TYPE),
    ("another issuer", claimed(iss="https://other.example"), Fault.ISSUER),
    ("an issuer with a slash more", lambda i: claimed(iss=i.name + "/")(i), Fault.ISSUER),
    ("no issuer", claimed(iss=None), Fault.ISSUER),
    ("another audience", claimed(aud="https://other.example"), Fault.AUDIENCE),
    ("an audience with a slash more", claimed(aud=AUDIENCE + "/"), Fault.AUDIENCE),
    ("other audiences", claimed(aud=["https://other.example", "b"]), Fault.AUDIENCE),
    ("no audience", claimed(aud=None), Fault.CLAIM),
    ("a numeric audience", claimed(aud=7), Fault.CLAIM),
    ("an expired one", claimed(exp=int(NOW_S)), Fault.EXPIRED),
    ("one that never ends", claimed(exp=None), Fault.CLAIM),
    ("an end in words", claimed(exp="tomorrow"), Fault.CLAIM),
    ("an end beyond all dates", claimed(exp=1e18), Fault.CLAIM),
    ("one of the future", claimed(nbf=NOW_S + 31), Fault.EARLY),
    ("one issued in the future", claimed(iat=NOW_S + 31), Fault.EARLY),
    ("a start in words", claimed(nbf="now"), Fault.CLAIM),
    ("no subject", claimed(sub=None), Fault.CLAIM),
    ("an empty subject", claimed(sub=""), Fault.CLAIM),
    ("a numeric subject", claimed(sub=7), Fault.CLAIM),
    ("a subject of 256 characters", claimed(sub="s" * 256), Fault.CLAIM),
    ("a subject with a line break", claimed(sub="a\nb"), Fault.CLAIM),
    ("a numeric scope", claimed(scope=7), Fault.CLAIM),
    ("a scope that is a list", claimed(scope=["training:participate"]), Fault.CLAIM),
    ("a scope that is null", lambda i: sign(i.keys[1], i.claims(NOW_S) | {"scope": None}), Fault.CLAIM),
    ("a token bound to a DPoP key", claimed(cnf={"jkt": "x" * 43}), Fault.BINDING),
    ("a token bound twice", claimed(cnf={"x5t#S256": THUMBPRINT, "jkt": "x" * 43}), Fault.BINDING),
    ("a binding in another form", claimed(cnf="x"), Fault.BINDING),
    ("a token bound to nothing", claimed(cnf={}), Fault.BINDING),
    ("an ID token", claimed(nonce="n"), Fault.TYPE),
    ("an ID token of a code", claimed(at_hash="h"), Fault.TYPE),
    ("Keycloak's ID token", claimed(typ="ID"), Fault.TYPE),
    ("a log-out token", claimed(events={}), Fault.TYPE),
]


@pytest.mark.parametrize(("make", "fault"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_bad_token_is_refused(
    issuer: OutsideIssuer, judge: Callable[..., Judged], make: Make, fault: Fault
) -> None:
    """RFC 9068, section 4; RFC 8725: each for its own reason, and none of them reaches the database."""
    with pytest.raises(BadJwt) as refused:
        judge(make(issuer))

    assert refused.value.reason is fault


@pytest.mark.parametrize(
    ("make", "members"),
    [
        (claimed(), {}),
        (headed(typ="application/at+jwt"), {}),
        (headed(typ="AT+JWT"), {}),
        (headed(typ="JWT"), {"typ": ["JWT"]}),
        (headed(typ=None), {"typ": ["at+jwt", "none"]}),
        (claimed(aud=["https://other.example", AUDIENCE]), {}),
        (claimed(typ="Bearer"), {}),
        (claimed(nbf=NOW_S + 29, iat=NOW_S + 29), {}),
        (claimed(exp=NOW_S + 0.5), {}),
        (claimed(iat=None), {}),
        (claimed(sub="s" * 255), {}),
        (signed_as("EdDSA"), {}),
        (lambda i: sign(i.keys[0], i.claims(NOW_S), "Ed25519"), {}),
        (signed_as("PS256"), {}),
        (lambda i: sign(i.keys[3], i.claims(NOW_S), "RS256"), {"algorithms": ["RS256"]}),
        (claimed(azp="app"), {"client_claim": "azp", "clients": ["app"]}),
    ],
)
def test_a_good_token_in_any_form_is_taken(
    issuer: OutsideIssuer, judge: Callable[..., Judged], make: Make, members: dict[str, Any]
) -> None:
    """`typ` in both forms of RFC 9068, section 4, one audience of several, clocks half a minute apart."""
    judged = judge(make(issuer), **members)

    assert judged.scopes == {"training:participate", "model:download"}
    assert judged.role is Role.PARTICIPANT


def test_the_values_of_a_good_token_are_kept(issuer: OutsideIssuer, judge: Callable[..., Judged]) -> None:
    """Who, until when, and with which certificate it must come."""
    judged = judge(claimed(cnf={"x5t#S256": THUMBPRINT})(issuer))

    assert judged.subject == "silo-7"
    assert judged.expires_at == NOW + timedelta(seconds=600)
    assert judged.issued_at == NOW
    assert judged.thumbprint == THUMBPRINT
    assert "silo-7" not in repr(judged)
    assert THUMBPRINT not in repr(judged)


@pytest.mark.parametrize(
    ("claims", "members"),
    [
        ({}, {"clients": ["another"]}),
        ({"client_id": None}, {"clients": ["silo-7"]}),
        ({"client_id": ["silo-7"]}, {"clients": ["silo-7"]}),
        ({}, {"subject_claim": "oid"}),
        ({"oid": 7}, {"subject_claim": "oid"}),
    ],
)
def test_a_token_of_another_client_or_without_the_name_is_refused(
    issuer: OutsideIssuer, judge: Callable[..., Judged], claims: dict[str, Any], members: dict[str, Any]
) -> None:
    """`clients` lists whom the issuer's tokens are taken from; `subject_claim` says what names them."""
    with pytest.raises(BadJwt) as refused:
        judge(claimed(**claims)(issuer), **members)

    assert refused.value.reason is Fault.CLAIM


# What values are worth

KEYCLOAK = {"realm_access": {"roles": ["fl-silo", "offline_access"]}, "scope": "email profile"}
TRUST = Issuer(issuer="https://idp.example", audience="a")


@pytest.mark.parametrize(
    ("claims", "members", "role", "scopes"),
    [
        ({"scope": "audit:read training:participate"}, {}, "participant", "training:participate"),
        ({"scope": "openid email"}, {}, "participant", ""),
        ({}, {}, "participant", ""),
        ({"scope": "privacy:*"}, {"roles": {"privacy:*": "dpo"}}, "dpo", ""),
        (
            KEYCLOAK,
            {"scope_claim": "realm_access.roles", "scopes": {"fl-silo": ["training:participate"]}},
            "participant",
            "training:participate",
        ),
        (KEYCLOAK, {"scope_claim": "realm_access.nothing"}, "participant", ""),
        (KEYCLOAK, {"scope_claim": "realm_access.roles.more"}, "participant", ""),
        (
            {"roles": ["Auditor"]},
            {"scope_claim": "roles", "scopes": {"Auditor": ["audit:read"]}, "roles": {"Auditor": "auditor"}},
            "auditor",
            "audit:read",
        ),
        (
            {"roles": ["Auditor"]},  # a scope beyond the role is not given
            {"scope_claim": "roles", "scopes": {"Auditor": ["audit:read", "model:download"]}},
            "participant",
            "model:download",
        ),
        (
            {"scp": "round:manage", "groups": ["staff", "ops"]},
            {"scope_claim": "scp", "role_claim": "groups", "roles": {"ops": "operator", "staff": "dpo"}},
            "operator",
            "round:manage",
        ),
        (
            {"https://gateway.example/roles": ["r"]},
            {"scope_claim": "https://gateway.example/roles", "scopes": {"r": ["model:download"]}},
            "participant",
            "model:download",
        ),
        ({"scope": "audit:read"}, {"scopes": {"x": ["model:download"]}}, "participant", ""),
    ],
)
def test_values_are_worth_what_the_table_says_and_no_more(
    claims: dict[str, Any], members: dict[str, Any], role: str, scopes: str
) -> None:
    """What is not in the table gives nothing; without a table only our own names count; the role is the limit."""
    text = json.dumps([{"issuer": "https://idp.example", "audience": "a"} | members])
    (trust,) = parse_issuers(text)
    found = role_of_claims(trust, claims)

    assert found == role
    assert scopes_of_claims(trust, claims, found) == set(scopes.split())


@given(
    words=st.lists(st.sampled_from([*Scope, "openid", "", "x"]), max_size=12),
    table=st.dictionaries(
        st.sampled_from([*Scope, "x"]), st.lists(st.sampled_from(Scope), max_size=3).map(tuple), max_size=5
    ),
    role=st.sampled_from(Role),
)
def test_no_token_gets_more_than_its_role_and_its_table(
    words: list[str], table: dict[str, tuple[Scope, ...]], role: Role
) -> None:
    """Whatever an issuer says."""
    trust = replace(TRUST, scope_claim="roles", scopes=table)

    found = scopes_of_claims(trust, {"roles": words}, role)

    assert found <= set(BUNDLES[role])
    assert found <= {scope for word in words for scope in table.get(word, ())}


@pytest.mark.parametrize("roles", [7, {"a": 1}, [["a"]], [7], True, ["x"] * 513])
def test_a_claim_in_another_form_is_refused(roles: object) -> None:
    """A string or a list of strings; nothing else is guessed at."""
    with pytest.raises(BadJwt):
        scopes_of_claims(replace(TRUST, scope_claim="roles"), {"roles": roles}, Role.PARTICIPANT)


def test_a_whole_name_goes_before_its_parts() -> None:
    """A claim whose name has a dot is not taken for one inside of another."""
    assert claim_at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert claim_at({"a": {"b": 2}}, "a.b") == 2


# Answers to questions

ACTIVE = {"active": True, "sub": "silo-7", "aud": AUDIENCE, "scope": "model:download", "exp": NOW_S + 60}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"aud": None}, Fault.CLAIM),
        ({"aud": "x"}, Fault.AUDIENCE),
        ({"iss": "https://other.example"}, Fault.ISSUER),
        ({"exp": NOW_S - 1}, Fault.EXPIRED),
        ({"exp": "x"}, Fault.CLAIM),
        ({"nbf": NOW_S + 60}, Fault.EARLY),
        ({"sub": None}, Fault.CLAIM),
        ({"token_type": "DPoP"}, Fault.TYPE),
        ({"typ": "Refresh"}, Fault.TYPE),  # Keycloak says so of refresh tokens, and `ID` of ID tokens
        ({"typ": "ID"}, Fault.TYPE),
        ({"cnf": {"jkt": "x"}}, Fault.BINDING),
        ({"scope": ["model:download"]}, Fault.CLAIM),
    ],
)
def test_an_active_token_is_judged_like_a_signed_one(answer: dict[str, Any], fault: Fault) -> None:
    """RFC 7662, section 4: active is not enough, it must be for us and now."""
    (trust,) = parse_issuers(OutsideIssuer(url="https://idp.example").trusted())

    with pytest.raises(BadJwt) as refused:
        judge_answer(trust, ACTIVE | answer, NOW)

    assert refused.value.reason is fault


def test_an_active_token_without_an_end_is_good_until_asked_again() -> None:
    """RFC 7662: `exp` and `nbf` may be missing; a start in the future counts without an end, too."""
    (trust,) = parse_issuers(OutsideIssuer(url="https://idp.example").trusted())
    endless = {name: value for name, value in ACTIVE.items() if name != "exp"}

    judged = judge_answer(trust, endless | {"token_type": "Bearer", "iss": "https://idp.example"}, NOW)

    assert judged.expires_at is None
    assert judged.scopes == {"model:download"}
    with pytest.raises(BadJwt):
        judge_answer(trust, endless | {"nbf": NOW_S + 60}, NOW)


def test_rs256_is_no_algorithm_of_ours() -> None:
    """Only an issuer that is configured so may use it."""
    assert "RS256" not in ALGORITHMS
    assert "RS256" not in TRUST.algorithms
