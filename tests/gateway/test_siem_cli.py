"""`fl-gateway siem` and `forward --from`, on the embedded database with real sinks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from services.siem import events_in
from services.siem_http import Json, listening
from services.splunk import TOKEN, Splunk

from audit.events import EventType
from audit.siem import SinkDown, parse_sinks
from gateway.cli import main
from gateway.config import Config
from gateway.doctor import examine
from gateway.parts.forwarding import forwarder_of
from gateway.parts.sequencing import sequencer_of
from gateway.services import open_services


@dataclass(frozen=True, slots=True)
class House:
    """A folder with a gateway's stores, a file sink, and a collector of Splunk's kind."""

    folder: Path
    splunk: Splunk
    hec: str

    def run(self, *arguments: str) -> Result:
        """Run `fl-gateway`."""
        return CliRunner().invoke(main, arguments)

    def json(self, *arguments: str) -> list[Json]:
        """What it prints with --json."""
        told: list[Json] = json.loads(self.run(*arguments, "--json").stdout)
        return told

    def sinks(self) -> str:
        """Both sinks, as a setting."""
        return f"file:{self.folder}/siem.jsonl,{self.hec}?secret_file={self.folder}/token&timeout=1"

    def fill(self, count: int) -> None:
        """Write entries and put them into the log."""
        services = open_services(Config(), part="console")
        for number in range(count):
            services.trail.note(EventType.AUDIT_EXPORTED, entries=number, format="bundle")
        while sequencer_of(services).run_once():
            pass
        services.close()

    def forward(self) -> None:
        """Let the forwarders catch up; a sink that is down is left."""
        services = open_services(Config(), part="forward")
        for named in parse_sinks(self.sinks()):
            forwarder = forwarder_of(services, named)
            try:
                while forwarder.run_once():
                    pass
            except SinkDown:
                continue
            finally:
                named.sink.close()
        services.close()

    def delivered(self) -> list[int]:
        """The seqs in the file."""
        path = self.folder / "siem.jsonl"
        return [event["seq"] for event in events_in(path)] if path.exists() else []


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house with five entries in its log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    with listening(splunk := Splunk()) as address:
        made = House(tmp_path, splunk, f"hec+http://{address}")
        monkeypatch.setenv("FLG_SIEM_SINKS", made.sinks())
        assert made.run("db", "upgrade").exit_code == 0
        made.fill(5)
        yield made


def test_status_tells_who_is_up_who_is_down_and_why(house: House) -> None:
    """Another process than the forwarder can tell: state, since when, why, how far, what is refused, the word."""
    (house.folder / "token").write_text("wrong")
    house.forward()

    file, hec = house.json("siem", "status")

    assert (file["sink"], file["state"], file["seq"]) == (f"file:{house.folder}/siem.jsonl", "up", 4)
    assert (file["lag_entries"], file["format"], file["answer"]) == (0, "raw", "the lines are on disk")
    assert (hec["state"], hec["seq"], hec["lag_entries"], hec["failures"]) == ("down", -1, 5, 1)
    assert hec["problem"] == "it answered 403 (the token is invalid)"
    assert hec["down_since"] is not None
    shown = house.run("siem", "status").stdout
    assert f"{house.hec}: down since " in shown
    assert "at entry -1, 5 behind, 0 refused for good" in shown


def test_a_test_event_is_taken_by_each_sink_and_is_in_no_log(house: House) -> None:
    """`siem test`: one event at the place -1, of a type that no entry has; the answer is said plainly."""
    told = house.json("siem", "test")

    assert [one["ok"] for one in told] == [True, True]
    assert told[1]["answer"] == "200, and the indexers acknowledged the events"
    assert house.delivered() == [-1]
    (event,) = house.splunk.indexed
    assert event["event"]["entry"]["event_type"] == "siem.test"
    house.forward()
    assert house.delivered() == [-1, 0, 1, 2, 3, 4]


def test_a_test_of_a_sink_that_takes_nothing_fails_and_says_why(house: House) -> None:
    """Exit 1 if one fails; the others are tried all the same; an unknown sink is wrong usage."""
    house.splunk.code_of = lambda _event: 6

    tried, one = house.run("siem", "test"), house.run("siem", "test", f"file:{house.folder}/siem.jsonl")

    assert (tried.exit_code, one.exit_code) == (1, 0)
    assert f"{house.hec}: NOT taken: 400 invalid data format" in tried.stdout
    assert "taken: the lines are on disk" in tried.stdout
    assert house.run("siem", "test", "file:other").exit_code == 2


def test_dead_letters_are_listed_and_delivered_once_more(house: House) -> None:
    """Exit 1 while there are any; --retry empties them once the SIEM takes them, and the log tells of it."""
    house.splunk.code_of = lambda event: 6 if event["event"]["seq"] in (1, 3) else 0
    house.forward()
    listed = house.run("siem", "dead-letters")
    house.splunk.code_of = lambda event: 6 if event["event"]["seq"] == 3 else 0

    again = house.run("siem", "dead-letters", house.hec, "--retry", "--json")
    house.splunk.code_of = lambda _event: 0
    last = house.run("siem", "dead-letters", house.hec, "--retry")

    assert (listed.exit_code, again.exit_code, last.exit_code) == (1, 1, 0)
    assert "entry 1: 400 invalid data format" in listed.stdout
    assert [letter["seq"] for letter in json.loads(again.stdout)[0]["dead_letters"]] == [3]
    house.fill(0)
    house.forward()
    replayed = [
        e["entry"]
        for e in events_in(house.folder / "siem.jsonl")
        if e["entry"]["event_type"] == "siem.replayed"
    ]
    counts = [(entry["details"]["count"], entry["details"]["refused"]) for entry in replayed]
    assert counts == [(1, 1), (1, 0)]


def test_a_stretch_is_delivered_once_more_and_the_cursor_stays(house: House) -> None:
    """`forward --from --to --sink`: exit 1 if the sink is away; the log tells what was done."""
    house.forward()
    path = f"file:{house.folder}/siem.jsonl"

    done = house.run("forward", "--from", "1", "--to", "2", "--sink", path)

    assert (done.exit_code, house.delivered()) == (0, [0, 1, 2, 3, 4, 1, 2])
    assert f"{path}: 2 delivered once more, 0 refused" in done.stderr
    assert house.json("siem", "status")[0]["seq"] == 4
    (house.folder / "token").unlink()
    assert house.run("forward", "--from", "0", "--sink", house.hec).exit_code == 1
    assert house.run("forward", "--to", "3").exit_code == 2


def test_a_sink_that_is_away_keeps_no_other_from_a_replay(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --sink it goes to each sink; the command ends with 1 after the last of them."""
    (house.folder / "token").unlink()
    away, file = reversed(house.sinks().split(","))
    monkeypatch.setenv("FLG_SIEM_SINKS", f"{away},{file}")

    done = house.run("forward", "--from", "1", "--to", "2")

    assert (done.exit_code, house.delivered()) == (1, [1, 2])
    assert "away behind entry" in done.stderr


def test_the_doctor_looks_at_the_files_and_names_who_is_away(house: House) -> None:
    """A secret that others can read is a fault; a sink that is away is none, and is named."""

    def sinks_of(setting: str) -> tuple[bool, str]:
        (found,) = [one for one in examine(Config(siem_sinks=setting)) if one.name == "SIEM sinks"]
        return found.is_good, found.said

    assert sinks_of(house.sinks()) == (True, "2 of them")
    is_good, said = sinks_of("syslog+tcp://127.0.0.1:1")
    assert is_good
    assert "syslog+tcp://127.0.0.1:1 (Connection refused)" in said
    (house.folder / "token").chmod(0o640)
    assert sinks_of(house.sinks()) == (
        False,
        f"FLG_SIEM_SINKS: others can read a secret of {house.hec}: chmod 600 {house.folder}/token",
    )
    assert not sinks_of(f"{house.hec}?secret_file=missing")[0]
    assert not sinks_of("file:missing/siem.jsonl")[0]
    assert not sinks_of("syslog+tls://127.0.0.1:1?ca_file=missing.pem")[0]
