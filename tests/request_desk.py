"""Requests at the desk of the small house: opened in one line, and a desk with other settings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from audit.draft import Personal
from audit.reading import reading
from audit.tables import audit_log
from compliance.requests.cases import Case
from compliance.requests.desk import PrivacyDesk

if TYPE_CHECKING:
    from conftest import House


def opened(house: House, kind: str = "access", **beside: Any) -> Case:
    """A new request about a new person."""
    return house.desk.open(kind, house.person(), requested_by=house.officer, **beside)


def officer_named(house: House, name: str) -> Personal:
    """A second member of the staff."""
    return Personal(house.person(name), name)


def use(house: House, **settings: Any) -> PrivacyDesk:
    """Give the house a desk with other settings, on the same stores."""
    house.desk = PrivacyDesk(replace(house.desk._parts, **settings))
    return house.desk


def entries(house: House, event_type: str) -> list[dict[str, Any]]:
    """The details of the entries of one type, in order."""
    house.sequence()
    query = select(audit_log.c.canonical).where(audit_log.c.event_type == event_type)
    with reading(house.engine) as conn:
        found = conn.execute(query.order_by(audit_log.c.seq)).scalars()
        return [json.loads(text)["details"] for text in found]
