"""The check of the SIEM sinks: their forms, their files, and whether they can be reached now."""

from __future__ import annotations

import stat
from pathlib import Path

from audit.siem import NamedSink, SinkDown, parse_sinks
from gateway.config import Config
from gateway.doctor.errors import Ailing, Risky

_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MENDABLE = ("certificate", "PEM file", "secret_file")
"""What a probe says of faults that are ours to mend; the rest is an outage, which passes."""


def siem_sinks(config: Config) -> str:
    """Each is of a known kind, its secret files are nobody else's, and what cannot be reached now is named."""
    found = parse_sinks(config.siem_sinks)
    if not found:
        return "none: the log is kept, and nobody is told"
    for named in found:
        for path in named.secret_files:
            _insist_private(named.name, path)
    if away := [said for named in found if (said := _away(named))]:
        raise Risky(f"{len(away)} of {len(found)} cannot be reached now: {'; '.join(away)}")
    return f"{len(found)} of them"


def _insist_private(sink: str, path: str) -> None:
    try:
        mode = Path(path).stat().st_mode
        Path(path).open("rb").close()
    except OSError as error:
        raise Ailing(f"FLG_SIEM_SINKS: a file of {sink} cannot be read ({error.strerror}): {path}") from error
    if mode & _FOR_OTHERS:
        raise Ailing(f"FLG_SIEM_SINKS: others can read a secret of {sink}: chmod 600 {path}")


def _away(named: NamedSink) -> str:
    try:
        named.sink.probe()
    except SinkDown as down:
        if any(word in down.why for word in _MENDABLE) or named.name.startswith("file:"):
            raise Ailing(f"FLG_SIEM_SINKS: {named.name}: {down.why}") from down
        return f"{named.name} ({down.why})"
    finally:
        named.sink.close()
    return ""
