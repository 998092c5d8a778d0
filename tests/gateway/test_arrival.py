"""The lanes of an upload: in order, bounded, and what goes wrong in one is told by the request's own thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256

import pytest

from aggregation.errors import BadFormat
from gateway.rounds import arrival
from gateway.rounds.arrival import INLINE_BYTES, arrive

_CHUNK = bytes(range(256)) * 1024


@pytest.fixture(params=[2, 4], ids="{} cores".format, autouse=True)
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many lanes have a thread depends on it, and nothing else does."""
    count: int = request.param
    monkeypatch.setattr(arrival, "CORES", count)
    return count


def _chunks(count: int, seen: list[int] | None = None) -> Iterator[bytes]:
    for number in range(count):
        if seen is not None:
            seen.append(number)
        yield number.to_bytes(4, "big") + _CHUNK


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_every_byte_is_hashed_and_taken_in_its_order(count: int) -> None:
    """A body of any size: with and without threads."""
    taken: list[bytes] = []

    digest, size_bytes = arrive(_chunks(count), taken.append)

    assert taken == list(_chunks(count))
    assert digest == sha256(b"".join(taken)).digest()
    assert size_bytes == sum(map(len, taken))


def test_what_a_lane_raises_ends_the_upload_soon_and_leaves_no_thread() -> None:
    """A bad update is refused while most of it is still outside, and nobody works on when its blob is removed."""
    before, seen = set(threading.enumerate()), list[int]()

    def take(chunk: bytes) -> None:
        if int.from_bytes(chunk[:4], "big") == 20:
            raise BadFormat("w", "the tensor holds NaN")

    with pytest.raises(BadFormat):
        arrive(_chunks(1000, seen), take)

    assert len(seen) < 30
    assert not set(threading.enumerate()) - before


def test_a_slow_lane_holds_the_body_back() -> None:
    """Memory stays bounded: the body is at most a few chunks ahead of the slowest lane."""
    may_go, seen, taken = threading.Event(), list[int](), list[int]()

    def take(chunk: bytes) -> None:
        taken.append(int.from_bytes(chunk[:4], "big"))
        if len(taken) * len(chunk) > INLINE_BYTES + len(chunk):
            may_go.wait(20)

    upload = threading.Thread(target=arrive, args=(_chunks(100, seen), take))
    upload.start()
    upload.join(0.5)

    assert len(seen) - len(taken) <= 4
    may_go.set()
    upload.join(20)
    assert taken == list(range(100))


def test_a_small_body_starts_no_thread() -> None:
    """A thread would take longer than the work."""
    threads = set[int]()

    arrive(_chunks(2), lambda _: threads.add(threading.get_ident()))

    assert threads == {threading.get_ident()}
