"""Promise 6: a SIEM outage of any length delays events and loses none; the gateway does not slow down."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

from living.driver import BARE, Driver, Json, await_that
from living.home import Home, home_in
from living.threads import local_gateway_in
from services.ports import free_port
from services.rsyslog import Rsyslog, running_rsyslog

LINE = re.compile(r'\d \S+ \[flg@32473 seq="(\d+)" prevSeq="(-?\d+)"\] ?\ufeff?(\{.*\})')


def test_an_outage_loses_no_event_and_stops_no_request(tmp_path: Path) -> None:
    """A real syslog receiver that is down, up, down and up again gets every entry, and each names the one before."""
    port = free_port()
    with (
        home_in(tmp_path / "home", siem_sinks=f"syslog+tcp://127.0.0.1:{port}") as home,
        local_gateway_in(home) as gateway,
    ):
        gateway.add_model()
        people = [gateway.register(), gateway.register()]
        await_that("the outage is told", lambda: gateway.entries("siem.down"))
        assert gateway.run_round(people, BARE)["status"] == "completed"

        with running_rsyslog(tmp_path / "rsyslog", port) as rsyslog:
            await_that("the end of the outage is told", lambda: gateway.entries("siem.up"))
            _await_all(rsyslog, gateway.entries())
        assert gateway.run_round(people, BARE)["status"] == "completed"
        with running_rsyslog(tmp_path / "rsyslog", port) as rsyslog:
            entries = gateway.entries()
            events = _await_all(rsyslog, entries)

    first_seen = list(dict.fromkeys(seq for seq, _, _ in events))
    assert first_seen == sorted(first_seen)
    assert {prev - seq for seq, prev, _ in events} == {-1}
    told = {seq: entry for seq, _, entry in events}
    assert [told[entry["seq"]]["id"] for entry in entries] == [entry["id"] for entry in entries]


def test_a_sink_that_hangs_does_not_slow_the_gateway(tmp_path: Path) -> None:
    """Requests and rounds never wait for a sink: the log is the only buffer."""
    with socket.socket() as silent:  # takes a connection and never reads from it
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        sink = f"syslog+tcp://127.0.0.1:{silent.getsockname()[1]}"
        with home_in(tmp_path / "hung", siem_sinks=sink) as home, local_gateway_in(home) as gateway:
            took_s = _time_of_a_round(gateway)
            silent.close()
    with home_in(tmp_path / "free") as home, local_gateway_in(home) as gateway:
        usually_s = _time_of_a_round(gateway)

    assert took_s < usually_s * 4 + 3  # far from the sink's time-out of ten seconds


def test_the_siem_gets_pseudonyms_and_the_log_file_has_no_hole(tmp_path: Path) -> None:
    """One pseudonym a person, for all its entries, and nothing that names the person."""
    with home_in(tmp_path / "home") as home, local_gateway_in(home) as gateway:
        gateway.add_model()
        people = [gateway.register(name="canary-ada"), gateway.register()]
        gateway.run_round(people, BARE)
        gateway.send(people[0], 1, b"refused")
        await_that("the refusal is told", lambda: gateway.entries("update.refused"))
        await_that("all is delivered", lambda: len(_file_events(home)) >= len(gateway.entries()))
        events, text = _file_events(home), (home.directory / "siem.jsonl").read_text()

    accepted = [e["entry"] for e in events if e["entry"]["event_type"] == "update.accepted"]
    refused = [e["entry"] for e in events if e["entry"]["event_type"] == "update.refused"]
    assert [(event["seq"], event["prev_seq"]) for event in events] == [(n, n - 1) for n in range(len(events))]
    assert len({entry["actor"]["pseudonym"] for entry in accepted}) == 2
    assert refused[0]["actor"]["pseudonym"] in {entry["actor"]["pseudonym"] for entry in accepted}
    assert "canary-ada" not in text
    assert not any(person.client_id in text for person in people)


def _events_of(rsyslog: Rsyslog) -> list[tuple[int, int, Json]]:
    matches = [match for line in rsyslog.lines() if (match := LINE.fullmatch(line))]
    return [(int(m[1]), int(m[2]), json.loads(m[3])["entry"]) for m in matches]


def _await_all(rsyslog: Rsyslog, entries: list[Json]) -> list[tuple[int, int, Json]]:
    wanted = {entry["seq"] for entry in entries}

    def look() -> list[tuple[int, int, Json]] | None:
        events = _events_of(rsyslog)
        return events if wanted <= {seq for seq, _, _ in events} else None

    return await_that(f"{len(wanted)} events arrive", look)


def _file_events(home: Home) -> list[Json]:
    path = home.directory / "siem.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _time_of_a_round(gateway: Driver) -> float:
    gateway.add_model()
    people = [gateway.register(), gateway.register()]
    began = time.monotonic()
    gateway.run_round(people, BARE)
    return time.monotonic() - began
