"""What the log says of a process's start and end, and which settings are others than at the last start.

Of a setting the log says its name alone. To find a difference the database keeps a keyed hash of each value, so that
whoever reads the database can neither read a secret there nor test a guess of one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version

from sqlalchemy import Connection, Select, delete, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from audit.events import EventType
from audit.reading import reading
from audit.writing import writing
from gateway.config import PREFIX, Config
from gateway.services import Services
from gateway.storage.database import kind_of
from gateway.tables import settings_at_start

log = logging.getLogger(__name__)
Digests = Mapping[str, str]


def note_start(services: Services, mode: str) -> None:
    """Write that a process starts, and which settings differ from those of the last start of its kind.

    Args:
        services: the stores.
        mode: the kind of process: `all`, `web`, `worker`, `sequencer` or `forwarder`.
    """
    services.trail.note(EventType.SERVER_STARTED, mode=mode, version=version("fl-gateway"))
    told = _digests(services, services.config)
    with reading(services.engine) as conn:
        known = _known(conn, mode)
    if told == known:
        return
    changed = [f"{PREFIX}{name.upper()}" for name in _changed(services, known, told)]
    entry = services.trail.draft(EventType.CONFIG_CHANGED, details={"settings": changed, "mode": mode})

    def write(conn: Connection) -> None:
        if _known(conn, mode) != known:
            return  # the same process starts elsewhere at this very moment, and says it
        conn.execute(delete(settings_at_start).where(settings_at_start.c.mode == mode))
        rows = [{"mode": mode, "name": name, "digest": digest} for name, digest in told.items()]
        conn.execute(insert(settings_at_start), rows)
        if changed:
            services.trail.write(conn, entry)

    try:
        writing(services.engine, write)
    except IntegrityError:
        log.info("another process of the kind %s started at this moment and recorded its settings", mode)


def note_stop(services: Services, mode: str, uptime_s: float) -> None:
    """Write that a process ends in order; an end is never held up by a database that is away."""
    try:
        services.trail.note(EventType.SERVER_STOPPED, mode=mode, uptime_s=int(uptime_s))
    except SQLAlchemyError as error:
        log.warning("the log does not say that %s ended: the database is away (%s)", mode, kind_of(error))


def _changed(services: Services, known: Digests, told: Digests) -> list[str]:
    """The names whose values differ; at the first start nothing does, and a new setting differs from its default."""
    if not known:
        return []
    before = {**_digests(services, Config()), **known}
    return sorted(name for name, digest in told.items() if before[name] != digest)


def _digests(services: Services, config: Config) -> dict[str, str]:
    index = services.keystore.index
    return {
        setting.name: index(f"setting {setting.name}={getattr(config, setting.name)!r}")
        for setting in fields(config)
    }


def _known(conn: Connection, mode: str) -> dict[str, str]:
    query: Select[str, str] = select(settings_at_start.c.name, settings_at_start.c.digest).where(
        settings_at_start.c.mode == mode
    )
    return {row.name: row.digest for row in conn.execute(query)}
