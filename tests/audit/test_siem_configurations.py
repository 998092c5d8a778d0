"""deploy/siem: what we hand to the people of a SIEM works with their software, and names what our events have."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from services.authority import Authority
from services.checkout import ROOT
from services.ecs import FIELDS, OWN_FIELDS
from services.pebble import process
from services.ports import await_port, free_port
from services.rsyslog import whole_lines
from services.siem import NOON, fill_log, open_log, pseudonym

from audit.siem import SiemEvent, parse_sinks
from audit.siem.event import render
from audit.siem.formats import FORMATS
from audit.siem.sinks import DATA_STREAM
from audit.store import StoredEntry, read_entries

FILES = ROOT / "deploy" / "siem"


@pytest.fixture
def events(sqlite_url: str) -> list[SiemEvent]:
    """Some events of each outcome, and one of a spoilt entry."""
    spoilt = StoredEntry(3, b"{}", bytes(32))
    return [*rendered(sqlite_url, 3), render(spoilt, 2, pseudonym, NOON)]


def rendered(url: str, count: int, *, padding: str = "") -> list[SiemEvent]:
    """The events of a log of so many entries."""
    engine = open_log(url)
    fill_log(engine, count, padding=padding)
    with engine.connect() as conn:
        entries = read_entries(conn, None, count)
    engine.dispose()
    return [render(entry, entry.seq - 1, pseudonym, NOON) for entry in entries]


def test_rsyslog_takes_the_log_with_our_configuration(sqlite_url: str, tmp_path: Path) -> None:
    """The file as it stands (but for paths and port): checked by rsyslogd, fed over TLS, one line of JSON an event."""
    authority, port = Authority(tmp_path / "ca"), free_port()
    config = rsyslog_configuration(tmp_path, authority, port)
    ours = authority.pair("fl-gateway")
    events = rendered(sqlite_url, 40, padding="x" * 20_000)

    checked = subprocess.run(
        ["rsyslogd", "-N1", "-f", str(config)], capture_output=True, text=True, check=False, timeout=30
    )
    with process(
        ["rsyslogd", "-n", "-f", str(config), "-i", str(tmp_path / "pid")], tmp_path / "rsyslog.log"
    ) as child:
        await_port(port, child)
        files = f"ca_file={authority.ca_file}&cert_file={ours.certificate}&key_file={ours.key}"
        (named,) = parse_sinks(f"syslog+tls://127.0.0.1:{port}?{files}")
        named.sink.deliver(events)
        lines = await_lines(tmp_path / "log" / "audit.jsonl", 40)

    told = [json.loads(line) for line in lines]
    assert checked.returncode == 0, checked.stderr
    assert "error" not in checked.stderr
    assert [(event["seq"], event["prev_seq"]) for event in told] == [(n, n - 1) for n in range(40)]
    assert {event["entry"]["details"]["name"] for event in told} == {"Grüße" + "x" * 20_000}


def rsyslog_configuration(directory: Path, authority: Authority, port: int) -> Path:
    """The shipped file with this test's paths and port."""
    pair = authority.pair("receiver", "127.0.0.1")
    text = (FILES / "rsyslog" / "fl-gateway.conf").read_text("utf-8")
    for theirs, here in (
        ("/etc/fl-gateway/siem/ca.pem", authority.ca_file),
        ("/etc/fl-gateway/siem/receiver.pem", pair.certificate),
        ("/etc/fl-gateway/siem/receiver.key", pair.key),
        ("/var/log/fl-gateway", directory / "log"),
        ('port="6514"', f'port="{port}" address="127.0.0.1"'),
    ):
        assert theirs in text
        text = text.replace(theirs, str(here))
    path = directory / "fl-gateway.conf"
    path.write_text(f'global(workDirectory="{directory}")\n{text}', "utf-8")
    return path


def await_lines(path: Path, count: int) -> list[str]:
    """The lines of a file, once there are so many."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        lines = whole_lines(path)
        if len(lines) >= count:
            return lines
        time.sleep(0.05)
    raise AssertionError(f"{path} has not {count} lines")


def mapped(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each field of an Elasticsearch mapping with its type."""
    for name, field in properties.items():
        if "properties" in field:
            yield from mapped(field["properties"], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field["type"]


def test_the_index_template_maps_what_the_ecs_form_tells() -> None:
    """Each field of the form has its published type; a field of tomorrow is kept, and refuses no document."""
    template = json.loads((FILES / "elastic" / "index-template.json").read_text("utf-8"))
    mappings = template["template"]["mappings"]
    fields = dict(mapped(mappings["properties"]))

    assert fields == FIELDS | OWN_FIELDS
    assert mappings["dynamic"] is False
    assert fields["fl_gateway.details"] == "flattened"  # no detail can clash with another's type
    assert template["data_stream"] == {}


def test_the_index_template_is_of_the_sink_s_data_stream() -> None:
    """`elastic+https` writes to a stream that the template's pattern matches."""
    template = json.loads((FILES / "elastic" / "index-template.json").read_text("utf-8"))

    (pattern,) = template["index_patterns"]

    assert re.fullmatch(pattern.replace(".", r"\.").replace("*", ".*"), DATA_STREAM)


def splunk(name: str) -> configparser.ConfigParser:
    """A configuration file of Splunk, whose names keep their case and whose values mean nothing to the reader."""
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((FILES / "splunk" / name).read_text("utf-8"))
    return parser


@pytest.mark.parametrize("form", FORMATS)
def test_splunk_finds_the_same_names_in_every_form(form: str, events: list[SiemEvent]) -> None:
    """props.conf: seq, prev_seq, entry_id, event_type and user, whichever form the sink has."""
    stanza = splunk("props.conf")[f"fl_gateway:{form}"]
    aliases = {
        new: old.strip('"')
        for old, new in (v.split(" AS ") for k, v in stanza.items() if k.startswith("FIELDALIAS"))
    }

    for event in events:
        shown = FORMATS[form](event)
        assert at(shown, aliases.get("seq", "seq")) == event.seq
        assert at(shown, aliases.get("prev_seq", "prev_seq")) == event.prev_seq
        assert at(shown, aliases["event_type"]) == event.entry["event_type"]
        assert at(shown, aliases["entry_id"]) == event.entry.get("id")
        assert at(shown, aliases["user"]) == event.pseudonym("actor")


@pytest.mark.parametrize("form", FORMATS)
def test_splunk_reads_the_time_of_a_line(form: str, events: list[SiemEvent]) -> None:
    """props.conf: TIME_PREFIX and TIME_FORMAT, for a file that a forwarder reads."""
    stanza = splunk("props.conf")[f"fl_gateway:{form}"]

    for event in events:
        line = json.dumps(FORMATS[form](event), ensure_ascii=False, separators=(",", ":"))
        found = re.search(stanza["TIME_PREFIX"] + f'(.{{1,{stanza["MAX_TIMESTAMP_LOOKAHEAD"]}}}?)"', line)
        assert found
        told = datetime.strptime(found[1], stanza["TIME_FORMAT"].replace("%6N", "%f")).replace(tzinfo=UTC)
        assert told == event.time


def test_splunk_s_files_are_of_one_sink() -> None:
    """The index, the source types and the acknowledgement of inputs.conf are those that searches and sink rely on."""
    inputs, searches, props = (splunk(f"{name}.conf") for name in ("inputs", "savedsearches", "props"))

    token = inputs["http://fl-gateway"]

    assert set(props.sections()) == {f"fl_gateway:{form}" for form in FORMATS}
    assert token["sourcetype"] in props
    assert (token["useACK"], token["index"]) == ("1", "fl_gateway")
    assert len(searches.sections()) == 3
    for name in searches.sections():
        assert searches[name]["search"].startswith("index=fl_gateway sourcetype=fl_gateway:*")
        assert searches[name]["enableSched"] == "1"


@pytest.mark.parametrize("form", FORMATS)
def test_what_finds_a_hole_stands_at_the_beginning(form: str, events: list[SiemEvent]) -> None:
    """Splunk extracts fields from the first 5,000 characters of an event alone; details may be longer."""
    for event in events:
        line = json.dumps(FORMATS[form](event), ensure_ascii=False, separators=(",", ":"))

        assert line.index('"prev_seq":') < 2500
        assert '"details":' not in line[: line.index('"prev_seq":')]


def at(document: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for name in path.split("."):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document
