"""Private, throwaway S3 servers: moto for semantics, s3rver for access control, a small one of ours for integrity.

Each dies with the process that started it. The bucket `fl-models` is there; s3rver and ours keep it over a restart.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config as ClientConfig
from services.halting import halt
from services.ports import free_port

KINDS = ("moto", "s3rver", "checking")
BUCKET = "fl-models"
KEY_ID, SECRET = "FLGTESTKEY", "not-a-secret-of-anybody"
_READY_WITHIN_S = 30
_STARTS = 3  # another process may take the free port between the search and the start
_HERE = Path(__file__).resolve().parent


@dataclass(slots=True)
class S3Server:
    """One server; `running()` makes it."""

    kind: str
    directory: Path
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def settings(self, prefix: str = "") -> dict[str, str]:
        """The gateway's settings for it, by the names of `Config`."""
        return {
            "blob_url": f"s3://{BUCKET}/{prefix}",
            "s3_endpoint_url": self.url,
            "s3_access_key_id": KEY_ID,
            "s3_secret_access_key": SECRET,
        }

    def client(self) -> Any:
        """A client of boto3, for a test's own look."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            config=ClientConfig(
                signature_version="s3v4",
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                s3={"addressing_style": "path"},
            ),
        )

    def order(self, **orders: object) -> dict[str, Any]:
        """Give the checking server orders (see `checking_s3.Orders`); what it has seen."""
        return dict(httpx.post(f"{self.url}/_control", json=orders, timeout=10).json())

    def start(self) -> None:
        """Start the server, on the port that it had before if there is one."""
        self._forget_half_written()
        for _ in range(_STARTS):
            port = self.port or free_port()
            self._process = self._spawn(port)
            if self._answers(port):
                self.port = port
                if self.kind == "moto":
                    self.client().create_bucket(Bucket=BUCKET)
                return
            self.stop()
        raise RuntimeError(f"{self.kind} did not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Kill the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=_READY_WITHIN_S)
            self._process = None

    def pause(self) -> None:
        """Stop its clock: connections are taken by the kernel, and nobody answers."""
        assert self._process is not None
        halt(self._process.pid)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _forget_half_written(self) -> None:
        """Remove what a kill left of s3rver's files about objects: half of one, and no listing works any more.

        It writes them last and in place, so that nobody was told that such an object is there.
        """
        for path in (self.directory / "data").rglob("*._S3rver_metadata.json"):
            try:
                json.loads(path.read_bytes())
            except ValueError:
                path.unlink()

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", *self._command(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _command(self, port: int) -> list[str]:
        if self.kind == "moto":
            return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        data = str(self.directory / "data")
        if self.kind == "checking":
            return [sys.executable, str(_HERE / "checking_s3.py"), str(port), data, KEY_ID]
        if not (_HERE / "s3rver" / "node_modules").is_dir():
            raise RuntimeError("s3rver is not installed: run deploy/setup.sh --tests")
        program = str(_HERE / "s3rver" / "server.js")
        return ["node", program, data, str(port), BUCKET, KEY_ID, SECRET]

    def _answers(self, port: int) -> bool:
        """Whether the process that was started answers in time."""
        assert self._process is not None
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
                return True
            time.sleep(0.05)
        return False


@contextmanager
def running(kind: str) -> Iterator[S3Server]:
    """A server that runs until the block ends and leaves nothing behind."""
    directory = Path(tempfile.mkdtemp(prefix=f"flg-{kind}-"))
    server = S3Server(kind, directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)
