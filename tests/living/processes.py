"""`fl-gateway serve` as it is in production: a process tree, which a test may kill anywhere and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import httpx
from living.driver import Driver, await_that
from living.home import Home, clean_environment
from services.halting import halt

_NUMBERS = count(1)  # several may run on one home


class Gateway(Driver):
    """The process tree on a home; `start` it, kill it, start it again.

    Args:
        home: its stores.
        options: of `serve`; a free port of 127.0.0.1 when there are none.
    """

    def __init__(self, home: Home, *options: str) -> None:
        super().__init__(home)
        self._options = options or ("--port", "0")
        self._process: subprocess.Popen[bytes] | None = None
        self._number, self._starts = next(_NUMBERS), 0

    def start(self, **settings: str) -> Gateway:
        """Start the process tree and wait for its line `ready …`."""
        more = {f"FLG_{name.upper()}": value for name, value in settings.items()}
        self._starts += 1
        with self._output.open("wb") as output, self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig=TERM",
                    "--",
                    sys.executable,
                    "-m",
                    "gateway.cli",
                    "serve",
                    *self._options,
                ],
                cwd=self.home.directory,
                env=clean_environment() | self.home.environment() | more,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )
        self._http = _client_of(await_that("the line `ready …`", self._address))
        return self

    def stop(self) -> None:
        """End the tree in order; what does not end in time is a failure."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._kill_all()

    def kill(self) -> None:
        """SIGKILL the whole tree, as a power failure would."""
        self._kill_all()

    def kill_supervisor(self) -> list[int]:
        """SIGKILL the first process alone; the ids of those it leaves behind."""
        assert self._process is not None
        left = [pid for pid in _tree(self._process.pid) if pid != self._process.pid]
        self._process.kill()
        self._process.wait()
        return left

    def kill_part(self, part: str) -> None:
        """SIGKILL one part (`web`, `worker`, `sequence`, `forward`) with what it started itself."""
        _send(_tree(self.part_pid(part)), signal.SIGKILL)

    def freeze_part(self, part: str) -> list[int]:
        """SIGSTOP one part with what it started itself; the ids to thaw."""
        pids = _tree(self.part_pid(part))
        halt(*pids)
        return pids

    def thaw(self, pids: list[int]) -> None:
        """SIGCONT."""
        _send(pids, signal.SIGCONT)

    def part_pid(self, part: str) -> int:
        """The process id of a part."""
        assert self._process is not None
        children = [pid for pid in _tree(self._process.pid) if f"fl-gateway: {part}" in _command_line(pid)]
        return children[0]

    def await_death(self, part: str) -> None:
        """Wait until the supervisor has seen a part die by SIGKILL."""
        told = f"ERROR gateway.supervisor: {part} ended with status -9"
        await_that(f"{part} dies at its crash point", lambda: told in self.log())

    @property
    def log_path(self) -> Path:
        """What the process tree writes to its standard error, all starts together."""
        return self.home.directory / "serve.log"

    def log(self) -> str:
        """The text of it."""
        return self.log_path.read_text("utf-8", errors="replace")

    @property
    def _output(self) -> Path:
        return self.home.directory / f"serve-{self._number}-{self._starts}.out"

    def _address(self) -> str | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"serve ended with {self._process.returncode}:\n{self.log()[-2000:]}")
        line = self._output.read_text("utf-8")
        return line.split()[1] if line.startswith("ready ") and line.endswith("\n") else None

    def _kill_all(self) -> None:
        if self._process is None:
            return
        pids: list[int] = []
        while self._process.poll() is None and len(pids) < len(_tree(self._process.pid)):
            pids = _tree(self._process.pid)
            _send(pids, signal.SIGSTOP)  # or one of them starts again what dies
        _send(pids, signal.SIGKILL)
        self._process.wait()
        await_that("the end of the whole tree", lambda: not any(is_alive(pid) for pid in pids))
        self._process = None
        if self._http is not None:
            self._http.close()


@contextmanager
def gateway_in(home: Home, *options: str, **settings: str) -> Iterator[Gateway]:
    """A running gateway on the home; whatever is left of it at the end is killed."""
    gateway = Gateway(home, *options)
    try:
        yield gateway.start(**settings)
    finally:
        gateway.kill()


def _client_of(url: str) -> httpx.Client:
    path = url.removeprefix("unix:")
    if path == url:
        return httpx.Client(base_url=url, timeout=30, trust_env=False)
    return httpx.Client(
        base_url="http://localhost", transport=httpx.HTTPTransport(uds=path), timeout=30, trust_env=False
    )


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _tree(root: int) -> list[int]:
    """A process and all below it, parents first."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
