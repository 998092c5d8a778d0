"""`serve` as one process tree: it binds the port, starts each part as a child, and starts again what dies.

A child holds the reading end of a pipe from here: when this process is gone, however it went, the child ends too.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)
STOP_PATIENCE_S = 20.0
_LOOK_S = 0.1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_SOUND_S = 60.0  # a part that lived this long starts again as if for the first time


def end_with_parent(parent_fd: int) -> None:
    """In a child: ask this process to stop once the parent is gone."""

    def watch() -> None:
        os.read(parent_fd, 1)  # returns only when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class Supervisor:
    """Keeps the parts running until told to stop.

    Args:
        commands: by part, its command line; `{parent}` in it becomes the pipe's number.
        pass_fds: descriptors that every child inherits.
    """

    def __init__(self, commands: Mapping[str, list[str]], pass_fds: tuple[int, ...] = ()) -> None:
        self._commands = commands
        self._reading, self._writing = os.pipe()
        self._pass_fds = (*pass_fds, self._reading)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._pause_s: dict[str, float] = {}
        self._due_s: dict[str, float] = {}
        self._began_s: dict[str, float] = {}

    def run(self, stop: threading.Event, *, started: Callable[[], None]) -> None:
        """Start all parts and keep them up; on `stop`, end them in order and wait.

        Args:
            stop: set it to end.
            started: called once, in a thread of its own, when the parts have been started.
        """
        for part in self._commands:
            self._start(part)
        threading.Thread(target=started, name="started", daemon=True).start()
        try:
            while not stop.wait(_LOOK_S):
                self._start_again()
        finally:
            self._end()

    def _start(self, part: str) -> None:
        command = [word.replace("{parent}", str(self._reading)) for word in self._commands[part]]
        self._children[part] = subprocess.Popen(command, pass_fds=self._pass_fds, start_new_session=True)
        self._began_s[part] = time.monotonic()
        self._due_s.pop(part, None)

    def _start_again(self) -> None:
        now = time.monotonic()
        for part, child in self._children.items():
            if child.poll() is None:
                continue
            if part not in self._due_s:
                if now - self._began_s[part] >= _SOUND_S:
                    self._pause_s.pop(part, None)
                pause = self._pause_s[part] = min(
                    self._pause_s.get(part, _FIRST_PAUSE_S / 2) * 2, _LONGEST_PAUSE_S
                )
                self._due_s[part] = now + pause
                log.error("%s ended with status %s: starting it again", part, child.returncode)
            elif now >= self._due_s[part]:
                try:
                    self._start(part)
                except OSError as error:  # no memory, or no more processes: the other parts go on
                    log.error("%s cannot be started (%s): trying again", part, type(error).__name__)
                    self._due_s[part] = now + _LONGEST_PAUSE_S

    def _end(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + STOP_PATIENCE_S
        for child in self._children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        os.close(self._reading)
        os.close(self._writing)


def part_command(part: str, *options: str) -> list[str]:
    """The command line of a part of this very installation."""
    return [sys.executable, "-m", "gateway.cli", *part.split(), "--parent-fd", "{parent}", *options]
