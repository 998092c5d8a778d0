"""The Splunk sink against a collector that behaves as Splunk describes it, and against ones that lie (promise 6)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from services.authority import Authority
from services.siem import NOON, deliver_all, fill_log, open_log, told
from services.siem_http import Answered, Asked, Json, listening
from services.splunk import TOKEN, Mood, Splunk
from sqlalchemy import Engine

from audit.siem import NamedSink, SiemEvent, SinkDown, parse_sinks, read_dead_letters, read_standing
from audit.siem.replay import trial_event


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """A database with an empty log."""
    engine = open_log(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The file that holds the token, as an operator's editor leaves it."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@contextmanager
def sink_to(
    splunk: Splunk, token_file: Path, options: str = "", *, timeout_s: float = 10.0
) -> Iterator[NamedSink]:
    """The sink of a setting, and the collector behind it."""
    with listening(splunk) as address:
        setting = f"hec+http://{address}?secret_file={token_file}&timeout={timeout_s}{options}"
        (named,) = parse_sinks(setting, hostname="fl.example.com")
        yield named
        named.sink.close()


def seqs(events: list[Json]) -> list[int]:
    """The places of indexed events, a double at its first place alone."""
    return list(dict.fromkeys(event["event"]["seq"] for event in events))


def test_splunk_has_every_entry_once_it_acknowledged_it(
    engine: Engine, tmp_path: Path, token_file: Path
) -> None:
    """The whole way over TLS: order, time, host, source type, one channel; the answer says what it is worth."""
    fill_log(engine, 30)
    authority, splunk = Authority(tmp_path / "ca"), Splunk(late_polls=2)
    with listening(splunk, authority.pair("splunk.example", "127.0.0.1")) as address:
        setting = f"hec+https://{address}?secret_file={token_file}&ca_file={authority.ca_file}&ack=required"
        (named,) = parse_sinks(f"{setting}&index=fl", hostname="fl.example.com")

        failures = deliver_all(engine, named)

    assert (failures, seqs(splunk.indexed), len(splunk.indexed)) == (0, list(range(30)), 30)
    assert [event["event"]["prev_seq"] for event in splunk.indexed] == list(range(-1, 29))
    first = splunk.indexed[0]
    assert {name: first[name] for name in first if name != "event"} == {
        "time": 1795521600.0,
        "host": "fl.example.com",
        "source": "fl-gateway",
        "sourcetype": "fl_gateway:raw",
        "index": "fl",
    }
    assert [UUID(channel).version for channel in splunk.channels] == [4]
    with engine.connect() as conn:
        assert read_standing(conn, f"hec+https://{address}?index=fl").answer.endswith(
            "acknowledged the events"
        )


def test_a_server_without_acknowledgement_is_taken_at_its_200_and_that_is_said(
    engine: Engine, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ack=auto: the log file says it once, and the sink's standing says it as long as it is so."""
    fill_log(engine, 30)
    with sink_to(splunk := Splunk(has_acks=False), token_file) as named, caplog.at_level(logging.WARNING):
        deliver_all(engine, named)

    assert seqs(splunk.indexed) == list(range(30))
    assert [record.message for record in caplog.records if "no acknowledgement" in record.message] == [
        f"the sink {named.name}: 200 alone: this server gives no acknowledgement, "
        "so what it loses before indexing is lost"
    ]
    with engine.connect() as conn:
        assert read_standing(conn, named.name).answer.startswith("200 alone")


@pytest.mark.parametrize("content", [{}, {"text": "Down for maintenance"}, {"text": "Busy", "code": 9}])
def test_a_200_that_is_not_a_collector_s_is_no_word_at_all(
    engine: Engine, token_file: Path, content: Json
) -> None:
    """ack=auto: the 200 of a proxy, of a portal or of another server takes nothing, and the batch comes again."""
    fill_log(engine, 3)
    splunk = Splunk(has_acks=False)
    answers = [Answered(200, content)]

    class Portal:
        def answer(self, asked: Asked) -> Answered:
            return answers.pop() if answers else splunk.answer(asked)

    with listening(Portal()) as address:
        (named,) = parse_sinks(f"hec+http://{address}?secret_file={token_file}")
        failures = deliver_all(engine, named)

    assert (failures, seqs(splunk.indexed)) == (1, [0, 1, 2])


def test_who_insists_on_acknowledgement_is_not_content_with_200(engine: Engine, token_file: Path) -> None:
    """ack=required: the events stay in the log until the token gives acknowledgements."""
    fill_log(engine, 3)
    with sink_to(Splunk(has_acks=False), token_file, "&ack=required") as named, pytest.raises(AssertionError):
        deliver_all(engine, named, tries=2)

    with engine.connect() as conn:
        standing = read_standing(conn, named.name)
    assert (standing.cursor.seq, standing.state) == (-1, "down")
    assert "ack=required" in standing.problem


@pytest.mark.parametrize("mood", Mood)
def test_a_collector_that_fails_or_lies_loses_nothing(engine: Engine, token_file: Path, mood: Mood) -> None:
    """Busy, hanging, cut off, 200 and forgotten, an expired id: the batch comes again, and the order stays."""
    fill_log(engine, 20)
    is_waited_for = mood in (Mood.HANGS, Mood.FORGETS, Mood.EXPIRES)  # the others fail by themselves
    timeout_s = 3 if is_waited_for else 20
    with sink_to(splunk := Splunk(moods=[mood]), token_file, timeout_s=timeout_s) as named:
        failures = deliver_all(engine, named)

    assert failures == 1
    assert seqs(splunk.indexed) == list(range(20))
    assert [event for event, _ in told(engine)] == ["siem.down", "siem.up"]


def test_acknowledgements_that_never_come_keep_the_events_for_ever(engine: Engine, token_file: Path) -> None:
    """200 alone is not believed where the server promises an acknowledgement: nothing passes."""
    fill_log(engine, 3)
    with (
        sink_to(splunk := Splunk(moods=[Mood.FORGETS] * 3), token_file, timeout_s=1.5) as named,
        pytest.raises(AssertionError),
    ):
        deliver_all(engine, named, tries=3)

    assert (splunk.posts, splunk.indexed) == (3, [])
    with engine.connect() as conn:
        assert read_standing(conn, named.name).problem == "its indexers did not acknowledge the batch in time"


def test_a_server_that_asks_for_time_is_given_it(token_file: Path) -> None:
    """Retry-After of 429: the forwarder is told how long."""
    with sink_to(Splunk(moods=[Mood.LIMITED]), token_file) as named, pytest.raises(SinkDown) as down:
        named.sink.deliver([_event(0)])

    assert (down.value.retry_after_s, down.value.why) == (7.0, "it answered 429 (its queue is full)")


@pytest.mark.parametrize("code", [6, 12, 13, 15])
def test_an_event_that_splunk_cannot_take_stops_no_other(engine: Engine, token_file: Path, code: int) -> None:
    """Dead letters: what is unfit is found by Splunk's own word, sent alone once more, and left behind."""
    fill_log(engine, 20)
    unfit = {3, 4, 11}
    splunk = Splunk(code_of=lambda event: code if event["event"]["seq"] in unfit else 0)
    with sink_to(splunk, token_file) as named:
        deliver_all(engine, named)

    assert seqs(splunk.indexed) == [seq for seq in range(20) if seq not in unfit]
    with engine.connect() as conn:
        letters = read_dead_letters(conn, named.name)
    assert [letter.seq for letter in letters] == sorted(unfit)
    assert {letter.reason[:3] for letter in letters} == {"400"}
    assert [(event, details["count"]) for event, details in told(engine)] == [
        ("siem.refused", 2),
        ("siem.refused", 1),
    ]


def test_a_body_that_is_too_large_goes_in_pieces(engine: Engine, token_file: Path) -> None:
    """413: halves of it, until an event alone is too large, which is a dead letter then."""
    fill_log(engine, 8)
    with sink_to(splunk := Splunk(longest_body=1500), token_file) as named:
        deliver_all(engine, named)
    taken, splunk.longest_body = splunk.indexed, 10
    with sink_to(splunk, token_file) as named:
        delivery = named.sink.deliver([_event(8)])

    assert seqs(taken) == list(range(8))
    assert [refusal.reason for refusal in delivery.refused] == ["413 too large"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("wrong-canary", "it answered 403 (the token is invalid)"),
        ("", "its secret_file must hold one line without blanks"),
        ("two canaries", "its secret_file must hold one line without blanks"),
        ("kanarien-vögel", "its secret_file cannot be read"),
        (None, "its secret_file cannot be read"),
    ],
)
def test_a_token_that_does_not_fit_is_an_outage_and_in_no_text(
    token_file: Path, content: str | None, why: str
) -> None:
    """Nothing is a dead letter because of a token; RULES 30: no text holds it, nor does a cause."""
    if content is None:
        token_file.unlink()
    else:
        token_file.write_text(content)
    with sink_to(splunk := Splunk(), token_file) as named, pytest.raises(SinkDown) as down:
        named.sink.deliver([_event(0)])

    assert down.value.why == why
    assert "canar" not in str(down.value) + repr(down.value.__cause__)
    assert splunk.indexed == []


def test_an_index_that_the_token_may_not_use_is_an_outage(token_file: Path) -> None:
    """Code 7 blames our setting and no event: nothing may become a dead letter by it."""
    with sink_to(Splunk(code_of=lambda _event: 7), token_file) as named, pytest.raises(SinkDown) as down:
        named.sink.deliver([_event(0)])

    assert down.value.why == "it answered 400 (the token may not write to this index)"


def test_a_collector_with_a_wrong_certificate_gets_no_token(tmp_path: Path, token_file: Path) -> None:
    """The handshake fails before a byte of ours is sent, for another authority as for another name."""
    ours, theirs, splunk = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs"), Splunk()
    cases = (theirs.pair("splunk.example", "127.0.0.1"), ours.pair("other.example"))
    for pair, said in zip(cases, ("unable to get local issuer", "IP address mismatch"), strict=True):
        with listening(splunk, pair) as address:
            setting = f"hec+https://{address}?secret_file={token_file}&ca_file={ours.ca_file}"
            (named,) = parse_sinks(setting)
            with pytest.raises(SinkDown) as down:
                named.sink.deliver([_event(0)])
        assert "certificate is not accepted" in down.value.why
        assert said in down.value.why

    assert splunk.posts == 0


def _event(seq: int) -> SiemEvent:
    return trial_event(UUID(int=seq), NOON)
