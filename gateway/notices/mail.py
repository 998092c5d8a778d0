"""Notices by e-mail: over TLS from the first byte (`smtps://`) or by STARTTLS (`smtp://`), which is insisted on.

Only a mail server on this machine may be spoken to in clear. A message keeps its Message-ID when it is sent again.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from ipaddress import ip_address
from urllib.parse import parse_qs, unquote, urlsplit

from gateway.notices.errors import NoticesInvalid
from gateway.notices.letter import Letter, Problem

TIMEOUT_S = 15.0
_MOST_LACKING = 1000
_PORTS = {"smtp": 587, "smtps": 465}
_OPTIONS = {"from", "to", "user", "ca", "starttls"}


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server, and for whom it is.

    Args:
        host: its name; a certificate must bear it.
        port: where it listens.
        is_tls: TLS from the first byte.
        insists_on_tls: STARTTLS must be offered and succeed.
        sender: the address in `From`.
        recipients: those in `To`.
        user: signs in, with the password.
        ca_file: the authorities of its certificate; empty: this machine's.
    """

    host: str
    port: int
    is_tls: bool
    insists_on_tls: bool
    sender: str = field(repr=False)
    recipients: tuple[str, ...] = field(repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""


class MailTarget:
    """Sends each notice as a message of its own, over a connection of its own: notices are rare."""

    def __init__(self, server: MailServer, clock: Callable[[], datetime]) -> None:
        self._server, self._clock = server, clock
        self._lacking: dict[str, tuple[str, ...]] = {}  # by notice: who has not got it yet

    def deliver(self, letter: Letter) -> Problem | None:
        """Send it; taken is what the server answered for to every recipient."""
        message = self._message(letter)

        def send(session: smtplib.SMTP) -> Problem | None:
            wanted = self._lacking.get(letter.notice_id, self._server.recipients)
            return self._sent(letter, tuple(session.send_message(message, to_addrs=wanted)))

        return self._told(send)

    def probe(self) -> Problem | None:
        """Connect, turn to TLS, sign in, and leave."""

        def look(session: smtplib.SMTP) -> Problem | None:
            return None if session.noop()[0] == 250 else Problem.REFUSED

        return self._told(look)

    def close(self) -> None:
        """Nothing is kept open."""

    def _sent(self, letter: Letter, refused: tuple[str, ...]) -> Problem | None:
        """Remember whom the server refused: a repetition is for them alone, as long as this process runs."""
        self._lacking.pop(letter.notice_id, None)
        if not refused:
            return None
        if len(self._lacking) >= _MOST_LACKING:
            self._lacking.pop(next(iter(self._lacking)))
        self._lacking[letter.notice_id] = refused
        return Problem.REFUSED

    def _told(self, speak: Callable[[smtplib.SMTP], Problem | None]) -> Problem | None:
        try:
            with self._session() as session:
                return speak(session)
        except _NoTls:
            return Problem.NO_TLS
        except smtplib.SMTPAuthenticationError:
            return Problem.LOGIN
        except (smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError):
            return Problem.AWAY
        except ssl.SSLError:
            return Problem.NO_TLS
        except smtplib.SMTPException:
            return Problem.REFUSED
        except OSError:
            return Problem.AWAY

    @contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        server = self._server
        context = ssl.create_default_context(cafile=server.ca_file or None)
        session = (
            smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_S, context=context)
            if server.is_tls
            else smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
        )
        with _left_politely(session):
            if server.insists_on_tls:
                session.ehlo()
                if not session.has_extn("starttls"):
                    raise _NoTls
                session.starttls(context=context)
            if server.user:
                session.login(server.user, server.password)
            yield session

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"], message["To"] = self._server.sender, ", ".join(self._server.recipients)
        message["Subject"] = f"[fl-gateway] {letter.subject_line}"
        message["Date"] = format_datetime(self._clock())
        message["Message-ID"] = f"<{letter.notice_id}@{self._server.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answer
        message["X-FL-Notice"] = letter.kind
        message.set_content(f"{letter.text}\n\nSeverity: {letter.severity}. Notice {letter.notice_id}.\n")
        return message


def read_mail_server(text: str, password: str) -> MailServer:
    """The mail server of a target's text.

    Raises:
        NoticesInvalid: it cannot be used.
    """
    host, port, options = _taken_apart(text)
    scheme, user = text.partition(":")[0].lower(), options.get("user", [""])[0]
    sender, recipients = options.get("from", []), tuple(options.get("to", []))
    if len(sender) != 1 or not recipients or not all(_is_address(one) for one in (*sender, *recipients)):
        raise NoticesInvalid("has a mail server without ?from=ADDRESS&to=ADDRESS (to as often as is wanted)")
    if user and not password:
        raise NoticesInvalid("names a user of a mail server: set FLG_NOTICES_SMTP_PASSWORD, too")
    wished = options.get("starttls", ["" if _is_here(host) else "always"])[0]
    if wished not in ("", "always"):
        raise NoticesInvalid("has ?starttls= of another value than always")
    return MailServer(
        host=host,
        port=port or _PORTS[scheme],
        is_tls=scheme == "smtps",
        insists_on_tls=scheme == "smtp" and wished == "always",
        sender=sender[0],
        recipients=recipients,
        user=user,
        password=password,
        ca_file=options.get("ca", [""])[0],
    )


@contextmanager
def _left_politely(session: smtplib.SMTP) -> Iterator[None]:
    """Say goodbye; what the server answers to that changes nothing of what it took."""
    try:
        yield
        with suppress(smtplib.SMTPException, OSError):
            session.quit()
    finally:
        session.close()


class _NoTls(Exception):
    """The server offers no STARTTLS."""


def _taken_apart(text: str) -> tuple[str, int | None, dict[str, list[str]]]:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # no name server can be asked for some names: told at the start
        options = parse_qs(parts.query.replace("+", "%2B"), strict_parsing=bool(parts.query))
    except ValueError:
        raise NoticesInvalid("has a mail server that cannot be read") from None
    if not host or parts.username or parts.password or parts.path.strip("/") or parts.fragment:
        raise NoticesInvalid("has a mail server with more than host, port and options before its ?")
    if options.keys() - _OPTIONS or any(len(found) > 1 for name, found in options.items() if name != "to"):
        raise NoticesInvalid("has a mail server with an unknown option, or one twice")
    return unquote(host), port, options


def _is_address(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    return bool(at and local and domain) and text.isprintable() and not set(text) & set(' ,;<>"')


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
