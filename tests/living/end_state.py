"""What an erasure leaves behind, in a form in which two ways to the same end are equal."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from typing import Any

from living.erasing import deliver
from living.home import Home
from sqlalchemy import Table, select

import compliance.tables
import gateway.tables
from audit.reading import reading
from audit.tables import audit_log
from compliance.erasures.receipt import verify
from compliance.keyring.tables import pseudonyms, subject_keys
from gateway.privacy import privacy_desk
from gateway.services import Services

Json = dict[str, Any]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_OF_THE_RUN = {"version", "attempts", "intent_id", "receipt", "finished_at", "swept_at", "commitment_key"}
"""Columns of a request that tell how often it was tried, and when; its receipt is compared by itself."""
_OF_THE_MOMENT = {"commitment", "news_id", "log"}


def end_state(home: Home, case_id: str) -> Json:
    """Rows, blobs, keys, names, the kinds of entries, and the receipt."""
    with home.stores() as services:
        deliver(services)
        rows = {table.name: _rows(services, table, str(home.directory)) for table in _tables()}
        with reading(services.keystore_engine) as conn:
            keys = conn.execute(
                select(subject_keys.c.subject, subject_keys.c.retention, subject_keys.c.period)
            )
            names = conn.execute(select(pseudonyms.c.subject)).scalars()
            held, named = sorted(map(tuple, keys)), sorted(names)
        with reading(services.engine) as conn:
            entries = Counter(conn.execute(select(audit_log.c.event_type)).scalars())
        erased, receipt = sorted(services.state.erased_keys()), receipt_of(services, case_id)
    return {
        **rows,
        "blobs": sorted(home.blob_names()),
        "keys": held,
        "names": named,
        "erased": erased,
        "entries": dict(entries),
        "receipt": _told(receipt, str(home.directory)),
    }


def receipt_of(services: Services, case_id: str) -> Json:
    """The signed receipt of a finished erasure."""
    case = privacy_desk(services).show(case_id)
    assert case.receipt is not None, f"{case.status}: {case.last_error}"
    told: Json = verify(case.receipt, {row.kid: row.public for row in services.keystore.public_keys()})
    return told


def without_moments(value: Any) -> Any:
    """The same without what differs from one run to the next: times, and what is drawn at random."""
    if isinstance(value, dict):
        return {name: without_moments(one) for name, one in value.items() if name not in _OF_THE_MOMENT}
    if isinstance(value, list | tuple):
        return [without_moments(one) for one in value]
    is_time = isinstance(value, datetime) or (isinstance(value, str) and _TIME.fullmatch(value))
    return "a time" if is_time else value


def _tables() -> list[Table]:
    metadatas = (gateway.tables.metadata, compliance.tables.metadata)
    return [table for metadata in metadatas for table in metadata.sorted_tables]


def _told(receipt: Json, folder: str) -> str:
    """All that a receipt says but the commitment, which is under a key drawn at random."""
    facts = {name: one for name, one in receipt.items() if name != "subject"}
    return repr(without_moments(facts)).replace(folder, "")


def _rows(services: Services, table: Table, folder: str) -> list[str]:
    volatile = _OF_THE_RUN if table.name == "privacy_requests" else set()
    with reading(services.engine) as conn:
        found = [dict(row) for row in conn.execute(select(table)).mappings()]
    return sorted(
        repr({name: without_moments(one) for name, one in row.items() if name not in volatile}).replace(
            folder, ""
        )
        for row in found
    )
