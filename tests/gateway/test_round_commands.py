"""`fl-gateway round`, `intake` and `model promote`: the operator's orders at the console, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from federation import file_of, tensors
from living.home import Home, home_in

from gateway.cli import main
from gateway.tables import rounds

POLICY = {"planned_clients": 3, "min_clients": 2, "privacy": {"mechanism": "none"}}
EMBEDDED = pytest.mark.parametrize("home", ["sqlite"], indirect=True)
NOISED = ("--mechanism", "gaussian", "--clip-norm", "1", "--noise-multiplier", "4", "--delta", "1e-5")


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A gateway's stores with a model, the console's environment set for them."""
    server = request.getfixturevalue("postgresql_server") if request.param == "postgresql" else None
    with home_in(tmp_path / "home", server) as made:
        monkeypatch.chdir(made.directory)
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        Path("m.safetensors").write_bytes(file_of(tensors()))
        assert run("model", "add", "m.safetensors").exit_code == 0
        yield made


def run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, words, input=text)


def told(*words: str, text: str | None = None) -> dict[str, Any]:
    """What a command that succeeds prints as JSON."""
    done = run(*words, "--json", text=text)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_round_is_opened_with_options_alone(home: Home) -> None:
    """Required: `round start` with options, through the very code of the API."""
    before = datetime.now(UTC)

    made = told("round", "start", "--planned", "3", "--min", "2", "--duration", "600", *NOISED)

    (listed,) = json.loads(run("round", "status", "--json").stdout)
    assert (made["round_number"], made["status"], made["base_version"]) == (1, "active", "1.0.0")
    assert (
        timedelta(seconds=600) <= datetime.fromisoformat(made["deadline"]) - before < timedelta(seconds=660)
    )
    assert listed == made


@pytest.mark.parametrize("by", ["file", "standard input"])
def test_a_round_is_opened_as_a_file_says(home: Home, by: str) -> None:
    """The JSON form of `POST /api/v1/rounds`; an option replaces what the file says, and only that."""
    Path("round.json").write_text(json.dumps(POLICY | {"selection": {"strategy": "fair", "reserves": 1}}))
    given = ("round.json", None) if by == "file" else ("-", Path("round.json").read_text())

    made = told("round", "start", given[0], "--min", "1", "--select", "random", text=given[1])

    with home.stores() as services, services.engine.connect() as conn:
        row = conn.execute(rounds.select()).one()
    assert made["status"] == "selecting"
    assert (row.planned_clients, row.min_clients) == (3, 1)
    assert (row.selection["strategy"], row.selection["reserves"]) == ("random", 1)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no privacy": (("--planned", "2", "--min", "1"), "/privacy"),
    "a wrong policy": (("--planned", "2", "--min", "1", "--mechanism", "gaussian"), "clip_norm"),
    "more needed than planned": (("--planned", "2", "--min", "3", "--mechanism", "none"), "min_clients"),
    "no time": (("--deadline", "soon"), "no time"),
    "a time without a zone": (("--deadline", "2030-01-01T00:00:00"), "zone"),
    "two deadlines": (("--duration", "5", "--deadline", "2030-01-01T00:00:00Z"), "either"),
    "a file that is none": (("missing.json",), "missing.json"),
}


@EMBEDDED
@pytest.mark.parametrize("what", WRONG)
def test_a_wish_that_cannot_be_met_is_told_and_opens_nothing(home: Home, what: str) -> None:
    """Exit 2, and what is wrong by its name; no traceback, no row."""
    words, said = WRONG[what]

    done = run("round", "start", *words)

    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output
    assert json.loads(run("round", "status", "--json").stdout) == []


@EMBEDDED
@pytest.mark.parametrize("text", ["no JSON", "[1]", '{"privacy": 3}', '{"a": 1, "a": 2}'])
def test_a_file_that_is_no_wish_is_refused(home: Home, text: str) -> None:
    """Malformed input is a sentence and exit 2."""
    done = run("round", "start", "-", "--mechanism", "none", text=text)

    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output


def test_a_round_is_paused_put_off_resumed_and_closed(home: Home) -> None:
    """Required: the CLI's orders, each with its JSON."""
    opened = told("round", "start", "-", text=json.dumps(POLICY))
    paused = told("round", "pause", "1")
    shown = run("round", "status").stdout
    later = datetime.now(UTC) + timedelta(days=2)
    extended = told("round", "extend", "1", "--deadline", later.isoformat())
    by = told("round", "extend", "1", "--by", str(3 * 86_400))
    resumed = told("round", "resume", "1")
    closed = run("round", "close", "1")

    assert (opened["paused"], paused["paused"], resumed["paused"]) == (False, True, False)
    assert "paused" in shown
    assert datetime.fromisoformat(extended["deadline"]) == later
    assert extended["deadline"] < by["deadline"] < resumed["deadline"]
    assert closed.exit_code == 0


def test_orders_that_do_not_fit_end_with_2(home: Home) -> None:
    """One line that says why."""
    told("round", "start", "-", text=json.dumps(POLICY))

    refused = [
        run("round", "resume", "1"),
        run("round", "extend", "1"),
        run("round", "extend", "1", "--by", "1"),
        run("round", "pause", "9"),
        run("round", "close", "99999999999"),
        run("model", "promote", "1.0"),
        run("model", "promote", "\udcff"),  # bytes of a shell that are no text
        run("model", "promote", "9.9.9"),
        run("model", "promote", "1.0.0"),  # its lineage has an open round
    ]

    assert [done.exit_code for done in refused] == [2] * len(refused)
    assert not any("Traceback" in done.output for done in refused)


def test_one_command_stops_all_intake(home: Home) -> None:
    """Required: `intake stop|resume|status`, and while it is stopped no round is opened at the console either."""
    before = told("intake", "status")
    stopped = told("intake", "stop")
    refused = run("round", "start", "-", text=json.dumps(POLICY))
    shown = run("intake", "status").stdout
    resumed = told("intake", "resume")

    assert before == {"status": "open", "since": None}
    assert (stopped["status"], resumed["status"]) == ("stopped", "open")
    assert datetime.fromisoformat(stopped["since"]) <= datetime.now(UTC)
    assert (refused.exit_code, "stopped all intake" in refused.output) == (2, True)
    assert shown.startswith("intake stopped since 20")
    assert told("round", "start", "-", text=json.dumps(POLICY))["status"] == "active"
