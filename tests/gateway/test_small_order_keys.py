"""Ed25519 keys of small order: one signature of such a key fits any message, so that it proves nothing."""

from __future__ import annotations

import base64
from itertools import product

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.jwk import proves_nothing, read_keys

# The curve of RFC 8032, section 5.1: -x^2 + y^2 = 1 + d x^2 y^2 modulo p, whose group has 8 L points.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
L = 2**252 + 27742317777372353535851937790883648493
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def added(first: Point, second: Point) -> Point:
    """The sum of two points (RFC 8032, section 5.1.4)."""
    (x1, y1), (x2, y2) = first, second
    both = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + both, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - both, -1, P)
    return x % P, y % P


def times(number: int, point: Point) -> Point:
    """The point, added to itself so often."""
    result = NEUTRAL
    while number:
        if number & 1:
            result = added(result, point)
        point, number = added(point, point), number >> 1
    return result


def point_at(y: int) -> Point | None:
    """A point of this height (RFC 8032, section 5.1.3), or None."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    for root in (x, x * ROOT_OF_MINUS_ONE % P):
        if root * root % P == square:
            return root, y
    return None


def of_small_order() -> set[Point]:
    """All eight: what a point times L is divides 8."""
    points, y = {NEUTRAL}, 2
    while len(points) < 8:
        if point := point_at(y):
            one = times(L, point)
            points |= {times(factor, one) for factor in range(8)}
        y += 1
    return points


def encodings(y: int) -> set[bytes]:
    """A height as a key may write it: with either sign of x, and a second time where there is room."""
    heights = [each for each in (y, y + P) if each < 2**255]
    return {(each | sign << 255).to_bytes(32, "little") for each, sign in product(heights, (0, 1))}


KEYS = sorted(set().union(*(encodings(y) for _, y in of_small_order())))


def jwk(public: bytes) -> dict[str, str]:
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k"}


def test_all_of_them_are_known() -> None:
    """Seven heights, each with either sign."""
    assert len(KEYS) == 14
    assert all(proves_nothing(key) for key in KEYS)
    assert read_keys({"keys": [jwk(key) for key in KEYS]}) == {}


@pytest.mark.parametrize("message", [b"an update", b"another one"])
def test_one_signature_fits_any_message(message: bytes) -> None:
    """Why they are refused: the neutral element as key and as R, and zero for S."""
    neutral = (1).to_bytes(32, "little")

    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), message)

    with pytest.raises(InvalidSignature):
        Ed25519PrivateKey.generate().public_key().verify(neutral + bytes(32), message)


@given(st.binary(min_size=32, max_size=32))
def test_no_key_that_somebody_drew_is_among_them(seed: bytes) -> None:
    """A private key is a multiple of 8 times the base point, whose order is L."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    assert not proves_nothing(public)
    assert list(read_keys({"keys": [jwk(public)]})) == ["k"]
