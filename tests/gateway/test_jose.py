"""Reading and checking JWTs of anybody: published vectors, and nothing but `BadJwt` for what is none."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.auth.jose import (
    LONGEST_JWT,
    BadJwt,
    Fault,
    certificate_binding,
    check_audience,
    check_issuer,
    check_times,
    check_type,
    read_jwt,
    read_key,
    read_keys,
    scope_words,
    verify_jwt,
)

# RFC 8037, appendix A: the key, its thumbprint (RFC 7638), and a signature over text that is no JSON object.
A_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
A_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
A_SIGNED = (
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
GOOD = {"iss": "https://a.example", "aud": "https://b.example", "scope": "a b"}


def part(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()


def compact(header: object = None, claims: object = None, signature: str = "c2ln") -> str:
    return f"{part({'alg': 'EdDSA'} if header is None else header)}.{part(claims or GOOD)}.{signature}"


def fault_of(work: Callable[[], object]) -> Fault:
    with pytest.raises(BadJwt) as caught:
        work()
    return caught.value.reason


def test_the_rfc_s_key_and_signature_are_taken() -> None:
    """RFC 8037, A.3 and A.4; its payload is no JSON object, and so no JWT."""
    key = read_keys({"keys": [A_KEY]})[A_THUMBPRINT]
    signed, _, signature = A_SIGNED.rpartition(".")

    key.public.verify(  # type: ignore[call-arg]
        base64.urlsafe_b64decode(signature + "=="), signed.encode()
    )

    assert fault_of(lambda: read_jwt(A_SIGNED)) is Fault.MALFORMED


@pytest.mark.parametrize("algorithm", ["Ed25519", "ES256", "PS256"])
def test_what_another_library_signs_is_verified(algorithm: str) -> None:
    """RFC 7515, by joserfc; a changed claim or another key is found."""
    makers: dict[str, Callable[[], Any]] = {
        "Ed25519": lambda: OKPKey.generate_key("Ed25519", {"kid": "one"}),
        "ES256": lambda: ECKey.generate_key("P-256", {"kid": "one"}),
        "PS256": lambda: RSAKey.generate_key(2048, {"kid": "one"}),
    }
    mine, other = makers[algorithm](), makers[algorithm]()
    header = {"alg": algorithm, "kid": "one"}
    text = jws.serialize_compact(header, json.dumps(GOOD).encode(), mine, algorithms=[algorithm])
    keys = {"one": read_key(mine.as_dict(private=False))}
    assert keys["one"] is not None

    verify_jwt(read_jwt(text), keys)  # type: ignore[arg-type]

    head, _, tail = text.split(".")
    forged = f"{head}.{part(GOOD | {'scope': 'all'})}.{tail}"
    strange = {"one": read_key(other.as_dict(private=False))}
    assert fault_of(lambda: verify_jwt(read_jwt(forged), keys)) is Fault.SIGNATURE  # type: ignore[arg-type]
    assert fault_of(lambda: verify_jwt(read_jwt(text), strange)) is Fault.SIGNATURE  # type: ignore[arg-type]
    assert fault_of(lambda: verify_jwt(read_jwt(text), {})) is Fault.KEY


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ({"alg": "none"}, Fault.ALGORITHM),
        ({"alg": "HS256"}, Fault.ALGORITHM),
        ({"alg": "RS256"}, Fault.ALGORITHM),
        ({"alg": ["EdDSA"]}, Fault.ALGORITHM),
        ({}, Fault.ALGORITHM),
        *(
            ({"alg": "EdDSA", name: "x"}, Fault.HEADER)
            for name in ("jku", "x5u", "jwk", "x5c", "crit", "zip")
        ),
        ({"alg": "EdDSA", "kid": 1}, Fault.HEADER),
        ({"alg": "EdDSA", "kid": "k" * 300}, Fault.HEADER),
        ({"alg": "EdDSA", "typ": 1}, Fault.HEADER),
        ('{"alg":"EdDSA","alg":"EdDSA"}', Fault.MALFORMED),
        ("[]", Fault.MALFORMED),
        ("[" * 4000, Fault.MALFORMED),
    ],
)
def test_a_header_that_could_mislead_is_refused(header: object, fault: Fault) -> None:
    """RFC 8725: pinned algorithms, no key from the token itself, no extension, no member twice."""
    assert fault_of(lambda: read_jwt(compact(header))) is fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "..",
        compact(signature=""),
        compact(signature="c2ln="),
        compact(signature="c2lz!"),
        compact(signature="c2lnx"),
        compact(signature="c2lh").replace("c2lh", "c2h"),  # bits behind the last byte
        compact(claims='{"a": NaN}'),
        compact(claims='{"a": "\\ud800"}'),
        compact(claims='{"a": "\\u0000"}'),
        compact(claims='{"a": 1, "a": 2}'),
        compact(claims={"a": "x" * LONGEST_JWT}),
    ],
)
def test_a_text_in_another_form_is_refused(text: str) -> None:
    """RFC 7515, section 2: three parts of base64url, without padding, in the one form that encoding gives."""
    assert fault_of(lambda: read_jwt(text)) is Fault.MALFORMED


@given(
    st.one_of(
        st.text(max_size=300),
        st.builds(lambda a, b, c: f"{part(a)}.{part(b)}.{part(c)}", *[st.text(max_size=80)] * 3),
        st.builds(
            lambda claims: compact(claims=claims),
            st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.floats() | st.none()),
        ),
    )
)
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever a stranger sends is read, or is a `BadJwt`."""
    try:
        read = read_jwt(text)
    except BadJwt:
        return
    assert read.algorithm == "EdDSA"


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"]), st.text() | st.none()
    )
)
def test_no_key_raises_anything(jwk: dict[str, Any]) -> None:
    """A key in another form is passed over (RFC 7517, section 5)."""
    assert read_key(A_KEY | jwk) is None or isinstance(read_key(A_KEY | jwk).kid, str)  # type: ignore[union-attr]


def test_only_keys_that_fit_are_kept() -> None:
    """By kind, curve, size, purpose and algorithm; a set that is none has no key."""
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505 - to be refused
    modulus = base64.urlsafe_b64encode(numbers.n.to_bytes(128)).rstrip(b"=").decode()
    small = {"kty": "RSA", "n": modulus, "e": "AQAB"}
    curve = ECKey.import_key(ec.generate_private_key(ec.SECP384R1())).as_dict(private=False)
    odd = [small, curve, {"kty": "oct", "k": "AA"}, A_KEY | {"use": "enc"}, A_KEY | {"alg": "RS256"}, 5, None]

    assert read_keys({"keys": odd}) == {}
    assert read_keys({"keys": "x"}) == read_keys([]) == {}
    assert list(read_keys({"keys": [*odd, A_KEY, A_KEY | {"kid": "b"}]})) == [A_THUMBPRINT, "b"]


def test_an_own_key_cannot_check_another_algorithm() -> None:
    """The key decides, not the header (RFC 8725, section 3.1)."""
    public = read_key(A_KEY)
    assert public is not None

    assert fault_of(lambda: verify_jwt(read_jwt(compact({"alg": "ES256"})), {"a": public})) is Fault.KEY
    assert public.algorithms == ("EdDSA", "Ed25519")
    assert Ed25519PrivateKey.generate().public_key() != public.public


@pytest.mark.parametrize(
    ("claims", "fault"),
    [
        ({"exp": NOW.timestamp()}, Fault.EXPIRED),
        ({"exp": NOW.timestamp() + 9, "nbf": NOW.timestamp() + 6}, Fault.EARLY),
        ({"exp": NOW.timestamp() + 9, "iat": NOW.timestamp() + 6}, Fault.EARLY),
        ({}, Fault.CLAIM),
        ({"exp": "1"}, Fault.CLAIM),
        ({"exp": True}, Fault.CLAIM),
        ({"exp": 1e300}, Fault.CLAIM),
        ({"exp": NOW.timestamp() + 9, "nbf": None}, Fault.CLAIM),
    ],
)
def test_times_are_numbers_and_hold(claims: dict[str, Any], fault: Fault) -> None:
    """RFC 7519, section 4.1: over, not yet valid, or no NumericDate."""
    leeway_s = 0.0 if fault is Fault.EXPIRED else 5.0

    assert fault_of(lambda: check_times(claims, NOW, leeway_s)) is fault
    check_times({"exp": NOW.timestamp() - 4, "iat": NOW.timestamp() + 4}, NOW, 5.0)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (lambda: check_audience({"aud": "b"}, "a"), Fault.AUDIENCE),
        (lambda: check_audience({"aud": ["a", 1]}, "a"), Fault.CLAIM),
        (lambda: check_audience({}, "a"), Fault.CLAIM),
        (lambda: check_issuer({"iss": "https://a/"}, "https://a"), Fault.ISSUER),
        (lambda: check_type(read_jwt(compact()), "at+jwt"), Fault.TYPE),
        (lambda: check_type(read_jwt(compact({"alg": "EdDSA", "typ": "JWT"})), "at+jwt"), Fault.TYPE),
        (lambda: scope_words({"scope": ["a"]}), Fault.CLAIM),
        (lambda: scope_words({"scope": 5}), Fault.CLAIM),
        (lambda: scope_words({}), Fault.CLAIM),
        (lambda: certificate_binding({"cnf": {"jkt": "x"}}), Fault.BINDING),
        (lambda: certificate_binding({"cnf": {"x5t#S256": "a" * 43, "jkt": "x"}}), Fault.BINDING),
        (lambda: certificate_binding({"cnf": {"x5t#S256": "short"}}), Fault.BINDING),
        (lambda: certificate_binding({"cnf": None}), Fault.BINDING),
    ],
)
def test_claims_mean_exactly_what_they_say(check: Callable[[], object], fault: Fault) -> None:
    """RFC 9068, section 4; RFC 8705, section 3.1: nothing is guessed, nothing unknown is passed over."""
    assert fault_of(check) is fault


def test_good_claims_are_read() -> None:
    """One audience of several; `typ` in either form; a binding, or none."""
    check_audience({"aud": ["x", "a"]}, "a")
    check_type(read_jwt(compact({"alg": "EdDSA", "typ": "Application/AT+JWT"})), "at+jwt")

    assert scope_words({"scope": "a  b"}) == ("a", "b")
    assert certificate_binding({}) is None
    assert certificate_binding({"cnf": {"x5t#S256": "a" * 43}}) == "a" * 43
    assert "a.example" not in repr(read_jwt(compact()))
