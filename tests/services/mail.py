"""A mail server for tests: a real SMTP server on the loopback that keeps what it was sent."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from socketserver import StreamRequestHandler, TCPServer
from threading import Thread
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from services.authority import Pair
from services.ports import free_port


@dataclass(frozen=True, slots=True)
class Mail:
    """A message that was taken, for whom, and whether it came over TLS."""

    recipients: tuple[str, ...]
    message: EmailMessage
    was_tls: bool


@dataclass(slots=True)
class MailServer:
    """Answers each message with the next of `answers`, at the end with `250 OK`."""

    port: int = 0
    answers: list[str] = field(default_factory=list)
    taken: list[Mail] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    farewell: str = "221 Bye"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """aiosmtpd's hook: a recipient is named."""
        if address in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        """aiosmtpd's hook: the client leaves."""
        return self.farewell

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """aiosmtpd's hook: a whole message has come."""
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            message = message_from_bytes(bytes(envelope.content or b""), policy=policy.default)
            assert isinstance(message, EmailMessage)
            self.taken.append(Mail(tuple(envelope.rcpt_tos), message, session.ssl is not None))
        return answer


@contextmanager
def mail_server(pair: Pair | None = None, *, password: str = "") -> Iterator[MailServer]:
    """A server that runs until the block ends.

    Args:
        pair: the certificate and key with which it offers STARTTLS; without one, it offers none.
        password: what it wants of whoever signs in; empty: nobody may.
    """
    server = MailServer()

    def authenticate(
        _server: SMTP, _session: Session, _envelope: Envelope, _how: str, said: Any
    ) -> AuthResult:
        assert isinstance(said, LoginPassword)
        server.logins.append((said.login.decode(), said.password.decode()))
        return AuthResult(success=said.password.decode() == password, handled=False)

    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
    server.port = free_port()
    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=server.port,
        tls_context=context,
        authenticator=authenticate if password else None,
        auth_require_tls=True,
        ready_timeout=30,
    )
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


class BusyMailServer(TCPServer):
    """Answers whoever asks that it is not to be had, and remembers from which port they asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _NotNow)
        self.port: int = self.server_address[1]
        self.asked: list[int] = []


class _NotNow(StreamRequestHandler):
    server: BusyMailServer

    def handle(self) -> None:
        """Say so, and hang up (RFC 5321, 3.8)."""
        self.server.asked.append(self.client_address[1])
        self.wfile.write(b"421 mail.example is busy\r\n")


@contextmanager
def busy_mail_server() -> Iterator[BusyMailServer]:
    """A mail server that is not to be had until the block ends."""
    with BusyMailServer() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
