"""Anybody can check the erasure receipt, with the public keys alone (API.md: `typ: fl-erasure+jwt`)."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.jwk import OKPKey

from audit.draft import SYSTEM, Personal, draft
from audit.entry import Sealed
from audit.errors import BadReceipt as RefusedReceipt
from audit.events import EventType, Retention
from audit.receipt import ReceiptKeys, parse_receipt
from compliance.erasures.commitment import commit
from compliance.erasures.receipt import (
    TYPE,
    ErasureReceipt,
    KeptLine,
    LogPromise,
    Method,
    ModelLine,
    PlaceLine,
    RecipientLine,
    verify,
)
from compliance.erasures.receipt import sign as sign_for
from compliance.errors import BadReceipt
from compliance.jws import sign_compact
from compliance.keyring.keys import SigningKey

KEY = SigningKey("0123456789abcdef", Ed25519PrivateKey.from_private_bytes(b"k" * 32))
PUBLIC = KEY.private.public_key().public_bytes_raw()
KEYS = {KEY.kid: PUBLIC}
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
SUBJECT = "9e107d9d-372b-4b82-9e2a-000000000007"
RECEIPT = ErasureReceipt(
    request_id="7",
    subject=commit(b"k" * 32, SUBJECT),
    data_map="cd" * 32,
    places=(
        PlaceLine("updates", 4, Method.DELETED, 0, AT),
        PlaceLine("audit_log", 4, Method.KEY_DESTROYED, 1, AT),
        PlaceLine("message_broker", None, Method.EXPIRES, None, AT),
    ),
    exceptions=(KeptLine("audit entries", 2, "Art. 17(3)(b)", date(2028, 11, 24)),),
    recipients=(RecipientLine("file:siem", AT), RecipientLine("webhook", None)),
    models=(ModelLine("m", "1.0.1", "1.0.3", 3, "2.5", "0.00001", "bounded", "1.0.0"),),
    backups_until=date(2026, 12, 29),
    received=AT,
    finished=AT,
)


class Plain:
    """Seals nothing: the entry of these tests names nobody."""

    def seal(self, subject: str, retention: Retention, context: str, value: object, at: datetime) -> Sealed:
        return Sealed("AA==", "key")

    def open(self, sealed: Sealed, context: str) -> None:
        return None


ENTRY = draft(
    EventType.PRIVACY_ERASED,
    sealer=Plain(),  # type: ignore[arg-type]
    now=AT,
    actor=Personal(SYSTEM, "desk"),
    action="erased",
    details={"case_id": "7", "places": [], "left": 1, "sinks": [], "receipt_digest": RECEIPT.digest()},
)


def sign(receipt: ErasureReceipt, key: SigningKey) -> str:
    return sign_for(receipt, LogPromise(ENTRY, "test.example/log", 86_400), key)


def test_a_receipt_reads_back_as_it_was_signed() -> None:
    """The payload says per place what was found, how it went, what is left and when; what stays, why, until when."""
    payload = verify(sign(RECEIPT, KEY), KEYS)

    assert payload["left"] == 1
    at = "2026-11-24T12:00:00Z"
    assert payload["places"][0] == {
        "name": "updates",
        "found": 4,
        "method": "deleted",
        "left": 0,
        "at": at,
    }
    assert payload["places"][2]["found"] is None
    assert payload["exceptions"][0]["until"] == "2028-11-24"
    assert payload["recipients"] == [{"name": "file:siem", "told": at}, {"name": "webhook", "told": None}]
    assert (payload["backups_until"], payload["finished"]) == ("2026-12-29", at)
    assert payload["models"][0]["epsilon"] == "2.5"


def test_the_logs_verifier_reads_the_place_in_the_log_out_of_it() -> None:
    """RULES 21: the receipt promises an entry, with just this content, as the receipt of an update does."""
    keys = ReceiptKeys({KEY.kid: KEY.private.public_key()})

    promised = parse_receipt(sign(RECEIPT, KEY), keys)

    assert (promised.entry_id, promised.entry_digest) == (ENTRY.id, ENTRY.digest())
    assert promised.body_hash == RECEIPT.digest()
    assert (promised.origin, promised.received_at) == ("test.example/log", AT)


def test_an_erasure_receipt_without_its_place_in_the_log_is_refused() -> None:
    """A text that says nothing of the log proves nothing about it."""
    bare = sign_compact(TYPE, RECEIPT.facts(), KEY)

    with pytest.raises(RefusedReceipt, match="log is missing"):
        parse_receipt(bare, None)
    with pytest.raises(BadReceipt, match="not those"):
        verify(bare, KEYS)


def test_facts_that_the_log_does_not_stand_for_are_refused() -> None:
    """The entry holds the hash of the facts: whoever has the key cannot sign other facts for the same entry."""
    payload = verify(sign(RECEIPT, KEY), KEYS)

    with pytest.raises(BadReceipt):
        verify(sign_compact(TYPE, {**payload, "left": 0}, KEY), KEYS)


def test_only_who_has_the_key_can_tell_whose_receipt_it_is() -> None:
    """The commitment is an HMAC: without the key, the subject id alone does not lead to it."""
    assert commit(b"k" * 32, SUBJECT) == RECEIPT.subject
    assert commit(b"l" * 32, SUBJECT) != RECEIPT.subject
    assert commit(b"k" * 32, SUBJECT[:-1] + "8") != RECEIPT.subject


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
        sign_compact("fl-receipt+jwt", RECEIPT.facts(), KEY),
        "",
        "a.b.c",
        "é.é.é",
    ):
        with pytest.raises(BadReceipt):
            verify(bad, KEYS)
