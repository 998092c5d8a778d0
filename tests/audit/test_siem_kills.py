"""Promise 6 with SIGKILL: forwarders to a sink of each kind die at random moments while the log grows.

`STORM_SEED` sets the moments and the moods again, `SIEM_KILLS` their number.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services import elastic as elastics
from services import splunk as splunks
from services.authority import Authority
from services.elastic import Elastic
from services.pebble import free_port
from services.rsyslog import Tls, running_rsyslog, whole_lines
from services.siem import fill_log, open_log
from services.siem_http import Json, listening
from services.splunk import Splunk
from sqlalchemy import Engine
from test_siem_syslog import LINE

TESTS = Path(__file__).resolve().parents[1]
ENTRIES = 300
_PATIENCE_S = 60.0
_PROGRAM = textwrap.dedent(f"""
    import sys, threading
    sys.path.insert(0, {str(TESTS)!r})
    from audit.siem import Forwarder, parse_sinks
    from gateway.storage.database import open_engine
    from services.siem import NOON, draft_of, pseudonym
    engine = open_engine(sys.argv[1])
    for named in parse_sinks(sys.argv[2]):
        to = Forwarder(engine, named.sink, named.name, pseudonym, lambda: NOON, batch=20, draft=draft_of)
        threading.Thread(target=to.run, args=(threading.Event(),)).start()
    print("ready", flush=True)
""")
Sent = Callable[[], list[tuple[int, int]]]


def test_forwarders_that_are_killed_lose_nothing_to_any_kind_of_sink(sqlite_url: str, tmp_path: Path) -> None:
    """Killed at random, with collectors that are busy, forget and break off: every sink has all of it, in order."""
    seed = int(os.environ.get("STORM_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"STORM_SEED={seed}")
    chance, engine = random.Random(seed), open_log(sqlite_url)
    splunk = Splunk(moods=[None, chance.choice([*splunks.Mood]), None, chance.choice([*splunks.Mood])])
    elastic = Elastic(moods=[None, chance.choice([*elastics.Mood]), None, chance.choice([*elastics.Mood])])
    growing = threading.Thread(target=_grow, args=(engine,))
    with _every_kind_of_sink(tmp_path, splunk, elastic) as (setting, sinks):
        growing.start()
        for _ in range(int(os.environ.get("SIEM_KILLS", "3"))):
            with _forwarding(sqlite_url, setting):
                time.sleep(chance.uniform(0.0, 0.5))
        growing.join()
        with _forwarding(sqlite_url, setting):
            sent = {name: _await_all(name, look) for name, look in sinks.items()}
    engine.dispose()

    for name, places in sent.items():
        first_seen = list(dict.fromkeys(seq for seq, _ in places))
        assert first_seen == list(range(ENTRIES)), f"{name} got entries out of order"
        assert {seq - prev for seq, prev in places} == {1}, f"{name} was told of a hole"


def _grow(engine: Engine) -> None:
    for first in range(0, ENTRIES, 5):
        fill_log(engine, 5, first=first)
        time.sleep(0.02)


@contextmanager
def _forwarding(url: str, setting: str) -> Iterator[None]:
    """A process that forwards for the length of the block, and is killed then."""
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, url, setting], cwd=TESTS.parent, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"ready\n"
            yield
        finally:
            child.kill()
    assert child.returncode == -signal.SIGKILL


def _await_all(name: str, look: Sent) -> list[tuple[int, int]]:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        places = look()
        if {seq for seq, _ in places} == set(range(ENTRIES)):
            return places
        assert time.monotonic() < deadline, f"{name} has not every entry"
        time.sleep(0.05)


@contextmanager
def _every_kind_of_sink(
    directory: Path, splunk: Splunk, elastic: Elastic
) -> Iterator[tuple[str, dict[str, Sent]]]:
    """A setting with a sink of each kind, and what each of them has."""
    authority, port, file = Authority(directory / "ca"), free_port(), directory / "siem.jsonl"
    client, server = authority.pair("gateway.example"), authority.pair("siem.example", "127.0.0.1")
    for name, content in {"token": splunks.TOKEN, "key": elastics.KEY}.items():
        (directory / name).write_text(content)
    tls, ca = Tls(authority.ca_file, server, "gateway.example"), f"ca_file={authority.ca_file}"
    with (
        running_rsyslog(directory / "rsyslog", port, tls) as rsyslog,
        listening(splunk, server) as hec_at,
        listening(elastic, server) as elastic_at,
    ):
        chosen = (
            f"file:{file}",
            f"syslog+tls://127.0.0.1:{port}?{ca}&cert_file={client.certificate}&key_file={client.key}",
            f"hec+https://{hec_at}?{ca}&secret_file={directory}/token&timeout=1",
            f"elastic+https://{elastic_at}?{ca}&secret_file={directory}/key&timeout=1&format=raw",
        )
        sinks: dict[str, Sent] = {
            "the file": lambda: [_place(json.loads(line)) for line in whole_lines(file)],
            "rsyslog": lambda: [
                (int(m[3]), int(m[4])) for line in rsyslog.lines() if (m := LINE.fullmatch(line))
            ],
            "Splunk": lambda: [_place(event["event"]) for event in splunk.indexed],
            "Elastic": lambda: [_place(document) for document in list(elastic.documents.values())],
        }
        yield ",".join(chosen), sinks


def _place(event: Json) -> tuple[int, int]:
    return event["seq"], event["prev_seq"]
