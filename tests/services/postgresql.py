"""A private, throwaway PostgreSQL: own data directory, free port of 127.0.0.1.

It dies with the process that started it, so that an interrupted test run leaves no server behind. It does not wait for
the disk unless asked to: what a killed process has written the kernel keeps, and no test cuts the power.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
from services.ports import free_port

_STARTS = 3  # another process may take the free port between the search and the start
_READY_WITHIN_S = 30
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "synchronous_commit": "on",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
    "autovacuum": "off",
    "timezone": "UTC",
}


@dataclass(slots=True)
class PostgreSQL:
    """One server; `running()` makes it. Every database on it belongs to the superuser `postgres`."""

    directory: Path
    syncs: bool = False
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=count)
    _templates: dict[str, str] = field(default_factory=dict)

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, *, template: str = "template1") -> str:
        """A new database with what the template holds; its name."""
        name = f"test_{next(self._numbers)}"
        self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def template(self, key: str, prepare: Callable[[str], None]) -> str:
        """The template database made once by `prepare(url)`, for `create_database`."""
        if key not in self._templates:
            name = self.create_database()
            prepare(self.url(name))
            self._templates[key] = name
        return self._templates[key]

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        self._administer(f'DROP DATABASE "{name}" WITH (FORCE)')

    def start(self) -> None:
        """Start the server, on the port that it had before if there is one."""
        for _ in range(_STARTS):
            port = self.port or free_port()
            self._process = self._spawn(port)
            if self._answers(port):
                self.port = port
                return
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()}")

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server at once: in order, or (`crash`) as a power failure would."""
        if self._process is None:
            return
        self.thaw()  # a test may have failed before it did
        if crash:
            self._kill(self._process)
        else:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=_READY_WITHIN_S)
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP the server with every process of it: its kernel takes connections, and nobody answers."""
        self._send(signal.SIGSTOP)  # the first one first: it starts no more

    def thaw(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        first = self._process.pid
        os.kill(first, number)
        for child in _children(first):
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL all of it and see it dead: a child outlives the first process for a moment, and may answer in it."""
        self.freeze()  # so that nobody is born in between
        ends = [os.pidfd_open(pid) for pid in _children(process.pid)]
        process.kill()
        for end in ends:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)
        for end in ends:
            if not select.select([end], [], [], _READY_WITHIN_S)[0]:
                raise RuntimeError("a process of PostgreSQL outlived SIGKILL")
            os.close(end)

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        settings = _SETTINGS | {
            "port": str(port),
            "unix_socket_directories": str(self.directory),
            "fsync": "on" if self.syncs else "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*_as_postgres(), program("postgres"), "-D", str(self.directory / "data"), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )

    def _answers(self, port: int) -> bool:
        """Whether the process that was started (not another on its port) answers in time."""
        assert self._process is not None
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(psycopg.OperationalError):
                psycopg.connect(host=str(self.directory), port=port, user="postgres").close()
                return True
            time.sleep(0.02)
        return False

    def _administer(self, statement: str) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)  # type: ignore[arg-type]


@contextmanager
def running(*, syncs: bool = False) -> Iterator[PostgreSQL]:
    """A server that runs until the block ends and leaves nothing behind.

    Args:
        syncs: a commit waits for the disk, as in production: for whoever measures.
    """
    directory = Path(tempfile.mkdtemp(prefix="flg-postgresql-"))
    server = PostgreSQL(directory, syncs)
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
        _initialise(directory)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


def _initialise(directory: Path) -> None:
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"]
    command = [*_as_postgres(), program("initdb"), "-D", str(directory / "data"), *options]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr}")


def _as_postgres() -> list[str]:
    """What to put before a command: PostgreSQL refuses to run as root, and is to end with its parent."""
    rights = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *rights, "--pdeathsig=INT", "--"]


def program(name: str) -> str:
    """A server program: Debian keeps them out of the PATH, one folder a version."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed: see deploy/debian-packages.txt")
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
