"""Whether the gateway is well: its stores, its log, the SIEM sinks and the certificates of the TLS front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from flask import Response
from sqlalchemy import Connection

from audit.reading import reading
from audit.siem import count_dead_letters, parse_sinks, read_standing
from audit.siem.cursor import Standing
from audit.store import last_cosigned, newest_checkpoint, oldest_pending, tree_size
from gateway.certificates import CertificateSettings
from gateway.condition import log_state, part_states
from gateway.config import Config
from gateway.console.blueprint import page_blueprint
from gateway.console.names import SINKS, STATES, STORES, Named, Tone
from gateway.console.pages import render_page
from gateway.openapi import Media, operation
from gateway.services import Services, current_services
from gateway.translations import say
from gateway.witnessing.addresses import witnesses_of

health = page_blueprint("console_health", "/health")
_UNKNOWN = Named(say("Cannot be read"), Tone.BAD)
_ENDED = Named(say("Has ended"), Tone.BAD)
_SOON = Named(say("Ends soon"), Tone.WARN)
_GOOD = Named(say("Good"), Tone.GOOD)
_RENEWAL_IS_LATE = timedelta(days=29)  # certbot renews at 30 days


@dataclass(frozen=True, slots=True)
class SinkShown:
    """A SIEM sink: how it stands, and how far behind the log it is."""

    name: str
    form: str
    state: Named
    standing: Standing
    lag: int
    refused: int


@dataclass(frozen=True, slots=True)
class CertificateShown:
    """A certificate of the TLS front; the end is None where its file cannot be read."""

    name: str
    ends_at: datetime | None
    state: Named


@dataclass(frozen=True, slots=True)
class LogShown:
    """The log: its entries, how many the newest checkpoint covers, and since when one waits for its place."""

    size: int
    signed: int
    waits_since: datetime | None
    witnesses: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class PartShown:
    """A store or part of the gateway."""

    name: str
    state: Named


@health.get("")
@operation("Health of stores, log, SIEM sinks and certificates, for people", answers={200: Media.HTML})
def show_health() -> Response:
    """How everything stands now."""
    services = current_services()
    parts = parts_of(services)
    with reading(services.engine) as conn:
        log, sinks = log_of(conn, services.config), sinks_of(conn, services.config)
    certificates = certificates_of(services.config, services.clock())
    return render_page("health.html", parts=parts, log=log, sinks=sinks, certificates=certificates)


def parts_of(services: Services) -> list[PartShown]:
    """Each store and part, and whether entries get their places in time."""
    states = {**part_states(services), "log": log_state(services)}
    return [PartShown(STORES[name], STATES[state]) for name, state in states.items()]


def log_of(conn: Connection, config: Config) -> LogShown:
    """How the log stands."""
    newest = newest_checkpoint(conn, cosigned=False)
    witnesses = tuple((one.name, last_cosigned(conn, one.name)) for one in witnesses_of(config))
    return LogShown(tree_size(conn), newest.size if newest else 0, oldest_pending(conn), witnesses)


def sinks_of(conn: Connection, config: Config) -> list[SinkShown]:
    """How each sink of the settings stands; nobody is asked."""
    size, shown = tree_size(conn), []
    for named in parse_sinks(config.siem_sinks):
        named.sink.close()
        standing = read_standing(conn, named.name)
        lag, refused = max(0, size - 1 - standing.cursor.seq), count_dead_letters(conn, named.name)
        shown.append(SinkShown(named.name, named.format, SINKS[standing.state], standing, lag, refused))
    return shown


def certificates_of(config: Config, now: datetime) -> Sequence[CertificateShown]:
    """The certificates that certbot keeps for this gateway, and when each ends."""
    settings = CertificateSettings.from_config(config)
    return [_certificate(settings, name, now) for name in settings.names()]


def _certificate(settings: CertificateSettings, name: str, now: datetime) -> CertificateShown:
    try:
        pem = settings.live(name).read_bytes()
        ends_at = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except (OSError, ValueError):
        return CertificateShown(name, None, _UNKNOWN)
    if ends_at <= now:
        return CertificateShown(name, ends_at, _ENDED)
    return CertificateShown(name, ends_at, _SOON if ends_at - now <= _RENEWAL_IS_LATE else _GOOD)
