"""The Elastic sink against a `_bulk` that behaves as Elastic describes it, half answers included (promise 6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from services.authority import Authority
from services.elastic import KEY, Elastic, Mood
from services.siem import NOON, deliver_all, fill_log, open_log, told
from services.siem_http import Json, listening
from sqlalchemy import Engine, text

from audit.siem import NamedSink, SinkDown, parse_sinks, read_dead_letters, read_standing
from audit.siem.replay import trial_event


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """A database with an empty log."""
    engine = open_log(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The file that holds the API key."""
    path = tmp_path / "api-key"
    path.write_text(KEY)
    return path


@contextmanager
def sink_to(elastic: Elastic, key_file: Path, *, timeout_s: float = 10.0) -> Iterator[NamedSink]:
    """The sink of a setting, and the server behind it."""
    with listening(elastic) as address:
        (named,) = parse_sinks(
            f"elastic+http://{address}?secret_file={key_file}&timeout={timeout_s}&index=fl&format=raw"
        )
        yield named
        named.sink.close()


def seqs(elastic: Elastic) -> list[int]:
    """The places of the documents, in the order of their creation."""
    return [document["seq"] for document in elastic.documents.values()]


def test_each_entry_is_a_document_under_its_own_id(engine: Engine, tmp_path: Path, key_file: Path) -> None:
    """Over TLS, as ECS into the data stream by default; delivered again, nothing is there twice."""
    fill_log(engine, 30)
    authority, elastic = Authority(tmp_path / "ca"), Elastic()
    with listening(elastic, authority.pair("elastic.example", "127.0.0.1")) as address:
        (named,) = parse_sinks(
            f"elastic+https://{address}?secret_file={key_file}&ca_file={authority.ca_file}"
        )
        failures = deliver_all(engine, named)
        with engine.begin() as conn:
            conn.execute(text("UPDATE siem_cursors SET seq = -1, sent_seq = -1"))
        failures += deliver_all(engine, named)

    assert (failures, len(elastic.documents), elastic.conflicts) == (0, 30, 30)
    assert {index for index, _ in elastic.documents} == {"logs-fl_gateway.audit-default"}
    documents = list(elastic.documents.values())
    assert [document["event"]["sequence"] for document in documents] == list(range(30))
    assert [document["event"]["id"] for document in documents] == [
        entry_id for _, entry_id in elastic.documents
    ]


@pytest.mark.parametrize("mood", Mood)
def test_a_server_that_fails_or_lies_loses_nothing(engine: Engine, key_file: Path, mood: Mood) -> None:
    """Half a bulk, a short answer, 429, 503, a hang: the batch comes again, and what is there answers 409."""
    fill_log(engine, 20)
    timeout_s = 3 if mood is Mood.HANGS else 20  # the others fail by themselves
    with sink_to(elastic := Elastic(moods=[mood]), key_file, timeout_s=timeout_s) as named:
        failures = deliver_all(engine, named)

    assert failures == 1
    assert seqs(elastic) == list(range(20))
    assert elastic.conflicts == {Mood.HALF: 5, Mood.SHORT: 10, Mood.CUT: 10}.get(mood, 0)
    assert [event for event, _ in told(engine)] == ["siem.down", "siem.up"]


@pytest.mark.parametrize("status", [429, 503])
def test_an_item_that_is_put_off_comes_again_and_no_other_is_doubled(
    engine: Engine, key_file: Path, status: int
) -> None:
    """Verdicts are an item's: 429 and 5xx again, and the batch does not pass before all of it is there."""
    fill_log(engine, 10)
    refusals = [status] * 3

    def verdict(document: Json) -> int:
        return refusals.pop() if document["seq"] in (2, 5) and refusals else 201

    with sink_to(elastic := Elastic(status_of=verdict), key_file) as named:
        failures = deliver_all(engine, named)

    assert failures == 2
    assert sorted(seqs(elastic)) == list(range(10))
    with engine.connect() as conn:
        assert read_standing(conn, named.name).problem == f"it put off 1 of 5 events ({status})"
        assert read_dead_letters(conn, named.name) == []


def test_an_item_that_is_refused_for_good_stops_no_other(engine: Engine, key_file: Path) -> None:
    """Another 4xx is a dead letter, with the kind of the fault and nothing of what the server quotes."""
    fill_log(engine, 10)
    elastic = Elastic(status_of=lambda document: 400 if document["seq"] in (2, 5) else 201)
    with sink_to(elastic, key_file) as named:
        failures = deliver_all(engine, named)

    assert (failures, seqs(elastic)) == (0, [0, 1, 3, 4, 6, 7, 8, 9])
    with engine.connect() as conn:
        letters = read_dead_letters(conn, named.name)
    assert [(one.seq, one.reason) for one in letters] == [
        (2, "400 document_parsing_exception"),
        (5, "400 document_parsing_exception"),
    ]
    assert [event for event, _ in told(engine)] == ["siem.refused"]


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_of_everything_for_want_of_a_right_or_an_index_is_an_outage(
    engine: Engine, key_file: Path, status: int
) -> None:
    """A key that lost its right must not turn the whole log into dead letters; one item of many may."""
    fill_log(engine, 10)
    elastic = Elastic(status_of=lambda _document: status)
    with sink_to(elastic, key_file) as named:
        with pytest.raises(AssertionError):
            deliver_all(engine, named, tries=2)
        elastic.status_of = lambda document: status if document["seq"] == 1 else 201
        deliver_all(engine, named)

    assert seqs(elastic) == [0, *range(2, 10)]
    with engine.connect() as conn:
        assert [letter.seq for letter in read_dead_letters(conn, named.name)] == [1]


def test_one_bad_event_does_not_make_dead_letters_of_those_that_lack_a_right(
    engine: Engine, key_file: Path
) -> None:
    """Where nothing is taken, an event of a wrong form among those without a right is no reason to pass them."""
    fill_log(engine, 10)
    elastic = Elastic(status_of=lambda document: 400 if document["seq"] == 4 else 403)
    with sink_to(elastic, key_file) as named:
        with pytest.raises(AssertionError):
            deliver_all(engine, named, tries=8)
        elastic.status_of = lambda document: 400 if document["seq"] == 4 else 201
        deliver_all(engine, named)

    assert seqs(elastic) == [0, 1, 2, 3, *range(5, 10)]
    with engine.connect() as conn:
        assert [letter.seq for letter in read_dead_letters(conn, named.name)] == [4]


def test_a_bulk_that_is_too_large_goes_in_pieces(engine: Engine, key_file: Path) -> None:
    """413: halves of it."""
    fill_log(engine, 8)
    with sink_to(elastic := Elastic(longest_body=1500), key_file) as named:
        deliver_all(engine, named)

    assert seqs(elastic) == list(range(8))
    assert elastic.bulks > 4


def test_a_spoilt_entry_has_an_id_too(engine: Engine, key_file: Path) -> None:
    """Who rewrites an entry in the database does not mute the SIEM by it; a double of it is none either."""
    fill_log(engine, 3)
    with engine.begin() as conn:
        conn.execute(text("UPDATE audit_log SET canonical = '{}' WHERE seq = 1"))
    with sink_to(elastic := Elastic(), key_file) as named:
        deliver_all(engine, named)

    assert [entry_id for _, entry_id in elastic.documents][1] == "unreadable-1"


def test_a_key_that_is_wrong_is_an_outage_and_in_no_text(key_file: Path) -> None:
    """RULES 30: what the server quotes of the key is repeated nowhere."""
    key_file.write_text("canary")
    with sink_to(Elastic(), key_file) as named, pytest.raises(SinkDown) as down:
        named.sink.deliver([trial_event(UUID(int=0), NOON)])

    assert down.value.why == "it answered 401"
    assert not {"canary", KEY} & set(str(down.value).split())
