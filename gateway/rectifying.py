"""A rectification is carried out: a client's name or device is put right, under the person's key (Art. 16)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from sqlalchemy import Connection, select, update

from audit.draft import Personal
from audit.errors import KeyDestroyed
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.errors import BadCorrection
from compliance.requests.cases import Case
from gateway.auth.roster import name_index
from gateway.errors import BadRequest, ValidationFailed
from gateway.rounds.portable import is_portable
from gateway.services import Services
from gateway.tables import clients
from gateway.trail import Trail
from gateway.wire import WIRE, parse_json

_MOST = 1000
_SAYS = "names a client of the person where there are several, and its `name`, its `device`, or both"


@dataclass(frozen=True, slots=True, config=WIRE)
class DeviceCorrection:
    """What a client's device is in truth."""

    device_id: str | None = Field(default=None, min_length=1, max_length=200)
    platform: str | None = Field(default=None, min_length=1, max_length=200)
    capabilities: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class Correction:
    """What is to be put right."""

    client_id: str | None = None
    name: str | None = Field(default=None, min_length=1, max_length=200)
    device: DeviceCorrection | None = None


class Rectifying:
    """Carries out rectifications of clients."""

    def __init__(self, services: Services, journal: Trail) -> None:
        self._services = services
        self._journal = journal

    def prepare(self, case: Case, /) -> Callable[[Connection], None]:
        """The columns, sealed anew, and the entry that a client was changed.

        Raises:
            BadCorrection: it names no client of the person, or nothing that can be put right.
        """
        correction = self._correction(case)
        found = self._client(case, correction)
        columns, changed = self._columns(found, correction)
        entry = self._journal.draft(
            EventType.CLIENT_CHANGED,
            resource="clients",
            details={
                "client_id": Personal(found.subject_id, found.client_id),
                "role": found.role,
                "changed": changed,
            },
        )

        def write(conn: Connection) -> None:
            conn.execute(update(clients).where(clients.c.client_id == found.client_id).values(columns))
            self._journal.write(conn, entry)

        return write

    def _correction(self, case: Case) -> Correction:
        opened = self._opened(case.correction, "privacy_requests", "correction", case.id)
        try:
            found = parse_json(Correction, json.dumps(opened))
        except (BadRequest, ValidationFailed) as error:
            raise BadCorrection(f"`correction` {_SAYS}") from error
        if not is_portable(opened) or (found.name is None and found.device is None):
            raise BadCorrection(f"`correction` {_SAYS}")
        return found

    def _client(self, case: Case, correction: Correction) -> Any:
        query = select(clients.c.client_id, clients.c.subject_id, clients.c.role, clients.c.device)
        query = query.where(clients.c.subject_id == case.subject_id)
        with reading(self._services.engine) as conn:
            own = conn.execute(query.order_by(clients.c.client_id).limit(_MOST)).all()
        wanted = [row for row in own if correction.client_id in (None, row.client_id)]
        if len(wanted) != 1:
            raise BadCorrection(f"the person has {len(own)} clients: `correction` {_SAYS}")
        return wanted[0]

    def _columns(self, found: Any, correction: Correction) -> tuple[dict[str, Any], list[str]]:
        columns: dict[str, Any] = {}
        if correction.name is not None:
            columns["name"] = self._sealed(found, "name", correction.name)
            columns["name_index"] = name_index(self._services, correction.name)
        if correction.device is not None:
            known = self._opened(found.device, "clients", "device", found.client_id) or {}
            right = {name: value for name, value in asdict(correction.device).items() if value is not None}
            columns["device"] = self._sealed(found, "device", {**known, **right})
        return columns, [name for name in ("name", "device") if name in columns]

    def _sealed(self, found: Any, column: str, value: Any) -> dict[str, str]:
        services, seal = self._services, self._services.sealer.seal_column
        retention = Retention.PARTICIPATION
        return seal(found.subject_id, retention, "clients", column, found.client_id, value, services.clock())

    def _opened(self, stored: Any, table: str, column: str, row_id: str) -> Any:
        try:
            return (
                None if stored is None else self._services.sealer.open_column(stored, table, column, row_id)
            )
        except KeyDestroyed:
            return None
