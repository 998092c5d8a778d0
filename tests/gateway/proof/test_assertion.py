"""What a signed assertion must say, and whose key must have signed it (RFC 7523, section 3; RFC 8725)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_keys import ALGORITHM, NOON, jwk, key_set, sign
from refused.jwts import Jws

from gateway.auth.proof.assertion import (
    LEEWAY_S,
    LONGEST_EXP_S,
    LONGEST_LIFE_S,
    Assertion,
    check_assertion,
    read_assertion,
)
from gateway.auth.proof.client import OAuthClient
from gateway.auth.proof.presented import ShownAssertion
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.roster import AuthMethod, ClientStatus
from gateway.auth.scopes import Role

ISSUER = "https://fl.example.com"
AUDIENCES = frozenset({ISSUER, f"{ISSUER}/oauth/token"})
CLIENT = str(uuid4())
NOW_S = NOON.timestamp()


def made(kind: str = "Ed25519", number: int = 0, **claims: Any) -> Jws:
    """A good assertion with other claims."""
    good = {
        "iss": CLIENT,
        "sub": CLIENT,
        "aud": ISSUER,
        "jti": "j-1",
        "iat": NOW_S,
        "exp": NOW_S + 60,
    }
    return Jws({"alg": ALGORITHM[kind]}, good, sign(kind, number)).but(**claims)


def read(jws: object, named: str = "") -> Assertion:
    return read_assertion(ShownAssertion(named, str(jws)), AUDIENCES, NOON)


def client_with(*keys: dict[str, Any]) -> OAuthClient:
    return OAuthClient(
        client_id=CLIENT,
        subject_id=str(uuid4()),
        role=Role.AUDITOR,
        status=ClientStatus.ACTIVE,
        auth_method=AuthMethod.PRIVATE_KEY_JWT,
        jwks=key_set(*keys),
    )


@pytest.mark.parametrize("kind", list(ALGORITHM))
@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "client-authentication+jwt", "application/JWT"])
def test_every_algorithm_and_every_typ_of_assertions_is_taken(kind: str, typ: str | None) -> None:
    """RFC 7523bis names a typ of its own; most libraries write JWT, or none."""
    assertion = read(made(kind).headed(typ=typ, kid="a"))

    assert check_assertion(assertion, client_with(jwk(kind, kid="a"))).client_id == CLIENT


@pytest.mark.parametrize("audience", [*sorted(AUDIENCES), [ISSUER], [f"{ISSUER}/oauth/token"]])
def test_the_audience_is_the_issuer_or_the_token_endpoint(audience: object) -> None:
    """RFC 7523, section 3, point 3; a list of one says the same as its one member (decision 0120)."""
    assert read(made(aud=audience), CLIENT).client_id == CLIENT


@pytest.mark.parametrize(
    "audience",
    [[], [ISSUER, ISSUER], [[ISSUER]], [ISSUER, "https://other.example"], {ISSUER: 1}, 7, "", ISSUER.upper()],
)
def test_no_other_audience_is_taken(audience: object) -> None:
    """Exact, and alone: an assertion for two servers could be replayed by one of them at the other."""
    with pytest.raises(ClientRefused) as refused:
        read(made(aud=audience))

    assert refused.value.reason == "ASSERTION_AUDIENCE"


@pytest.mark.parametrize(
    "typ", ["at+jwt", "fl-receipt+jwt", "fl-erasure+jwt", "logout+jwt", "dpop+jwt", "JOSE"]
)
def test_no_other_kind_of_jwt_is_an_assertion(typ: str) -> None:
    """RFC 8725, section 3.11: a receipt or an access token must never prove a client."""
    with pytest.raises(ClientRefused) as refused:
        read(made().headed(typ=typ))

    assert refused.value.reason == "ASSERTION_TYPE"


_SECONDS = st.integers(-8000, 8000)


@settings(max_examples=40)
@given(expires=_SECONDS, begins=st.none() | _SECONDS, issued=st.none() | _SECONDS)
def test_an_assertion_is_good_in_its_time_alone(expires: int, begins: int | None, issued: int | None) -> None:
    """Not over, not early, an hour ahead at most, and never good for longer than five minutes from iat or from now."""
    told = {"exp": expires, "nbf": begins, "iat": issued}
    claims = {name: NOW_S + value for name, value in told.items() if value is not None}
    end = expires if issued is None else min(expires, issued + LONGEST_LIFE_S)
    is_good = (
        end > -LEEWAY_S
        and max(begins or 0, issued or 0) <= LEEWAY_S
        and expires <= LEEWAY_S + (LONGEST_LIFE_S if issued is None else LONGEST_EXP_S)
    )

    try:
        assertion = read(made(**({"iat": None} | claims)))
    except ClientRefused:
        assert not is_good
        return

    assert is_good
    assert assertion.ends_at == NOON + timedelta(seconds=end + LEEWAY_S)
    assert assertion.ends_at - NOON <= timedelta(seconds=LONGEST_LIFE_S + 2 * LEEWAY_S)


_JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)


@settings(max_examples=40)
@given(
    claims=st.dictionaries(
        st.sampled_from(("iss", "sub", "aud", "jti", "iat", "exp", "nbf")), _JSON, min_size=1
    )
)
def test_nothing_but_a_refusal_comes_of_any_claims(claims: dict[str, Any]) -> None:
    """Whatever types they have."""
    jws = replace(made(), claims=made().claims | claims)
    try:
        assertion = read(jws)
    except ClientRefused:
        return

    assert assertion.client_id == CLIENT


@settings(max_examples=40)
@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_nothing_but_a_refusal_comes_of_any_text(text: str) -> None:
    """Also of what nearly looks like a JWT."""
    with pytest.raises(ClientRefused):
        read(text)


@pytest.mark.parametrize(
    "named", [CLIENT.upper(), str(uuid4()), CLIENT + " "], ids=["in capitals", "another", "with a blank"]
)
def test_the_form_may_name_no_other_client(named: str) -> None:
    """RFC 7521, section 4.2: where client_id is given, it is the assertion's."""
    with pytest.raises(ClientRefused) as refused:
        read(made(), named)

    assert refused.value.reason == "ASSERTION_CLAIM"


def test_without_a_kid_the_only_fitting_key_is_taken() -> None:
    """With two that fit, nobody guesses."""
    assertion = read(made("P-256"))
    one = client_with(jwk("Ed25519", kid="a"), jwk("P-256", kid="b"))
    two = client_with(jwk("P-256", kid="a"), jwk("P-256", 1, kid="b"))

    assert check_assertion(assertion, one) is one
    with pytest.raises(ClientRefused) as refused:
        check_assertion(assertion, two)
    assert refused.value.reason == "ASSERTION_KEY"


@pytest.mark.parametrize(
    ("jws", "keys", "reason"),
    [
        (made("P-256").headed(kid="b"), [jwk("P-256", kid="a")], "ASSERTION_KEY"),
        (made("P-256").headed(kid="a"), [jwk("Ed25519", kid="a")], "ASSERTION_KEY"),
        (made("P-256").headed(kid="a"), [jwk("P-256", kid="a", alg="EdDSA")], "ASSERTION_KEY"),
        (made("P-256").headed(kid="a"), [jwk("P-256", 1, kid="a")], "ASSERTION_SIGNATURE"),
        (made("Ed25519", 1), [jwk("Ed25519")], "ASSERTION_SIGNATURE"),
        (made("RSA", 1), [jwk("RSA")], "ASSERTION_SIGNATURE"),
    ],
)
def test_only_the_registered_key_counts(jws: Jws, keys: list[dict[str, Any]], reason: str) -> None:
    """The named one, of the algorithm's kind; the answer does not tell a wrong key from an unknown client."""
    with pytest.raises(ClientRefused) as refused:
        check_assertion(read(jws), client_with(*keys))

    assert refused.value.reason == reason
    assert refused.value.description == ClientRefused().description


@pytest.mark.parametrize(
    "method", [method for method in AuthMethod if method is not AuthMethod.PRIVATE_KEY_JWT]
)
def test_a_client_of_another_method_cannot_sign(method: AuthMethod) -> None:
    """Exactly the registered method: keys that belong to certificates sign no assertions."""
    client = replace(client_with(jwk("Ed25519")), auth_method=method)

    with pytest.raises(ClientRefused):
        check_assertion(read(made()), client)
