"""Promises 1, 2 and 6 in a storm: whoever carries an entry to the log and to the SIEM is killed at random moments.

`make soak` runs the same kills many more times.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from living.log_storm import LogStorm
from living.logged import LOG_PARTS, Logged, logged

KILLS = 2


@dataclass(frozen=True, slots=True)
class _Stormy:
    stack: Logged
    storm: LogStorm


@pytest.fixture(scope="module")
def stormy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Stormy]:
    """A gateway on a PostgreSQL and a syslog server of its own; the seed is printed, `STORM_SEED` sets it again."""
    seed = int(os.environ.get("STORM_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"STORM_SEED={seed}")
    with logged(tmp_path_factory.mktemp("logged")) as stack:
        yield _Stormy(stack, LogStorm(stack.gateway, stack.sinks, random.Random(seed)))


@pytest.mark.parametrize("name", LOG_PARTS)
def test_a_part_of_the_logs_way_may_be_killed_at_any_moment(stormy: _Stormy, name: str) -> None:
    """Every acknowledged entry is in the log once, every sink has all of them in order, and the log verifies."""
    for _ in range(KILLS):
        stormy.storm.run(stormy.stack.part(name))

    print(stormy.storm.tally.text())
    verdict = stormy.stack.gateway.home.verify_log()
    assert verdict.ok, verdict.text()
