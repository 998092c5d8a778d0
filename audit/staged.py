"""A staged body in its place, read in one pass where it is spelled as writers spell it (decision 0164).

What is recognised here, `audit.entry.place` would accept, with the same values, at three times the price. What is
not known here, good or bad, is left to it to judge.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from audit.entry import MAX_ENTRY_BYTES, Entry, Outcome, place, read_time, with_place

_PLAIN = r"[ !#-\[\]-~]*+"  # printable ASCII but quote and backslash: no other spelling of it is canonical
_TEXT = f'"{_PLAIN}"'
_SEALED = rf'\{{"enc":{_TEXT},"key":"([0-9a-f]++)"\}}'
_NUMBER = "0|-?[1-9][0-9]{0,14}+"  # within 2^53
_UUID = "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_BODY = re.compile(
    rf'\{{"action":{_TEXT},"actor":{_SEALED},"details":\{{(.*)\}},"event_type":"({_PLAIN})","id":"({_UUID})",'
    rf'"ip_address":(?:null|{_SEALED}),"outcome":"(?:{"|".join(Outcome)})","request_id":{_TEXT},'
    rf'"resource":{_TEXT},"time":"({_PLAIN})","trace_id":{_TEXT}\}}'
)
_DETAIL = re.compile(rf',"([a-z0-9_]++)":(?:{_SEALED}|{_TEXT}|{_NUMBER}|true|false|null)')


class Placed(NamedTuple):
    """What the log keeps of an entry in its place."""

    seq: int
    id: str
    event_type: str
    time: str
    key_ids: Collection[str]
    canonical: bytes

    @classmethod
    def of(cls, entry: Entry) -> Placed:
        """The same of an entry that was read whole."""
        time = str(entry.members["time"])
        return cls(entry.seq, entry.id, entry.event_type, time, entry.key_ids(), entry.canonical)


def placed(body: str, seq: int, prev: str) -> Placed:
    """What a staged body becomes; raises NotCanonical or BadEntry as `place` does."""
    return _recognised(body, seq, prev) or Placed.of(place(body.encode(), seq, prev))


def _recognised(body: str, seq: int, prev: str) -> Placed | None:
    found = _BODY.fullmatch(body) if len(body) < MAX_ENTRY_BYTES else None
    if found is None:
        return None
    actor_key, details, event_type, entry_id, address_key, time = found.groups()
    parts = _DETAIL.split(details and f",{details}")  # what is between the details, name, key, and so on
    between, names, keys = parts[::3], parts[1::3], parts[2::3]
    if any(between) or names != sorted({*names}):
        return None
    read_time(time)
    data = with_place(body.encode(), seq, prev)
    if len(data) > MAX_ENTRY_BYTES:
        return None
    key_ids = {actor_key, address_key, *keys} - {None}
    return Placed(seq, entry_id, event_type, time, sorted(key_ids), data)


__all__ = ["Placed", "placed"]
