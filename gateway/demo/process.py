"""The gateway as a process of its own, with its stores in one directory, and its command line beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import gateway
from gateway.config import environment_for_children
from gateway.demo.api import Json, wait_for
from gateway.demo.errors import DemoError, GatewayNotReady, NotInTime

READY_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 25.0  # a moment longer than the gateway waits for its own parts
COMMAND_TIMEOUT_S = 60.0
COMMAND = [sys.executable, "-m", "gateway.cli"]
# Ten silos train a dozen rounds within seconds: the default limits are for silos that train for minutes.
_RATE_LIMITS = (
    "models=6000/minute;updates=6000/minute;rounds=6000/minute;register=600/minute;auth_failures=30/minute"
)


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of one gateway; `fl-gateway serve` may be started in it again after the demo."""

    path: Path

    @property
    def log_path(self) -> Path:
        """What the gateway writes to its standard error."""
        return self.path / "gateway.log"

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.path / "fl-gateway.toml"

    @property
    def master_key_path(self) -> Path:
        """The master key, made by the gateway at its first start."""
        return self.path / "keys" / "master.key"

    def settle(self) -> None:
        """Make the directory and write the settings."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {
            "database_url": f"sqlite:///{self.path}/fl-gateway.db",
            "blob_url": f"file:{self.path}/blobs",
            "keystore_url": f"sqlite:///{self.path}/keys/subjects.db",
            "state_url": f"file:{self.path}/keys/state",
            "siem_sinks": f"file:{self.path}/siem.jsonl",
            "evaluate": "gateway.demo.evaluate:evaluate",
            "rate_limits": _RATE_LIMITS,
        }
        # A JSON string is a TOML basic string too.
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        self.settings_path.write_text("".join(lines), "utf-8")

    def run(self, *words: str) -> str:
        """Run a command of `fl-gateway` on this home and return its standard output.

        Raises:
            DemoError: it failed.
        """
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.path,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise DemoError(f"fl-gateway {' '.join(words)} failed: {done.stderr.strip()[-300:]}")
        return done.stdout

    def add_client(self, name: str, role: str) -> Json:
        """Make credentials at the gateway's console."""
        made: Json = json.loads(self.run("client", "add", name, "--role", role, "--json"))
        return made


class GatewayProcess:
    """A running gateway; leaving the `with` block stops it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._output = home.path / "gateway.out"
        with self._output.open("wb") as output, home.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "serve", "--host", "127.0.0.1", "--port", "0"],
                cwd=home.path,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self) -> str:
        """The address that the gateway answers at, from its one line `ready http://…`.

        Raises:
            GatewayNotReady: it ended, or said nothing in time.
        """
        try:
            return wait_for("The gateway's start", self._address, timeout_s=READY_TIMEOUT_S)
        except NotInTime as error:
            raise GatewayNotReady(str(error), str(self._home.log_path)) from error

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        if self.is_running():
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _address(self) -> str | None:
        for line in self._output.read_text("utf-8", errors="replace").splitlines(keepends=True):
            if line.startswith("ready http") and line.endswith("\n"):
                return line.split()[1]
        if (code := self._process.poll()) is not None:
            raise GatewayNotReady(f"it ended with code {code}", str(self._home.log_path))
        return None


def _environment() -> dict[str, str]:
    """This process's environment without a gateway's settings: the demo touches no real stores."""
    kept = environment_for_children()
    root = str(Path(gateway.__path__[0]).parent)
    paths = [root, *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
