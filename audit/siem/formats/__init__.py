"""The forms in which a sink is told of an entry: ours (`raw`), OCSF and ECS. A sink writes what one returns as JSON."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from audit.canonical import JsonValue
from audit.siem.event import SiemEvent
from audit.siem.formats.ecs import ecs
from audit.siem.formats.ocsf import ocsf
from audit.siem.formats.raw import raw

Format = Callable[[SiemEvent], dict[str, JsonValue]]
"""What an event is in one form: members in the order in which they are shown."""

FORMATS: Mapping[str, Format] = MappingProxyType({"raw": raw, "ocsf": ocsf, "ecs": ecs})
"""The forms by the name that `?format=` gives them."""

__all__ = ["FORMATS", "Format"]
