"""The check of the OpenID provider: its form, its secret, and whether it is there with endpoints and keys."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import urlsplit

from gateway.auth.issuers.errors import ExchangeFailed
from gateway.auth.issuers.exchange import Line
from gateway.auth.issuers.metadata import endpoint_of, fetch_published
from gateway.auth.people.openid_settings import SETTING, ProviderSettings, read_provider
from gateway.config import Config
from gateway.doctor.errors import Ailing, Risky
from gateway.doctor.issuers import insist_authorities


def openid_provider(config: Config) -> str:
    """People can be sent there and come back; one that does not answer now is a risk."""
    settings = read_provider(config)
    if settings is None:
        return "none: people have passwords"
    if not config.public_url and urlsplit(settings.issuer).scheme == "https":
        raise Ailing(f"{SETTING} needs FLG_PUBLIC_URL: the provider sends people back to it")
    settings.secret()
    insist_authorities(SETTING, settings.ca_file)
    if settings.client_secret_file and Path(settings.client_secret_file).stat().st_mode & (
        stat.S_IRWXG | stat.S_IRWXO
    ):
        raise Ailing(f"{SETTING}: others can read the secret: chmod 600 {settings.client_secret_file}")
    try:
        _ask(settings)
    except ExchangeFailed as failed:
        said = f"{settings.issuer}: {failed.why}"
        raise (Ailing if failed.is_answer else Risky)(said) from failed
    return f"people sign in at {settings.issuer} too"


def _ask(settings: ProviderSettings) -> None:
    line = Line(settings.ca_file)
    try:
        published = fetch_published(line, settings.issuer, None, settings.algorithms)
    finally:
        line.close()
    for name in ("authorization_endpoint", "token_endpoint"):
        endpoint_of(published.metadata, name)
    if not published.keys:
        raise ExchangeFailed("it has no key for the algorithms that are taken", is_answer=True)
