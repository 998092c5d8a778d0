"""A model lineage: its schema, its versions, and which of them the next round builds on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from gateway.errors import NotFound
from gateway.tables import model_versions, models


@dataclass(frozen=True, slots=True)
class Lineage:
    """One model as it grows round by round.

    `epsilon_budget` and `delta` are decimal strings, None where the lineage has no privacy budget.
    """

    model_id: str
    name: str
    major: int
    schema: list[dict[str, Any]]
    epsilon_budget: str | None
    delta: str | None
    ledger_version: int
    current_version: str | None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A published model; its bytes never change."""

    version: str
    model_id: str
    round_number: int | None
    blob_id: str
    checksum: str
    size_bytes: int
    accuracy: float | None
    loss: float | None
    created_at: datetime


_BY_ID = select(models).where(models.c.model_id == bindparam("id"))


def find_lineage(conn: Connection, model_id: str) -> Lineage:
    """The lineage of that id.

    Raises:
        NotFound: there is none.
    """
    row = conn.execute(_BY_ID, {"id": model_id}).one_or_none()
    if row is None:
        raise NotFound("There is no such model")
    return _lineage(row._mapping)


def lock_lineage(conn: Connection, model_id: str) -> Lineage:
    """The lineage as it is now, locked until the transaction ends: rounds are opened one after the other."""
    query = select(models).where(models.c.model_id == model_id).with_for_update()
    return _lineage(conn.execute(query).one()._mapping)


def lineages(conn: Connection) -> list[Lineage]:
    """All lineages, the oldest first."""
    return [_lineage(row._mapping) for row in conn.execute(select(models).order_by(models.c.major))]


def newest_lineage(conn: Connection) -> Lineage:
    """The lineage that was registered last.

    Raises:
        NotFound: no model was registered yet.
    """
    row = conn.execute(select(models).order_by(models.c.major.desc()).limit(1)).one_or_none()
    if row is None:
        raise NotFound("No model is registered: add one with `fl-gateway model add FILE`")
    return _lineage(row._mapping)


def find_version(conn: Connection, version: str) -> ModelVersion:
    """The model version of that name.

    Raises:
        NotFound: there is none.
    """
    row = conn.execute(select(model_versions).where(model_versions.c.version == version)).one_or_none()
    if row is None:
        raise NotFound("There is no such model version")
    return _version(row._mapping)


def list_versions(conn: Connection, *, limit: int, offset: int) -> tuple[list[ModelVersion], int]:
    """Versions, the newest first, and how many there are."""
    query = select(model_versions).order_by(model_versions.c.version_id.desc()).limit(limit).offset(offset)
    total = conn.execute(select(func.count()).select_from(model_versions)).scalar_one()
    return [_version(row._mapping) for row in conn.execute(query)], total


def newest_versions(conn: Connection, model_id: str, *, limit: int) -> list[ModelVersion]:
    """The newest versions of a lineage, the oldest of them first."""
    query = select(model_versions).where(model_versions.c.model_id == model_id)
    rows = conn.execute(query.order_by(model_versions.c.version_id.desc()).limit(limit)).all()
    return [_version(row._mapping) for row in reversed(rows)]


def next_major(conn: Connection) -> int:
    """The first number of the next lineage's versions: versions are unique across lineages."""
    return (conn.execute(select(func.max(models.c.major))).scalar_one() or 0) + 1


def next_version(conn: Connection, lineage: Lineage) -> str:
    """The version that the lineage's next model gets: its minor number counts its models."""
    count = conn.execute(
        select(func.count()).select_from(model_versions).where(model_versions.c.model_id == lineage.model_id)
    ).scalar_one()
    return f"{lineage.major}.{count}.0"


def add_version(
    conn: Connection, version: ModelVersion, *, certificate: Mapping[str, Any] | None = None
) -> None:
    """Publish a version and make it the base of the next round."""
    conn.execute(
        insert(model_versions).values(
            version=version.version,
            model_id=version.model_id,
            round_number=version.round_number,
            accuracy=version.accuracy,
            loss=version.loss,
            model_blob_url=f"blob:{version.blob_id}",
            created_at=version.created_at,
            checksum=version.checksum,
            size_bytes=version.size_bytes,
            certificate=certificate,
        )
    )
    make_current(conn, version)


def make_current(conn: Connection, version: ModelVersion) -> None:
    """Make this version the base of the lineage's next round."""
    chosen = update(models).where(models.c.model_id == version.model_id)
    conn.execute(chosen.values(current_version=version.version))


def _lineage(row: Mapping[Any, Any]) -> Lineage:
    return Lineage(
        model_id=row["model_id"],
        name=row["name"],
        major=row["major"],
        schema=row["schema"],
        epsilon_budget=row["epsilon_budget"],
        delta=row["delta"],
        ledger_version=row["ledger_version"],
        current_version=row["current_version"],
    )


def _version(row: Mapping[Any, Any]) -> ModelVersion:
    return ModelVersion(
        version=row["version"],
        model_id=row["model_id"],
        round_number=row["round_number"],
        blob_id=row["model_blob_url"].removeprefix("blob:"),
        checksum=row["checksum"],
        size_bytes=row["size_bytes"],
        accuracy=row["accuracy"],
        loss=row["loss"],
        created_at=row["created_at"],
    )
