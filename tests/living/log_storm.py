"""A storm over the log: writers make entries without pause while one part of its way is killed.

What must hold afterwards (promises 1, 2 and 6): every acknowledged entry is in the log once, every sink has every entry
at least once and in order, and the log verifies.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from uuid import uuid4

import httpx
from living.driver import Driver, await_that, tensors
from living.sinks import Look, Sent
from living.storm import Part
from sqlalchemy import Engine, select

from audit.reading import reading
from audit.store import tree_size
from audit.tables import audit_log

WRITERS = 4
_KILLED_WITHIN_S = 1.0
_DOWN_S = 0.3
_AFTERWARDS_S = 0.5
_AGAIN_S = 0.1

_BODY = tensors(0)
_MODEL = {"X-Model-Checksum": sha256(_BODY).hexdigest(), "X-Model-Metadata": json.dumps({"name": "storm"})}


@dataclass(slots=True)
class LogTally:
    """What happened in storms, all together."""

    runs: int = 0
    acknowledged: int = 0
    entries: int = 0
    doubles: int = 0

    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.runs} kills, {self.acknowledged} acknowledged requests, {self.entries} entries in the log; "
            f"{self.doubles} came twice to a sink"
        )


class LogStorm:
    """Storms over the log of one running gateway; `run` one after the other, then look at the tally."""

    def __init__(self, gateway: Driver, sinks: Mapping[str, Look], chance: random.Random) -> None:
        self._gateway = gateway
        self._sinks = sinks
        self._chance = chance
        self._operator: dict[str, str] = {}
        self._acknowledged: list[str] = []
        self._published = Counter[str]()
        self._read_to = -1
        self.tally = LogTally()

    def run(self, part: Part) -> None:
        """Kill the part at a random moment while writers write; returns once everything was checked.

        Raises:
            AssertionError: a promise was broken.
        """
        stop, self._operator = threading.Event(), self._gateway.as_role("operator")
        with ThreadPoolExecutor(WRITERS) as pool:
            works = [pool.submit(self._write, stop) for _ in range(WRITERS)]
            try:
                time.sleep(self._chance.uniform(0.0, _KILLED_WITHIN_S))
                part.kill()
                time.sleep(_DOWN_S)
                part.start()
                time.sleep(_AFTERWARDS_S)
            finally:
                stop.set()
        acknowledged = [model_id for work in works for model_id in work.result()]
        assert acknowledged
        self._acknowledged += acknowledged
        self._check()
        self.tally.runs += 1
        self.tally.acknowledged = len(self._acknowledged)

    def _write(self, stop: threading.Event) -> list[str]:
        """Start one lineage after the other, each until it is acknowledged; their ids."""
        acknowledged: list[str] = []
        base_url = self._gateway.http.base_url
        with httpx.Client(base_url=base_url, timeout=8.0, trust_env=False) as http:
            while not stop.is_set():
                headers = self._operator | _MODEL | {"Idempotency-Key": str(uuid4())}
                acknowledged.append(
                    await_that("an answer", lambda headers=headers: _acknowledged(http, headers))
                )
        return acknowledged

    def _check(self) -> None:
        with self._gateway.home.stores() as services:
            await_that("every acknowledged entry is in the log", lambda: self._has_all(services.engine))
            with reading(services.engine) as conn:
                size = tree_size(conn)
        assert set(self._published.values()) == {1}
        for name, sent in self._sinks.items():
            got = await_that(f"{name} has every entry", lambda sent=sent: _if_complete(sent(), size))
            first_seen = list(dict.fromkeys(seq for seq, _ in got))
            assert first_seen == list(range(len(first_seen))), f"{name} got entries out of order"
            assert {seq - prev for seq, prev in got} == {1}, f"{name} was told of a hole"
            self.tally.doubles += len(got) - len(first_seen)
        self.tally.entries = size

    def _has_all(self, engine: Engine) -> bool | None:
        """Read the log on; whether everything acknowledged is in it, or None if not yet."""
        kind, place = audit_log.c.event_type == "model.published", audit_log.c.seq
        query = select(place, audit_log.c.canonical).where(kind, place > self._read_to).order_by(place)
        with reading(engine) as conn:
            for seq, text in conn.execute(query):
                self._published[str(json.loads(text)["details"]["model_id"])] += 1
                self._read_to = seq
        return True if self._published.keys() >= set(self._acknowledged) else None


def _acknowledged(http: httpx.Client, headers: dict[str, str]) -> str | None:
    try:
        answer = http.post("/api/v1/models", content=_BODY, headers=headers)
    except httpx.TransportError:
        answer = None
    if answer is None or answer.status_code >= 500 or answer.status_code == 409:  # two at once
        time.sleep(_AGAIN_S)
        return None
    assert answer.status_code == 201, f"{answer.status_code}: {answer.text[:300]}"
    return str(answer.json()["model_id"])


def _if_complete(sent: Sent, size: int) -> Sent | None:
    return sent if {seq for seq, _ in sent} >= set(range(size)) else None
