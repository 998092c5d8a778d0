"""Which keys may be registered for a client (RFC 7517, 7518, 8037), and which certificates they stand for."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_keys import certificate, jwk, key_set, of_unknown_version, pem, x5c

from gateway.auth.client_certificate import read_certificate
from gateway.auth.proof.key_set import KeySetRefused, checked_key_set, has_certificate
from gateway.auth.roster import AuthMethod

SIGNED, SELF_SIGNED = AuthMethod.PRIVATE_KEY_JWT, AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH
EDDSA = jwk("Ed25519")


@pytest.mark.parametrize("kind", ["Ed25519", "P-256", "RSA"])
def test_keys_of_the_three_algorithms_are_taken(kind: str) -> None:
    """EdDSA, ES256, PS256; with or without a name."""
    for told in (jwk(kind), jwk(kind, kid="a", use="sig", key_ops=["verify"])):
        (kept,) = checked_key_set(key_set(told), SIGNED)["keys"]

        assert kept.items() <= told.items()
        assert "key_ops" not in kept


def test_what_nobody_reads_is_not_kept() -> None:
    """A JWK may carry a person's name or mail address: only the members that count are kept."""
    told = key_set(jwk("P-256", kid="a", owner="canary", exp=7)) | {"contact": "canary"}

    assert "canary" not in str(checked_key_set(told, SIGNED))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "JWK set"),
        ([], "JWK set"),
        ({}, "JWK set"),
        ({"keys": {}}, "JWK set"),
        ({"keys": []}, "1 to 10"),
        ({"keys": [jwk("Ed25519", number, kid=str(number)) for number in range(11)]}, "1 to 10"),
        ({"keys": ["x"]}, "no JSON object"),
        ({"keys": [EDDSA | {"d": "canary"}]}, "is secret"),
        ({"keys": [jwk("RSA") | {"p": "canary"}]}, "is secret"),
        ({"keys": [{"kty": "oct", "k": "canary"}]}, "is secret"),
        ({"keys": [{"kty": "oct"}]}, "is secret"),
        ({"keys": [{"kty": "AKP", "pub": "x"}]}, "of a kind"),
        ({"keys": [{"kty": ["OKP"]}]}, "of a kind"),
        ({"keys": [EDDSA | {"crv": "X25519"}]}, "of a kind"),
        ({"keys": [EDDSA | {"crv": "Ed448"}]}, "of a kind"),
        ({"keys": [EDDSA | {"crv": ["Ed25519"]}]}, "of a kind"),
        ({"keys": [jwk("P-256") | {"crv": "secp256k1"}]}, "of a kind"),
        ({"keys": [jwk("P-256") | {"x": "AAAA"}]}, "cannot be read"),
        ({"keys": [jwk("P-256") | {"x": 7}]}, "cannot be read"),
        ({"keys": [{"kty": "EC", "crv": "P-256"}]}, "cannot be read"),
        ({"keys": [jwk("RSA") | {"e": "AQ"}]}, "cannot be read"),
        ({"keys": [jwk("RSA-1024")]}, "2048"),
        ({"keys": [jwk("P-384")]}, "cannot sign"),
        ({"keys": [EDDSA | {"alg": "ES256"}]}, "cannot sign"),
        ({"keys": [jwk("RSA") | {"alg": "RS256"}]}, "cannot sign"),
        ({"keys": [EDDSA | {"use": "enc"}]}, "not for signatures"),
        ({"keys": [EDDSA | {"key_ops": ["sign"]}]}, "not for signatures"),
        ({"keys": [EDDSA | {"kid": ""}]}, "kid"),
        ({"keys": [EDDSA | {"kid": 7}]}, "kid"),
        ({"keys": [EDDSA | {"kid": "a" * 257}]}, "kid"),
        ({"keys": [EDDSA | {"kid": "a"}, jwk("P-256") | {"kid": "a"}]}, "same kid"),
        ({"keys": [EDDSA | {"kid": "a"}, jwk("P-256")]}, "needs a kid"),
        ({"keys": [EDDSA | {"kid": "a"}, EDDSA | {"kid": "b"}]}, "twice"),
        ({"keys": [jwk("P-256") | {"x5c": []}]}, "x5c"),
        ({"keys": [jwk("P-256") | {"x5c": ["!"]}]}, "x5c"),
        ({"keys": [jwk("P-256") | {"x5c": "text"}]}, "x5c"),
        ({"keys": [jwk("P-256") | {"x5c": [b64encode(of_unknown_version(certificate())).decode()]}]}, "x5c"),
        ({"keys": [jwk("P-256", 1) | {"x5c": x5c(certificate("P-256"))}]}, "another key"),
    ],
)
def test_a_set_that_proves_nothing_is_refused_with_the_reason(told: Any, said: str) -> None:
    """Secret, symmetric, weak, unknown, doubled, malformed; and no member of it is repeated in the answer."""
    with pytest.raises(KeySetRefused, match=said) as refused:
        checked_key_set(told, SIGNED)

    assert "canary" not in str(refused.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_MEMBERS = st.sampled_from(("kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "key_ops", "x5c"))
_KEYS = st.sampled_from(("Ed25519", "P-256", "RSA")).map(jwk)


@settings(max_examples=40)
@given(
    key=_KEYS,
    changes=st.dictionaries(_MEMBERS, _JSON, min_size=1, max_size=3),
    method=st.sampled_from([SIGNED, SELF_SIGNED]),
)
def test_nothing_but_a_refusal_comes_of_any_json(
    key: dict[str, Any], changes: dict[str, Any], method: AuthMethod
) -> None:
    """What an operator pastes is judged, and never answered with a traceback."""
    try:
        kept = checked_key_set({"keys": [key | changes]}, method)
    except KeySetRefused:
        return

    assert len(kept["keys"]) == 1


def test_a_certificate_is_the_registered_one_or_has_the_registered_key() -> None:
    """RFC 8705, section 2.2: `x5c` pins the certificate, a bare key allows a new certificate on the same key."""
    mine, renewed, other = certificate("P-256"), certificate("P-256", days=(-1, 30)), certificate("P-256", 1)
    pinned = checked_key_set(key_set(jwk("P-256", kid="a", x5c=x5c(mine))), SELF_SIGNED)
    bare = checked_key_set(key_set(jwk("RSA", kid="r"), jwk("P-256", kid="a")), SELF_SIGNED)
    shown = {
        name: read_certificate(pem(made))
        for name, made in (("mine", mine), ("renewed", renewed), ("other", other))
    }

    assert {name for name, made in shown.items() if has_certificate(pinned, made)} == {"mine"}
    assert {name for name, made in shown.items() if has_certificate(bare, made)} == {"mine", "renewed"}


@pytest.mark.parametrize("kind", ["Ed25519", "P-256", "P-384", "RSA"])
def test_certificates_may_have_keys_that_sign_no_assertions(kind: str) -> None:
    """TLS knows more curves than our JWTs do."""
    kept = checked_key_set(key_set(jwk(kind)), SELF_SIGNED)

    assert has_certificate(kept, read_certificate(pem(certificate(kind))))
