"""docs/siem.md, on sinks: its settings are read, its options exist, its commands print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from services.checkout import ROOT
from services.siem_http import listening
from services.splunk import TOKEN, Splunk

from audit.events import EventType
from audit.siem import BadSink, SinkDown, parse_sinks
from gateway.cli import main
from gateway.config import Config
from gateway.parts.forwarding import forwarder_of
from gateway.parts.sequencing import sequencer_of
from gateway.services import open_services

PAGE = (ROOT / "docs" / "siem.md").read_text("utf-8")


def shown_lines(command: str) -> list[str]:
    """What the page shows below a command, without what differs each time."""
    found = re.search(rf"^\$ {re.escape(command)}\n((?:[^$`].*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    return [without_particulars(line) for line in found[1].splitlines()]


def without_particulars(line: str) -> str:
    """The line with names, times and numbers taken out."""
    line = re.sub(r"\w+\+https?://[\w.:]+(?=: )", "SINK", line)
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME", line)
    return re.sub(r"(?<=entry )-?\d+|\b\d+(?= behind| refused)", "N", line)


def test_the_settings_of_the_page_are_read() -> None:
    """Each example names sinks that are accepted."""
    settings = re.findall(r"^FLG_SIEM_SINKS='(.*)'$", PAGE, re.MULTILINE)

    kinds = {sink.name.partition(":")[0] for setting in settings for sink in parse_sinks(setting)}

    assert kinds == {"syslog+tls", "hec+https", "elastic+https", "file"}


def test_the_options_of_the_page_are_those_that_exist() -> None:
    """Every option that the page lists is taken by some kind of sink; the default form of each is as it says."""
    table = re.search(r"\| option \| for .*?\n\n", PAGE, re.DOTALL)
    assert table is not None
    listed = {
        name
        for row in table[0].strip().splitlines()[2:]
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    values = {
        "format": "raw",
        "ack": "required",
        "confirm": "sent",
        "timeout": "3",
        "cert_file": "x&key_file=y",
    }
    kinds = ("file:x?", "syslog+tls://h?", "hec+https://h?secret_file=t&", "elastic+https://h?")

    def takes(kind: str, option: str) -> bool:
        if f"{option}=" in kind:
            return True
        try:
            parse_sinks(f"{kind}{option}={values.get(option, 'x')}")
        except BadSink as refused:
            return "unknown option" not in str(refused)
        return True

    assert {option for option in listed if any(takes(kind, option) for kind in kinds)} == listed
    assert [parse_sinks(kind.rstrip("?&"))[0].format for kind in kinds] == ["raw", "raw", "raw", "ecs"]


def test_the_commands_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`siem test`, `siem status` of a sink that is away, and `siem dead-letters`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    splunk = Splunk()
    with listening(splunk) as address:
        setting = f"hec+http://{address}?secret_file=token"
        monkeypatch.setenv("FLG_SIEM_SINKS", setting)
        tested = run("siem test")
        splunk.code_of = lambda event: 6 if event["event"]["seq"] == 0 else 0
        deliver(setting, 1)
        deliver(setting, 1)
        letters = run("siem dead-letters")
        splunk.code_of = lambda _event: 9  # not an event's fault
        deliver(setting, 6)
        status = run("siem status")

    assert tested == shown_lines("fl-gateway siem test")
    assert [line.partition(": ")[0] for line in letters] == [
        line.partition(": ")[0] for line in shown_lines("fl-gateway siem dead-letters")
    ]
    told, *rest = shown_lines("fl-gateway siem status")
    assert status[0].partition(" (")[0] == told.partition(" (")[0] == "SINK: open since TIME"
    assert status[1] == rest[0]
    assert status[2] == rest[1].replace("ocsf", "raw")


def run(command: str) -> list[str]:
    """The lines that a command prints, without what differs each time."""
    done = CliRunner().invoke(main, shlex.split(command))
    return [without_particulars(line) for line in done.stdout.splitlines()]


def deliver(setting: str, tries: int) -> None:
    """Put what was written into the log, and let one forwarder try so often; a sink that is away is left."""
    services = open_services(Config(), part="forward")
    services.trail.note(EventType.AUDIT_EXPORTED, entries=1, format="bundle")
    while sequencer_of(services).run_once():
        pass
    (named,) = parse_sinks(setting)
    forwarder = forwarder_of(services, named)
    for _ in range(tries):
        try:
            forwarder.run_once()
        except SinkDown:
            continue
    named.sink.close()
    services.close()
