"""One entry of the log as it is stored, for who reads or reveals it; bytes that are no entry any more are told."""

from __future__ import annotations

from audit.entry import Entry, parse_entry
from audit.errors import AuditError
from audit.reading import reading
from audit.store import entry_at
from gateway.errors import GatewayError, NotFound
from gateway.paths import insist_number
from gateway.services import Services


class EntryDamaged(GatewayError):
    """What stands in the log at this place is no entry: the database was changed behind the gateway's back."""

    code, title = "ENTRY_DAMAGED", "The entry cannot be read"

    def __init__(self, seq: int) -> None:
        super().__init__(
            f"The bytes of entry {seq} were overwritten. `fl-gateway audit verify` says since when the log is broken"
        )


def log_entry(services: Services, seq: int) -> Entry:
    """The entry at a place.

    Raises:
        NotFound: there is none.
        EntryDamaged: its bytes are none.
    """
    with reading(services.engine) as conn:
        stored = entry_at(conn, insist_number(seq))
    if stored is None:
        raise NotFound("There is no such entry")
    try:
        return parse_entry(stored.canonical)
    except AuditError as error:
        raise EntryDamaged(seq) from error
