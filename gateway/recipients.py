"""Who this gateway sends something to, as its settings say it: by host, so that no setting's secret part is told."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.config import Config


def recipients_of(config: Config) -> list[str]:
    """Who gets data of people (Art. 15(1)(c), 30(1)(d))."""
    sinks = [text.strip() for text in config.siem_sinks.split(",") if "://" in text]
    hosts = [(sink, "a SIEM, which gets pseudonyms") for sink in sinks]
    hosts += [(config.webhook_url, "the webhook of invitations")] if config.webhook_url else []
    return [f"{host_of(url)}: {what}" for url, what in hosts]


def noticed_by(config: Config) -> list[str]:
    """Who gets notices."""
    return [f"{host_of(url)}: notices, which name nobody" for url in config.notices.split()]


def host_of(url: str) -> str:
    """The host of a URL."""
    return urlsplit(url).hostname or "this machine"
