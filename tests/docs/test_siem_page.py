"""docs/siem.md: its examples are what the code makes, its queries find holes, its program reads the log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from living.home import clean_environment, home_in
from living.processes import gateway_in
from services.checkout import ROOT
from services.siem import NOON, fill_log, open_log, pseudonym

from audit.siem.event import SiemEvent, render
from audit.siem.file_sink import FileSink
from audit.siem.formats import FORMATS
from audit.store import read_entries

PAGE = (ROOT / "docs" / "siem.md").read_text("utf-8")


def block(language: str, holding: str = "") -> str:
    """The page's one block of this language that holds a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (chosen,) = [text for text in found if holding in text]
    return str(chosen)


@pytest.fixture
def events(sqlite_url: str) -> list[SiemEvent]:
    """Ten events in a row."""
    engine = open_log(sqlite_url)
    fill_log(engine, 10)
    with engine.connect() as conn:
        found = [render(entry, entry.seq - 1, pseudonym, NOON) for entry in read_entries(conn, None, 10)]
    engine.dispose()
    return found


def test_the_examples_are_one_event_in_each_form(events: list[SiemEvent]) -> None:
    """What stands under raw, told in the other forms by the code, is what stands there."""
    raw = json.loads(block("json", '"entry"'))
    event = SiemEvent(raw["seq"], raw["prev_seq"], raw["entry"])

    assert raw == FORMATS["raw"](event)
    assert set(raw["entry"]) == set(events[0].entry)
    assert json.loads(block("json", '"class_uid"')) == FORMATS["ocsf"](event)
    assert json.loads(block("json", '"@timestamp"')) == FORMATS["ecs"](event)


@pytest.mark.parametrize(
    ("seqs", "found"),
    [
        (range(10), []),
        ([0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], []),
        ([0, 1, 2, 5, 6, 7, 8, 9], ["missing here: 3 to 4"]),
        ([1, 2, 4, 1, 2, 4, 5], ["missing here: 0 to 0", "missing here: 3 to 3"]),
    ],
)
def test_jq_finds_what_is_missing(
    tmp_path: Path, events: list[SiemEvent], seqs: Sequence[int], found: list[str]
) -> None:
    """Over the file of the file sink: doubles are no hole, and each hole is named."""
    FileSink(tmp_path / "siem.jsonl").deliver([events[seq] for seq in seqs])

    assert run(block("sh", "jq -nr"), tmp_path) == found


def test_jq_tells_a_hole_in_the_log_from_one_of_ours(tmp_path: Path, events: list[SiemEvent]) -> None:
    """The forwarder names what it sent before: an entry that is gone from the database was never sent."""
    told = [SiemEvent(event.seq, {5: 2}.get(event.seq, event.prev_seq), event.entry) for event in events]
    FileSink(tmp_path / "siem.jsonl").deliver([*told[:3], *told[5:]])

    assert run(block("sh", "jq -nr"), tmp_path) == ["missing in the log: 3 to 4"]


@pytest.mark.parametrize(("language", "holding"), [("spl", ""), ("esql", ""), ("kusto", "")])
def test_the_other_queries_name_fields_that_the_events_have(
    language: str, holding: str, events: list[SiemEvent]
) -> None:
    """SPL names what props.conf makes; ES|QL and KQL name members of the events themselves."""
    named = set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+", block(language, holding))) - {"fl_gateway.audit"}
    named = {name.removeprefix("event.") if language == "kusto" else name for name in named}
    known = {name for form in FORMATS.values() for name in paths(form(events[0]))}
    props = (ROOT / "deploy" / "siem" / "splunk" / "props.conf").read_text("utf-8")
    aliases = set(re.findall(r" AS (\w+)$", props, re.MULTILINE))

    assert named <= known
    assert language != "spl" or {"seq", "prev_seq", "entry_id"} <= aliases


def test_the_template_is_put_as_shown() -> None:
    """The command as it stands, against a server that notes what it is sent."""
    told: list[Any] = []

    class Noting(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(
                (self.path, self.headers["Authorization"], self.headers["Content-Type"], json.loads(body))
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Noting) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        run(block("sh", "curl"), ROOT, KEY="canary", ELASTIC=f"http://127.0.0.1:{server.server_port}")
        answering.join()

    ((path, key, kind, template),) = told
    assert (path, key, kind) == ("/_index_template/fl-gateway", "ApiKey canary", "application/json")
    assert template["index_patterns"] == ["logs-fl_gateway.audit-*"]


def test_the_program_follows_the_log(tmp_path: Path) -> None:
    """As it stands there, against a real gateway: every entry in its place, from the first on."""
    with home_in(tmp_path / "home") as home, gateway_in(home) as gateway:
        reader = gateway.client_add("siem")
        answer = gateway.http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(reader.client_id, reader.client_secret),
        )
        environ = {"GATEWAY_URL": str(gateway.http.base_url), "TOKEN": answer.json()["access_token"]}
        with subprocess.Popen(
            [sys.executable, "-c", block("python")],
            env=clean_environment() | environ,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            first = [program.stdout.readline().split() for _ in range(2)]
            gateway.register()
            later = next(line for line in program.stdout if "client.registered" in line)
            program.kill()

    assert first[0] == ["0", "server.started"]
    assert int(later.split()[0]) > int(first[-1][0])


def run(script: str, directory: Path, **environ: str) -> list[str]:
    """What a shell block of the page prints, in this directory."""
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=directory,
        env=dict(os.environ) | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def paths(document: Any, prefix: str = "") -> list[str]:
    """The dotted names of a document's members."""
    if not isinstance(document, dict):
        return []
    found = [f"{prefix}{name}" for name in document]
    return found + [path for name, inner in document.items() for path in paths(inner, f"{prefix}{name}.")]
