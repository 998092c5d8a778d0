"""Anybody can check the erasure receipt, with the public keys alone (API.md: `typ: fl-erasure+jwt`)."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.jwk import OKPKey

from compliance.erasures.receipt import TYPE, ErasureReceipt, KeptLine, PlaceLine, sign, verify
from compliance.errors import BadReceipt
from compliance.jws import sign_compact
from compliance.keyring.keys import SigningKey

KEY = SigningKey("0123456789abcdef", Ed25519PrivateKey.from_private_bytes(b"k" * 32))
PUBLIC = KEY.private.public_key().public_bytes_raw()
KEYS = {KEY.kid: PUBLIC}
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
RECEIPT = ErasureReceipt(
    request_id="7",
    subject="ab" * 32,
    places=(PlaceLine("updates", 4, 0), PlaceLine("blobs", 4, 1)),
    kept=(KeptLine("audit entries", 2, "Art. 17(3)(b)"),),
    models_released=("1.0.1",),
    siem_copies=(),
    received=AT,
    finished=AT,
)


def test_a_receipt_reads_back_as_it_was_signed() -> None:
    """The payload says what is left, summed over the places."""
    payload = verify(sign(RECEIPT, KEY), KEYS)

    assert payload["left"] == 1
    assert payload["places"][0] == {"name": "updates", "found": 4, "left": 0}
    assert payload["finished"] == "2026-11-24T12:00:00Z"


def test_another_jose_library_verifies_it() -> None:
    """RFC 7515, 8037: the auditor uses what they have."""
    import base64

    public = OKPKey.import_key(
        {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(PUBLIC).rstrip(b"=").decode()}
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc dislikes the name EdDSA since RFC 9864
        read = jws.deserialize_compact(sign(RECEIPT, KEY), public, algorithms=["EdDSA"])

    assert read.headers() == {"alg": "EdDSA", "typ": TYPE, "kid": KEY.kid}


def test_a_changed_or_foreign_receipt_is_refused() -> None:
    """Malformed input never leaks an error that is not ours."""
    good = sign(RECEIPT, KEY)
    header, payload, signature = good.split(".")
    stranger = SigningKey(KEY.kid, Ed25519PrivateKey.generate())

    for bad in (
        f"{header}.{payload[:-2]}AA.{signature}",
        f"{header}.{payload}.",
        sign(RECEIPT, stranger),
        sign(RECEIPT, SigningKey("ffffffffffffffff", KEY.private)),
        sign_compact("fl-receipt+jwt", RECEIPT.payload(), KEY),
        "",
        "a.b.c",
        "é.é.é",
    ):
        with pytest.raises(BadReceipt):
            verify(bad, KEYS)
