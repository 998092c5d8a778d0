"""A witness as a process of its own, as `python -m audit.witness` starts it: killed and started again at will."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.checkout import ROOT
from services.halting import halt

_PATIENCE_S = 30.0


class WitnessProcess:
    """One witness; `start` it, `kill` it, start it again: the folder stays, and so does its port.

    Args:
        folder: its state.
        name: its name.
        logs: the keys of the logs that it follows.
    """

    def __init__(self, folder: Path, name: str, *logs: str) -> None:
        self.folder, self.name, self.logs = folder, name, logs
        self.url = self.vkey = ""
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def setting(self) -> str:
        """How a gateway's `FLG_WITNESSES` names it."""
        return f"{self.url} {self.vkey}"

    @property
    def told(self) -> str:
        """What it wrote to standard error."""
        return self._file("err").read_text()

    def start(self) -> WitnessProcess:
        """Start it and wait for its line `ready …`."""
        options = [word for log in self.logs for word in ("--log", log)]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self._file("out").open("wb") as output, self._file("err").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=TERM", "--", sys.executable, "-m", "audit.witness"),
                    *("--state", str(self.folder), "--name", self.name, "--port", str(self.port), *options),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )
        self.vkey, self.url = self._first_lines()
        self.port = int(self.url.rpartition(":")[2])
        return self

    def kill(self) -> None:
        """SIGKILL, as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it in order; returns its exit status."""
        return self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hang: it is there, and answers nothing."""
        assert self._process is not None
        halt(self._process.pid)

    def go_on(self) -> None:
        """Let it work again."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *words: str) -> str:
        """What another command on its folder prints."""
        done = subprocess.run(
            [sys.executable, "-m", "audit.witness", "--state", str(self.folder), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self.go_on()
        self._process.send_signal(number)
        status = self._process.wait(_PATIENCE_S)
        self._process = None
        return status

    def _first_lines(self) -> tuple[str, str]:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            told = re.fullmatch(r"vkey (\S+)\nready (\S+)\n", self._file("out").read_text())
            if told:
                return told[1], told[2]
            assert self._process is not None
            assert self._process.poll() is None, self.told
            time.sleep(0.02)
        raise AssertionError("the witness was not ready in time")

    def _file(self, kind: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{kind}")


@contextmanager
def running(folder: Path, name: str, *logs: str) -> Iterator[WitnessProcess]:
    """A witness for as long as the block runs."""
    witness = WitnessProcess(folder, name, *logs)
    try:
        yield witness.start()
    finally:
        witness.kill()
