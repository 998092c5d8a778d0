"""Releases run beside the worker's turn, a few at a time: a slow evaluation holds up no other round and no erasure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from gateway.rounds.record import Round

AT_ONCE = 2


class Releases:
    """At most one release of a round at a time; the threads belong to one worker.

    Args:
        run: makes a round's model, or fails the round; safe to repeat.
    """

    def __init__(self, run: Callable[[Round], None]) -> None:
        self._run = run
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="release")
        self._running: dict[int, tuple[Round, Future[None]]] = {}

    def begin(self, found: Round) -> bool:
        """Begin with the release of a round, unless it is under way; says whether it did."""
        if found.round_id in self._running:
            return False
        self._running[found.round_id] = found, self._pool.submit(self._run, found)
        return True

    def ended(self) -> Iterator[tuple[Round, BaseException | None]]:
        """Each release that ended since, with what it raised."""
        for round_id, (found, future) in list(self._running.items()):
            if future.done():
                del self._running[round_id]
                yield found, future.exception()

    def wait(self) -> None:
        """Wait until no release is under way."""
        wait([future for _, future in self._running.values()])

    def close(self) -> None:
        """Finish what is under way, and begin nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
