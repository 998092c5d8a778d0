"""`serve` as one process tree: it binds the port, forks each part, and forks again what dies.

The parts are forked from a process that has loaded all modules and opened nothing: they start at once and share its
memory. A part holds the reading end of a pipe from here: when this process is gone, however it went, the part ends too.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkProcess

from setproctitle import setproctitle

log = logging.getLogger(__name__)
STOP_PATIENCE_S = 20.0
_LOOK_S = 0.1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_SOUND_S = 60.0  # a part that lived this long starts again as if for the first time
_FORK = multiprocessing.get_context("fork")
_ENDING = (signal.SIGTERM, signal.SIGINT)
Work = Callable[[], object]


def run_apart(work: Work) -> int | None:
    """Do something in a process of its own, so that this one opens nothing; how that ended, as its exit status."""
    child = _FORK.Process(target=_as_command, args=(work,))
    _start_heedful(child)
    child.join()
    return child.exitcode


class Supervisor:
    """Keeps the parts running until told to stop.

    Args:
        parts: by name, what each does; it returns, or is ended by SIGTERM.
        announce: tells the world once that the parts answer; has a process of its own, too.
    """

    def __init__(self, parts: Mapping[str, Work], announce: Work) -> None:
        self._parts = parts
        self._announce = announce
        self._reading, self._writing = os.pipe()
        self._children: dict[str, ForkProcess] = {}
        self._announcer: ForkProcess | None = None
        self._pause_s: dict[str, float] = {}
        self._due_s: dict[str, float] = {}
        self._began_s: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Start all parts and keep them up; on `stop`, end them in order and wait."""
        setproctitle("fl-gateway: serve")
        gc.freeze()  # what is shared now stays shared: no collection touches it
        try:
            for part in self._parts:
                self._start(part)
            self._announcer = self._forked("announce", self._announce)
            while not stop.wait(_LOOK_S):
                self._announcer.join(0)  # once it has told, nothing of it is left
                self._start_again()
        finally:
            self._end([*self._children.values(), *([self._announcer] if self._announcer else [])])

    def _start(self, part: str) -> None:
        self._children[part] = self._forked(part, self._parts[part])
        self._began_s[part] = time.monotonic()
        self._due_s.pop(part, None)

    def _forked(self, part: str, work: Work) -> ForkProcess:
        child = _FORK.Process(target=self._be, args=(part, work), name=part)
        _start_heedful(child)
        return child

    def _be(self, part: str, work: Work) -> None:
        """In the child: be that part, for as long as the parent is there."""
        os.setsid()
        os.close(self._writing)
        setproctitle(f"fl-gateway: {part}")
        threading.Thread(target=_end_with, args=(self._reading,), name="parent-watch", daemon=True).start()
        _as_command(work)

    def _start_again(self) -> None:
        now = time.monotonic()
        for part, child in self._children.items():
            if child.is_alive():
                continue
            if part not in self._due_s:
                if now - self._began_s[part] >= _SOUND_S:
                    self._pause_s.pop(part, None)
                pause = self._pause_s[part] = min(
                    self._pause_s.get(part, _FIRST_PAUSE_S / 2) * 2, _LONGEST_PAUSE_S
                )
                self._due_s[part] = now + pause
                log.error("%s ended with status %s: starting it again", part, child.exitcode)
            elif now >= self._due_s[part]:
                try:
                    self._start(part)
                except OSError as error:  # no memory, or no more processes: the other parts go on
                    log.error("%s cannot be started (%s): trying again", part, type(error).__name__)
                    self._due_s[part] = now + _LONGEST_PAUSE_S

    def _end(self, children: list[ForkProcess]) -> None:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + STOP_PATIENCE_S
        for child in children:
            child.join(max(0.0, deadline - time.monotonic()))
            if child.is_alive():
                child.kill()
                child.join()
        os.close(self._reading)
        os.close(self._writing)


def _start_heedful(child: ForkProcess) -> None:
    """Fork with signals held back: one that comes before the child sees to its own would end in our handler there."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        child.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _as_command(work: Work) -> None:
    """As a command of its own would: signals end it, unless it sees to them itself."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    work()


def _end_with(parent_fd: int) -> None:
    """Ask this process to stop once the parent is gone."""
    os.read(parent_fd, 1)  # returns only when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)
