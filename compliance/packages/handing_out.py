"""Hands packages out: by token, at the console, or by a link that opens once; each time is an entry.

Package and links end together, after their days or with an erasure.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from audit.draft import Personal
from audit.entry import Draft
from audit.errors import KeyDestroyed
from audit.events import EventType
from audit.reading import reading
from compliance.errors import CaseChanged, NoPackage
from compliance.journal import DESK
from compliance.parts import Blobs, DeskParts, Package
from compliance.requests.cases import Case, change_case, expired_packages, read_case
from compliance.tables import package_links

NO_PACKAGE = {"package_blob": None, "package_key": None, "package_bytes": None, "package_expires_at": None}
_SECRET_BYTES = 32
_NONE = "the request has no package: it is not written yet, it expired, or it was erased"
_DEAD_LINK = "the link was used, is too old, or never was one: ask for a new one"


class Way(StrEnum):
    """How a package left the gateway."""

    TOKEN = "token"  # noqa: S105 - a way, not a secret
    CONSOLE = "console"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Link:
    """A new link; its secret is shown once and kept nowhere."""

    secret: str = field(repr=False)
    expires_at: datetime


class Packages:
    """Gives out and removes packages."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts

    def fetch(self, case_id: str, way: Way) -> Package:
        """Where a package lies and the key that opens it, for who is about to hand it out. Raises NoPackage."""
        package = self.open(case_id)
        entry = self._entry(EventType.PRIVACY_FETCHED, case_id, way=way.value)
        with self._parts.engine.begin() as conn:
            self._parts.journal.write(conn, entry)
        return package

    def open(self, case_id: str) -> Package:
        """Where a package lies, for who only looks. Raises NoPackage."""
        return self._open(self._show(case_id))

    def link(self, case_id: str, *, by: Personal) -> Link:
        """Make a link that opens the package once, until the package goes. Raises NoPackage."""
        case = self._show(case_id)
        self._open(case)
        link = Link(secrets.token_urlsafe(_SECRET_BYTES), _insist_expiry(case))
        details = {"case_id": case_id, "expires_at": link.expires_at.isoformat()}
        entry = self._parts.journal.draft(EventType.PRIVACY_LINKED, details=details, actor=by)
        row = {"link_hash": _hashed(link.secret), "request_id": case_id, "expires_at": link.expires_at}
        with self._parts.engine.begin() as conn:
            change_case(conn, case)  # an expiry or an erasure at this moment leaves no link behind
            conn.execute(insert(package_links).values(created_at=self._parts.now(), **row))
            self._parts.journal.write(conn, entry)
        return link

    def linked(self, secret: str) -> Case:
        """The request whose package a link still opens; looking uses nothing up. Raises NoPackage."""
        query = select(package_links.c.request_id).where(*self._is_good(secret))
        with reading(self._parts.engine) as conn:
            case_id = conn.scalar(query)
            if case_id is None:
                raise NoPackage(_DEAD_LINK)
            return read_case(conn, case_id)

    def fetch_by_link(self, secret: str) -> Package:
        """Use a link up, and say where its package lies; of two who try at once, one gets it. Raises NoPackage."""
        case = self.linked(secret)
        package = self._open(case)
        entry = self._entry(EventType.PRIVACY_FETCHED, case.id, way=Way.LINK.value)
        use = update(package_links).where(*self._is_good(secret)).values(used_at=self._parts.now())
        with self._parts.engine.begin() as conn:
            if conn.execute(use).rowcount != 1:
                raise NoPackage(_DEAD_LINK)
            self._parts.journal.write(conn, entry)
        return package

    def expire(self) -> int:
        """Remove packages whose days are over, with their links; says how many."""
        with reading(self._parts.engine) as conn:
            old = expired_packages(conn, self._parts.now())
        return sum(self._expire(case) for case in old)

    def _expire(self, case: Case) -> bool:
        entry = self._parts.worker_journal.draft(
            EventType.PRIVACY_EXPIRED, details={"case_id": case.id}, actor=DESK
        )
        if case.package_blob is not None:
            self._parts.blobs.delete(case.package_blob)
        try:
            with self._parts.engine.begin() as conn:
                change_case(conn, case, **NO_PACKAGE)
                delete_links(conn, case.id)
                self._parts.worker_journal.write(conn, entry)
        except CaseChanged:  # an erasure was first, or somebody moved it: the next turn looks again
            return False
        return True

    def _open(self, case: Case) -> Package:
        is_here = case.has_package(self._parts.now())
        if not is_here or case.package_blob is None or case.package_key is None:
            raise NoPackage(_NONE)
        try:
            key = self._parts.sealer.blob_key(case.package_key, case.package_blob)
        except KeyDestroyed as error:
            raise NoPackage("the person was erased, and the package with them") from error
        return Package(case.package_blob, key, case.package_bytes or 0)

    def _entry(self, event_type: EventType, case_id: str, **facts: str) -> Draft:
        return self._parts.journal.draft(event_type, details={"case_id": case_id, **facts})

    def _is_good(self, secret: str) -> tuple[ColumnElement[bool], ...]:
        return (
            package_links.c.link_hash == _hashed(secret),
            package_links.c.used_at.is_(None),
            package_links.c.expires_at > self._parts.now(),
        )

    def _show(self, case_id: str) -> Case:
        with reading(self._parts.engine) as conn:
            return read_case(conn, case_id)


def remove_package(engine: Engine, blobs: Blobs, case: Case) -> bool:
    """Delete a request's package and its links; False if there is none, or if an export is just ending (try again)."""
    if case.package_blob is None:
        return False
    blobs.delete(case.package_blob)
    try:
        with engine.begin() as conn:
            change_case(conn, case, **NO_PACKAGE)
            delete_links(conn, case.id)
    except CaseChanged:
        return False
    return True


def delete_links(conn: Connection, case_id: str) -> None:
    """Remove every link to a request's package, used or not."""
    conn.execute(delete(package_links).where(package_links.c.request_id == case_id))


def _insist_expiry(case: Case) -> datetime:
    if case.package_expires_at is None:
        raise NoPackage(_NONE)
    return case.package_expires_at


def _hashed(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
