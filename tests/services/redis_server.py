"""A private, throwaway Redis: free port of 127.0.0.1, nothing on disk; it dies with the process that started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redis import Redis, RedisError
from services.halting import halt
from services.ports import free_port

_STARTS = 3  # another process may take the free port between the search and the start
_READY_WITHIN_S = 20


@dataclass(slots=True)
class RedisServer:
    """One server; `running()` makes it. A test may stop, kill, freeze and start it again, on the same port."""

    directory: Path
    password: str = ""
    certificate: Path | None = None
    certificate_key: Path | None = None
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `FLG_CACHE_URL` says of it."""
        secret = f":{self.password}@" if self.password else ""
        return f"{'rediss' if self.certificate else 'redis'}://{secret}127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        """A plain client, to look and to meddle."""
        return self._client(self.port)

    def start(self) -> None:
        """Start the server, on the port that it had before if there is one; it is empty."""
        for _ in range(_STARTS):
            port = self.port or free_port()
            self._process = self._spawn(port)
            if self._answers(port):
                self.port = port
                return
        raise RuntimeError(f"Redis did not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        """End the server in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power failure would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the server's clock: it takes connections and answers nothing."""
        assert self._process is not None
        halt(self._process.pid)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        options: dict[str, object] = {
            "bind": "127.0.0.1",
            "dir": self.directory,
            "save": "",
            "appendonly": "no",
        }
        options |= {"requirepass": self.password} if self.password else {}
        if self.certificate is None:
            options |= {"port": port}
        else:
            options |= {"port": 0, "tls-port": port, "tls-auth-clients": "no"}
            options |= {"tls-cert-file": self.certificate, "tls-key-file": self.certificate_key}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", _program(), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _answers(self, port: int) -> bool:
        """Whether the process that was started (not another on its port) answers in time."""
        assert self._process is not None
        client = self._client(port)
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(RedisError):
                if client.info("server")["process_id"] == self._process.pid:
                    client.close()
                    return True
            time.sleep(0.02)
        return False

    def _client(self, port: int) -> Redis:
        tls = {"ssl": True, "ssl_ca_certs": str(self.certificate)} if self.certificate else {}
        return Redis("127.0.0.1", port, password=self.password or None, socket_timeout=5, **tls)  # type: ignore[arg-type]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
        self._process.wait(timeout=_READY_WITHIN_S)
        self._process = None


@contextmanager
def running(
    *, password: str = "", certificate: Path | None = None, certificate_key: Path | None = None
) -> Iterator[RedisServer]:
    """A server that runs until the block ends and leaves nothing behind; with a certificate it speaks TLS alone."""
    directory = Path(tempfile.mkdtemp(prefix="flg-redis-"))
    server = RedisServer(directory, password, certificate, certificate_key)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)


def _program() -> str:
    found = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/local/bin")
    if found is None:
        raise RuntimeError("redis-server is not installed: see deploy/debian-packages.txt")
    return found
