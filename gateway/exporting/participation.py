"""What a person's clients did: their updates, what they reported, and the rounds that chose them.

It is read by key, some hundred rows at a time: a package of a hundred thousand rounds needs no more memory than one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, case, func, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.packages.columns import ExportColumn, Form, text_of
from compliance.places import ExportFolder, ExportPart, ExportTable, FolderFile
from gateway.rounds.record import UpdateStatus
from gateway.services import Services
from gateway.storage.chunks import NoSuchBlob
from gateway.tables import client_updates, clients, invitations, rounds

_PAGE = 500
_CHUNK = 1 << 20
_BOTH = "Art. 15, Art. 20"
_BLOBS = tuple(client_updates.c[name] for name in ("update_id", "round_id", "blob_id", "blob_key"))

HISTORY = (
    ExportColumn("client_id", Form.ID, "the client that sent the update", is_portable=True),
    ExportColumn("update_id", Form.ID, "names the update", is_portable=True),
    ExportColumn("round_number", Form.INTEGER, "the round it was for", is_portable=True),
    ExportColumn("submitted_at", Form.TIME, "when it came", is_portable=True),
    ExportColumn("status", Form.TEXT, "accepted, counted or dropped", is_portable=True),
    ExportColumn("size_bytes", Form.INTEGER, "its length", is_portable=True),
    ExportColumn(
        "training_metrics", Form.ANY, "what the client reported of its training", True, is_portable=True
    ),
    ExportColumn("norm", Form.ANY, "its L2 norm, as the gateway measured it", is_optional=True),
    ExportColumn("receipt", Form.TEXT, "the signed receipt that the client got", is_optional=True),
    ExportColumn("entry_id", Form.ID, "its entry in the audit log"),
    ExportColumn("model_version", Form.TEXT, "the model that its round made", is_optional=True),
)
STATISTICS = (
    ExportColumn("client_id", Form.ID, "the client", is_portable=True),
    ExportColumn("updates", Form.INTEGER, "how many updates it sent that are known here", is_portable=True),
    ExportColumn("updates_counted", Form.INTEGER, "how many went into a model", is_portable=True),
    ExportColumn("bytes_sent", Form.INTEGER, "their length in all", is_portable=True),
    ExportColumn("first_update_at", Form.TIME, "when the first came", is_optional=True, is_portable=True),
    ExportColumn("last_update_at", Form.TIME, "when the last came", is_optional=True, is_portable=True),
)
INVITATIONS = (
    ExportColumn("invitation_id", Form.ID, "names the invitation"),
    ExportColumn("client_id", Form.ID, "whom the round chose"),
    ExportColumn("round_number", Form.INTEGER, "the round"),
    ExportColumn("rank", Form.INTEGER, "place in the draw"),
    ExportColumn("status", Form.TEXT, "reserve, invited, replaced or withdrawn"),
    ExportColumn("created_at", Form.TIME, "when it was drawn"),
    ExportColumn("invited_at", Form.TIME, "when the client was asked", is_optional=True),
    ExportColumn("delivered_at", Form.TIME, "when the operator's webhook took it", is_optional=True),
)


class Participation:
    """Reads what the clients of a person did."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def updates(self, subject: str) -> Iterator[ExportPart]:
        """The history, its totals, and the updates that are still kept."""
        ids = self._client_ids(subject)
        title = "The updates that your clients sent, one a row"
        yield ExportTable("participation_history", _BOTH, title, HISTORY, self._history(ids))
        title = "Totals of each client"
        yield ExportTable("training_statistics", _BOTH, title, STATISTICS, self._statistics(ids))
        title = "The updates themselves, as far as they are still kept"
        yield ExportFolder("updates", _BOTH, title, self._files(ids), is_portable=True)

    def invitations(self, subject: str) -> Iterator[ExportPart]:
        """The rounds that chose the clients."""
        rows = (
            self._invitation(row)
            for one in self._client_ids(subject)
            for row in self._pages(invitations, one)
        )
        title = "The rounds that chose your clients"
        yield ExportTable("invitations", "Art. 15", title, INVITATIONS, rows)

    def history(self, client_id: str) -> Iterator[dict[str, Any]]:
        """The history of one client."""
        return (self._shown(row) for row in self._pages(client_updates, client_id))

    def statistics(self, client_id: str) -> dict[str, Any]:
        """The totals of one client."""
        counted = case((client_updates.c.status == UpdateStatus.COUNTED.value, 1))
        totals = select(
            func.count().label("updates"),
            func.count(counted).label("updates_counted"),
            func.coalesce(func.sum(client_updates.c.update_size_bytes), 0).label("bytes_sent"),
            func.min(client_updates.c.submitted_at).label("first"),
            func.max(client_updates.c.submitted_at).label("last"),
        ).where(client_updates.c.client_id == client_id)
        with reading(self._services.engine) as conn:
            row = conn.execute(totals).one()
        return {
            "client_id": client_id,
            "updates": row.updates,
            "updates_counted": row.updates_counted,
            "bytes_sent": int(row.bytes_sent),
            "first_update_at": text_of(row.first),
            "last_update_at": text_of(row.last),
        }

    def _history(self, ids: list[str]) -> Iterator[dict[str, Any]]:
        for client_id in ids:
            yield from self.history(client_id)

    def _statistics(self, ids: list[str]) -> Iterator[dict[str, Any]]:
        return map(self.statistics, ids)

    def _files(self, ids: list[str]) -> Iterator[FolderFile]:
        for client_id in ids:
            for row in self._pages(client_updates, client_id, _BLOBS):
                file = self._file(row)
                if file is not None:
                    yield file

    def _file(self, row: Mapping[str, Any]) -> FolderFile | None:
        """The update; None if it is not kept any more, or an erasure overtook this export."""
        services = self._services
        try:
            key = services.sealer.blob_key(row["blob_key"], row["blob_id"])
            blob = services.blobs.reader(row["blob_id"], key)
        except (KeyDestroyed, NoSuchBlob):
            return None
        chunks = (
            blob.read_at(start, min(_CHUNK, blob.size_bytes - start))
            for start in range(0, blob.size_bytes, _CHUNK)
        )
        return FolderFile(f"{row['update_id']}.safetensors", blob.size_bytes, chunks)

    def _pages(
        self, table: Table, client_id: str, columns: tuple[ColumnElement[Any], ...] = ()
    ) -> Iterator[Mapping[str, Any]]:
        after = -1
        while True:
            query = _page_of(table, client_id, after, columns or tuple(table.c))
            with reading(self._services.engine) as conn:
                rows = [row._mapping for row in conn.execute(query)]
            yield from rows  # type: ignore[misc]
            if len(rows) < _PAGE:
                return
            after = rows[-1]["round_id"]

    def _client_ids(self, subject: str) -> list[str]:
        query = select(clients.c.client_id).where(clients.c.subject_id == subject)
        with reading(self._services.engine) as conn:
            return list(conn.execute(query.order_by(clients.c.client_id)).scalars())

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "client_id": row["client_id"],
            "update_id": row["update_id"],
            "round_number": row["round_number"],
            "submitted_at": text_of(row["submitted_at"]),
            "status": row["status"],
            "size_bytes": row["update_size_bytes"],
            "training_metrics": self._opened(row, "training_metrics"),
            "norm": self._opened(row, "norm"),
            "receipt": self._opened(row, "receipt"),
            "entry_id": row["entry_id"],
            "model_version": row["result_version"],
        }

    def _opened(self, row: Mapping[str, Any], column: str) -> Any:
        if row[column] is None:
            return None
        try:
            return self._services.sealer.open_column(row[column], "client_updates", column, row["update_id"])
        except KeyDestroyed:  # an erasure overtook this export
            return None

    def _invitation(self, row: Mapping[str, Any]) -> dict[str, Any]:
        times = {name: text_of(row[name]) for name in ("created_at", "invited_at", "delivered_at")}
        plain = ("invitation_id", "client_id", "round_number", "rank", "status")
        return {**{name: row[name] for name in plain}, **times}


def _page_of(
    table: Table, client_id: str, after: int, columns: tuple[ColumnElement[Any], ...]
) -> Select[Any]:
    """The next rows of a client, in the order of rounds."""
    return (
        select(*columns, rounds.c.round_number, rounds.c.result_version)
        .join(rounds, rounds.c.round_id == table.c.round_id)
        .where(table.c.client_id == client_id, table.c.round_id > after)
        .order_by(table.c.round_id)
        .limit(_PAGE)
    )
