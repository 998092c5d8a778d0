"""A private, throwaway RabbitMQ: own node, own port mapper, own folder, free ports of 127.0.0.1, small memory.

Broker and port mapper (epmd) are children of this process and die with it, so that an interrupted test run leaves
neither behind. Starting takes some seconds: a test takes the shared one and begins with no queue (`clear()`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker
from services.halting import halt
from services.pebble import make_certificate
from services.ports import free_port

# The script itself: what stands in the PATH changes the user, the folder and the signals.
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_STARTS = 3  # another process may take a free port between the search and the start
_READY_WITHIN_S = 60
_QUEUES = ("model_updates", "training_invitations", "model_updates.dead", "training_invitations.dead")
_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
loopback_users = none
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
log.file.level = warning
"""
_TLS = """\
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.certfile = {directory}/cert.pem
ssl_options.keyfile = {directory}/key.pem
"""
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +P 65536"


@dataclass(slots=True)
class RabbitMQ:
    """One broker; `running()` makes it."""

    directory: Path
    port: int = 0
    tls_port: int = 0
    _mapper: subprocess.Popen[bytes] | None = None
    _broker: subprocess.Popen[bytes] | None = None
    _mapper_port: int = 0

    @property
    def url(self) -> str:
        """The broker as `FLG_QUEUE_URL` names it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> None:
        """Start the broker, on the port and with the messages that it had before if there are any."""
        for _ in range(_STARTS):
            port = self.port or free_port()
            self._spawn(port)
            if self._answers(port):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"RabbitMQ did not start:\n{self._log.read_text()[-4000:]}")

    def stop(self) -> None:
        """Stop the broker in order; it keeps durable queues and persistent messages."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop the broker as a power failure would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop every thread of the broker: it takes connections and bytes, and answers nothing."""
        assert self._broker is not None
        halt(self._broker.pid)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        assert self._broker is not None
        self._broker.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Take every message out of the gateway's queues.

        They are not deleted: a quorum queue of RabbitMQ 3.10 that is deleted soon after a kill, made again, and
        killed again, is lost to the broker.
        """
        for queue in _QUEUES:
            with suppress(ChannelClosedByBroker), self.channel() as channel:  # 404: there is no such queue
                channel.queue_purge(queue)

    def clear(self) -> None:
        """Delete the gateway's queues."""
        with self.channel() as channel:
            for queue in _QUEUES:
                channel.queue_delete(queue)

    @contextmanager
    def channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        """A channel of a client that is not the gateway."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def drain(self, queue: str) -> list[tuple[pika.BasicProperties, bytes]]:
        """Take every message out of a queue. (Counting them would not do: a quorum queue tells its length late.)"""
        taken = []
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return taken
                taken.append((properties, body))

    def bytes_kept(self) -> bytes:
        """Every byte of the broker's files."""
        return b"".join(path.read_bytes() for path in sorted(self.directory.rglob("*")) if path.is_file())

    def end(self) -> None:
        """Stop the broker at once, and its port mapper."""
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()

    @property
    def _log(self) -> Path:
        return self.directory / "out"

    def _spawn(self, port: int) -> None:
        if self._mapper is None or self._mapper.poll() is not None:
            self._mapper_port = free_port()
            self._mapper = self._run(["epmd", "-address", "127.0.0.1", "-port", str(self._mapper_port)])
            _await(self._mapper_port)
        config = _CONFIG.format(port=port)
        if self.tls_port:
            config += _TLS.format(port=self.tls_port, directory=self.directory)
        (self.directory / "rabbitmq.conf").write_text(config)
        self._broker = self._run([_SERVER])

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        at = self.directory
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(at),
            "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the broker instead of waiting beside it
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "throwaway@localhost",  # known to the own port mapper alone
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_BASE": str(at),
            "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
        }

    def _answers(self, port: int) -> bool:
        """Whether the process that was started lets a client in, in time."""
        assert self._broker is not None
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline and self._broker.poll() is None:
            with suppress(AMQPError, OSError):
                _await(port, within_s=1.0)
                pika.BlockingConnection(
                    pika.URLParameters(f"amqp://guest:guest@127.0.0.1:{port}/%2F?socket_timeout=5")
                ).close()
                return True
            time.sleep(0.05)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._broker is None:
            return
        with suppress(ProcessLookupError):
            self._broker.send_signal(how)
        self._broker.wait(timeout=_READY_WITHIN_S)
        self._broker = None


@contextmanager
def running(*, tls: bool = False) -> Iterator[RabbitMQ]:
    """A broker that runs until the block ends and leaves nothing behind.

    Args:
        tls: listen with TLS, too, on `tls_port`, under the self-signed `directory/cert.pem` for `localhost`.
    """
    if not Path(_SERVER).exists():
        raise RuntimeError("rabbitmq-server is not installed: see deploy/debian-packages.txt")
    directory = Path(tempfile.mkdtemp(prefix="flg-rabbitmq-"))
    (directory / "enabled_plugins").write_text("[].")
    broker = RabbitMQ(directory)
    if tls:
        make_certificate(directory / "cert.pem", directory / "key.pem", "localhost")
        broker.tls_port = free_port()
    try:
        broker.start()
        yield broker
    finally:
        broker.end()
        shutil.rmtree(directory)


def _await(port: int, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise ConnectionRefusedError(f"nothing answers on port {port}")
        time.sleep(0.02)
