"""The log explorer: entries by type, time, outcome and place; one entry with its proof, and its personal fields sealed.

The page hands the browser what it needs to check the proof itself (`static/proof.js`): the gateway's word counts for
nothing there. Who was given `audit:reveal` by name opens the sealed fields with a reason (RULES 27).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode

from flask import Response, request, url_for

from audit.entry import Entry
from audit.errors import NoCheckpoint
from audit.events import EVENTS, Event, EventType, Outcome
from audit.proof import Proof
from audit.reading import reading
from audit.search import Wanted, find_entries
from audit.store import tree_size
from audit.tree import prove
from compliance.errors import ReasonMissing
from compliance.revealing import LONGEST_REASON, Revealed, reveal, sealed_fields
from gateway.console.blueprint import page_blueprint
from gateway.console.names import OUTCOMES
from gateway.console.pages import render_page
from gateway.errors import NotFound
from gateway.log_entries import log_entry
from gateway.log_key import log_keys
from gateway.openapi import Media, operation
from gateway.services import Services, current_services

log = page_blueprint("console_log", "/log")
ON_A_PAGE = 50
_LONGEST_PLACE = 15  # digits: below the last place
_PAGE = {200: Media.HTML}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the filter's form was filled with, as it is shown again; and what of it could not be read."""

    fields: Mapping[str, str]
    wanted: Wanted
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry with what its page tells of it."""

    entry: Entry
    proof: Proof | None
    vkey: str
    size: int
    revealed: Revealed | None = None
    reason: str = field(default="", repr=False)
    is_reason_missing: bool = False


@log.get("")
@operation("The log explorer: entries, filtered", answers={**_PAGE, 422: Media.HTML})
def show_log() -> Response:
    """A page of entries, the newest first."""
    asked = _asked(request.args)
    before, after = (_place(request.args.get(name, "")) for name in ("before", "after"))
    with reading(current_services().engine) as conn:
        found = find_entries(conn, asked.wanted, before=before, after=after, limit=ON_A_PAGE)
        size = tree_size(conn)
    return render_page(
        "log.html",
        422 if asked.wrong else 200,
        asked=asked,
        found=found,
        size=size,
        families=_families(),
        outcomes=OUTCOMES,
        older=_link(asked, "before", found.older),
        newer=_link(asked, "after", found.newer),
    )


@log.get("/<int:seq>")
@operation("One entry of the log, and its proof", answers={**_PAGE, 404: Media.HTML})
def show_entry(seq: int) -> Response:
    """The entry as it is stored: what says something about a person is sealed."""
    return _entry_page(_shown(current_services(), seq))


@log.get("/<int:seq>/proof")
@operation("The proof of an entry (C2SP tlog-proof)", answers={200: Media.TEXT, 404: Media.HTML})
def show_proof(seq: int) -> Response:
    """What `fl-gateway audit verify` takes, and the page's own script."""
    shown = _shown(current_services(), seq)
    if shown.proof is None:
        raise NotFound("No checkpoint covers this entry yet: try again in a moment")
    response = Response(shown.proof.text(), mimetype=Media.TEXT.value)
    response.headers["Content-Disposition"] = f'attachment; filename="entry-{seq}.tlog-proof"'
    return response


@log.post("/<int:seq>/reveal")
@operation(
    "Decrypt the personal fields of an entry; who did, and why, is an entry too",
    body=Media.FORM,
    answers={**_PAGE, 404: Media.HTML, 422: Media.HTML},
)
def send_reveal(seq: int) -> Response:
    """The entry's page with the fields opened, this once: they are in no address and in no cache."""
    services, reason = current_services(), request.form.get("reason", "")
    entry = log_entry(services, seq)
    try:
        opened = reveal(entry, reason, engine=services.engine, journal=services.trail, sealer=services.sealer)
    except ReasonMissing:
        return _entry_page(_shown(services, seq, reason=reason, is_reason_missing=True), 422)
    return _entry_page(_shown(services, seq, revealed=opened, reason=reason))


def _entry_page(shown: Shown, status: int = 200) -> Response:
    entry, sealed = shown.entry, sealed_fields(shown.entry)
    clear = {name: value for name, value in entry.details.items() if f"details.{name}" not in sealed}
    return render_page(
        "log_entry.html",
        status,
        shown=shown,
        entry=entry,
        members=entry.members,
        event=_event(entry.event_type),
        outcome=OUTCOMES[Outcome(str(entry.members["outcome"]))],
        sealed=sealed,
        clear=clear,
        canonical=entry.canonical.decode(),
        longest_reason=LONGEST_REASON,
    )


def _shown(
    services: Services,
    seq: int,
    *,
    revealed: Revealed | None = None,
    reason: str = "",
    is_reason_missing: bool = False,
) -> Shown:
    entry = log_entry(services, seq)
    with reading(services.engine) as conn:
        proof, size = prove(conn, seq), tree_size(conn)
    try:
        vkey = log_keys(services).vkey
    except NoCheckpoint:
        vkey = ""
    return Shown(entry, proof, vkey, size, revealed, reason, is_reason_missing)


def _event(name: str) -> Event | None:
    """The declaration of an event type; a later version of the gateway may have written one that is not known here."""
    return EVENTS[EventType(name)] if name in set(EventType) else None


def _asked(args: Mapping[str, str]) -> Asked:
    """The filter that an address spells; what cannot be read is left out, and said."""
    fields = {
        name: args.get(name, "").strip()[:64]
        for name in ("type", "outcome", "since", "until", "first", "last")
    }
    readers = {"since": _moment, "until": _moment, "first": _place, "last": _place}
    read = {name: reader(fields[name]) for name, reader in readers.items()}
    wrong = [name for name in readers if fields[name] and read[name] is None]
    types, outcome = _types(fields["type"]), None
    if fields["type"] and not types:
        wrong.append("type")
    try:
        outcome = Outcome(fields["outcome"]) if fields["outcome"] else None
    except ValueError:
        wrong.append("outcome")
    return Asked(fields, Wanted(types, outcome, **read), tuple(wrong))  # type: ignore[arg-type]


def _types(text: str) -> frozenset[str]:
    """One event type, or with a dot at the end all of a family, such as `privacy.`."""
    if text.endswith("."):
        return frozenset(kind.value for kind in EventType if kind.value.startswith(text))
    return frozenset({text} if text in set(EventType) else ())


def _families() -> Mapping[str, list[str]]:
    """The event types by what their names begin with."""
    found: dict[str, list[str]] = {}
    for kind in sorted(EventType):
        found.setdefault(f"{kind.value.partition('.')[0]}.", []).append(kind.value)
    return found


def _moment(text: str) -> datetime | None:
    """What a browser's field for a time holds, in UTC; it holds no offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None and 1970 <= found.year < 9999 else None


def _place(text: str) -> int | None:
    if not text.isascii() or not text.isdecimal() or len(text) > _LONGEST_PLACE:
        return None
    return int(text)


def _link(asked: Asked, way: str, place: int | None) -> str | None:
    """Where the same filter goes on."""
    if place is None:
        return None
    kept = {name: text for name, text in asked.fields.items() if text and name not in asked.wrong}
    return f"{url_for('console_log.show_log')}?{urlencode({**kept, way: place})}"
