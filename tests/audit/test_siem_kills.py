"""Promise 6 with SIGKILL: forwarders to a sink of each kind die at random moments while the log grows.

`STORM_SEED` sets the moments and the moods again, `SIEM_KILLS` their number.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from living.sinks import Look, every_kind_of_sink
from services import elastic as elastics
from services import splunk as splunks
from services.elastic import Elastic
from services.siem import fill_log, open_log
from services.splunk import Splunk
from sqlalchemy import Engine

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


def test_forwarders_that_are_killed_lose_nothing_to_any_kind_of_sink(sqlite_url: str, tmp_path: Path) -> None:
    """Killed at random, with collectors that are busy, forget and break off: every sink has all of it, in order."""
    seed = int(os.environ.get("STORM_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"STORM_SEED={seed}")
    chance, engine = random.Random(seed), open_log(sqlite_url)
    splunk = Splunk(moods=[None, chance.choice([*splunks.Mood]), None, chance.choice([*splunks.Mood])])
    elastic = Elastic(moods=[None, chance.choice([*elastics.Mood]), None, chance.choice([*elastics.Mood])])
    growing = threading.Thread(target=_grow, args=(engine,))
    with every_kind_of_sink(tmp_path, splunk, elastic) as (setting, sinks):
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


def _await_all(name: str, look: Look) -> list[tuple[int, int]]:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        places = look()
        if {seq for seq, _ in places} == set(range(ENTRIES)):
            return places
        assert time.monotonic() < deadline, f"{name} has not every entry"
        time.sleep(0.05)
