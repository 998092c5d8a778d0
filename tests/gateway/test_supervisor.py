"""The parts of `serve` as a process tree: what stops it, what it starts again, and what a bad moment does to it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.supervisor import Supervisor, run_apart


@pytest.fixture(autouse=True)
def _as_serve_does() -> Iterator[None]:
    """`serve` takes note of signals and goes on; a child must not inherit that."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _idle() -> None:
    while True:
        time.sleep(60)


def test_a_stop_while_the_parts_are_starting_ends_them_at_once() -> None:
    """A signal that reaches a part before it has seen to its own handlers is not lost: nobody waits for SIGKILL."""
    stop = threading.Event()
    stop.set()
    began_s = time.monotonic()

    for _ in range(8):
        Supervisor({"one": _idle, "two": _idle}, _idle).run(stop)

    assert time.monotonic() - began_s < 10


def test_a_part_that_cannot_be_started_ends_those_that_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process is left behind that serves without anybody to look after it."""
    forked = Supervisor._forked
    note = tmp_path / "pid"

    def first_alone(supervisor: Supervisor, part: str, work: object) -> object:
        if part == "two":
            raise OSError("no more processes")
        return forked(supervisor, part, work)  # type: ignore[arg-type]

    def noting() -> None:
        note.write_text(str(os.getpid()))
        _idle()

    monkeypatch.setattr(Supervisor, "_forked", first_alone)

    with pytest.raises(OSError, match="no more processes"):
        Supervisor({"one": noting, "two": _idle}, _idle).run(threading.Event())

    assert not note.exists() or not Path("/proc", note.read_text()).exists()


def test_a_part_that_dies_is_started_again(tmp_path: Path) -> None:
    """Each part is looked after, also one that ends with a status."""
    starts, stop = tmp_path / "starts", threading.Event()

    def dying() -> None:
        with starts.open("a") as file:
            file.write("x")
        if starts.stat().st_size == 3:
            os.kill(os.getppid(), signal.SIGTERM)
            _idle()
        os._exit(3)

    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    Supervisor({"dying": dying}, lambda: None).run(stop)

    assert starts.read_text() == "xxx"


@pytest.mark.parametrize(("work", "status"), [(lambda: None, 0), (lambda: os._exit(7), 7)])
def test_what_is_done_apart_tells_how_it_ended(work: object, status: int) -> None:
    """`serve` ends with the status of its recovery."""
    assert run_apart(work) == status  # type: ignore[arg-type]
