"""Sealing: only the right key opens a value, only in its place, and its length tells little (RULES 15-17)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.entry import Sealed
from audit.errors import KeyDestroyed
from audit.events import Retention
from compliance.errors import CannotOpen
from compliance.keyring.sealing import PAD_BYTES, SubjectSealer, pad, unpad

if TYPE_CHECKING:
    from conftest import House

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
PART = Retention.PARTICIPATION
ONE_HOUSE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def sealer(house: House) -> SubjectSealer:
    found: SubjectSealer = house.sealer
    return found


@ONE_HOUSE
@given(value=VALUES, context=st.text(min_size=1, max_size=60))
def test_what_was_sealed_opens_in_its_place(sealer: SubjectSealer, value: object, context: str) -> None:
    """RULES 15: sealing loses nothing."""
    sealed = sealer.seal("person", PART, context, value, AT)

    assert sealer.open(sealed, context) == value


@ONE_HOUSE
@given(place=st.text(max_size=40), other=st.text(max_size=40))
def test_what_was_sealed_opens_in_no_other_place(sealer: SubjectSealer, place: str, other: str) -> None:
    """RULES 15: entry id and field are bound to the ciphertext."""
    sealed = sealer.seal("person", PART, place, "Ada", AT)

    if other != place:
        with pytest.raises(CannotOpen):
            sealer.open(sealed, other)


@ONE_HOUSE
@given(value=VALUES, position=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_changed_ciphertext_does_not_open(
    sealer: SubjectSealer, value: object, position: int, change: int
) -> None:
    """Any changed byte is found."""
    sealed = sealer.seal("person", PART, "place", value, AT)
    changed = bytearray(base64.b64decode(sealed.enc))
    changed[position % len(changed)] ^= change

    with pytest.raises(CannotOpen):
        sealer.open(Sealed(base64.b64encode(changed).decode(), sealed.key), "place")


def test_another_key_does_not_open_it(sealer: SubjectSealer) -> None:
    """RULES 15: a ciphertext under one person's key says nothing under another's."""
    mine, theirs = (sealer.seal(person, PART, "place", "Ada", AT) for person in ("me", "them"))

    with pytest.raises(CannotOpen):
        sealer.open(Sealed(mine.enc, theirs.key), "place")


@given(VALUES)
def test_padding_fills_whole_blocks_and_comes_off(value: object) -> None:
    """RULES 15: lengths are padded."""
    padded = pad(value)

    assert len(padded) % PAD_BYTES == 0
    assert unpad(padded) == value


def test_names_of_near_lengths_have_ciphertexts_of_one_length(sealer: SubjectSealer) -> None:
    """RULES 15: the length of a name does not tell whose it is."""
    lengths = {len(sealer.seal("person", PART, "place", "x" * size, AT).enc) for size in range(1, 27)}

    assert len(lengths) == 1


def test_a_value_sealed_twice_looks_different(sealer: SubjectSealer) -> None:
    """No reader can see that two entries say the same."""
    assert sealer.seal("person", PART, "p", "Ada", AT).enc != sealer.seal("person", PART, "p", "Ada", AT).enc


def test_nothing_opens_once_the_key_is_destroyed(house: House, sealer: SubjectSealer) -> None:
    """Promise 5: values, columns, blobs and HMACs die with the key."""
    sealed = sealer.seal("person", PART, "place", "Ada", AT)
    column = sealer.seal_column("person", PART, "clients", "name", "7", "Ada", AT)
    key_id, mac = sealer.hmac("person", PART, b"update", AT)
    assert sealer.hmac_under(key_id, b"update") == mac
    assert sealer.open_column(column, "clients", "name", "7") == "Ada"

    house.keystore.destroy([key_id])

    for attempt in (
        lambda: sealer.open(sealed, "place"),
        lambda: sealer.open_column(column, "clients", "name", "7"),
        lambda: sealer.blob_key(key_id, "blob"),
        lambda: sealer.hmac_under(key_id, b"update"),
    ):
        with pytest.raises(KeyDestroyed):
            attempt()


def test_a_column_opens_in_its_own_row_alone(sealer: SubjectSealer) -> None:
    """RULES 16: a sealed column copied into another row or column is refused."""
    column = sealer.seal_column("person", PART, "clients", "name", "7", {"name": "Ada"}, AT)

    for place in (("clients", "name", "8"), ("clients", "address", "7"), ("users", "name", "7")):
        with pytest.raises(CannotOpen):
            sealer.open_column(column, *place)
    with pytest.raises(CannotOpen):
        sealer.open_column({"enc": "not base64!", "key": column["key"]}, "clients", "name", "7")
    with pytest.raises(CannotOpen):
        sealer.open_column({"name": "Ada"}, "clients", "name", "7")


def test_every_blob_has_a_key_of_its_own(sealer: SubjectSealer) -> None:
    """RULES 17: data key = HKDF(subject key, blob id)."""
    blobs = [uuid4().hex for _ in range(3)]
    made = [sealer.new_blob_key("person", PART, blob, AT) for blob in blobs]

    assert len({key for _, key in made}) == 3
    assert [sealer.blob_key(key_id, blob) for (key_id, _), blob in zip(made, blobs, strict=True)] == [
        key for _, key in made
    ]


def test_an_hmac_is_of_one_subject(sealer: SubjectSealer) -> None:
    """No guessing oracle: the same update of two people has two HMACs."""
    assert sealer.hmac("me", PART, b"update", AT) != sealer.hmac("them", PART, b"update", AT)
