"""The targets of `FLG_NOTICES`, parted by blanks: mail servers and webhooks, each with a name that holds no address.

A target's name stands in the database and the log, so it is the server and a digest of the rest: neither a person's
address nor the secret part of a webhook's URL is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import urlsplit

from gateway.config import Config
from gateway.notices.errors import NoticesInvalid
from gateway.notices.letter import Target
from gateway.notices.mail import MailTarget, read_mail_server
from gateway.notices.posting import WebhookTarget

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """A target and its name."""

    name: str
    target: Target


def parse_targets(config: Config, clock: Clock) -> list[NamedTarget]:
    """The targets of the settings; nobody is asked.

    Raises:
        ConfigError: one cannot be used; its text is not repeated.
    """
    found = [NamedTarget(_name(text), _parse(text, config, clock)) for text in config.notices.split()]
    if len({named.name for named in found}) < len(found):
        raise NoticesInvalid("names a target twice: leave one of them out")
    return found


def check_targets(config: Config, clock: Clock) -> None:
    """Raise ConfigError if the settings name a target that cannot be used."""
    for named in parse_targets(config, clock):
        named.target.close()


def target_names(config: Config) -> list[str]:
    """The names alone; the targets were checked at the start."""
    return [_name(text) for text in config.notices.split()]


def _parse(text: str, config: Config, clock: Clock) -> Target:
    match text.partition(":")[0].lower():
        case "smtp" | "smtps":
            return MailTarget(read_mail_server(text, config.notices_smtp_password), clock)
        case "http" | "https":
            return WebhookTarget(text, config.notices_secret, clock)
        case _:
            raise NoticesInvalid("has a target that begins with none of smtps://, smtp:// and https://")


def _name(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        raise NoticesInvalid("has a URL that cannot be read") from None
    return f"{parts.scheme}://{host}#{sha256(text.encode()).hexdigest()[:8]}"
