"""Nothing of a person is taken while a restriction or an objection stands (Art. 18(2), 21(1))."""

from __future__ import annotations

from sqlalchemy import Connection, select

from compliance.subjects import UNRESTRICTED
from compliance.tables import subjects
from gateway.errors import ProcessingRestricted
from gateway.tables import clients


def insist_unrestricted(conn: Connection, client_id: str) -> None:
    """Let the client's person send something.

    Raises:
        ProcessingRestricted: a restriction or an objection stands.
    """
    query = (
        select(UNRESTRICTED.label("is_free"))
        .select_from(subjects)
        .join(clients, clients.c.subject_id == subjects.c.subject_id)
        .where(clients.c.client_id == client_id)
    )
    if conn.execute(query).scalar_one_or_none() in (False, 0):
        raise ProcessingRestricted
