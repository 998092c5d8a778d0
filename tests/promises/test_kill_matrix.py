"""Promises 1, 3 and 4 in a storm: each part of a production gateway is killed and halted while clients submit.

`make soak` runs the same cells many times with longer halts and prints the totals.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from living.production import Production, production
from living.storm import Fault, Storm

PARTS = ("web", "worker", "PostgreSQL", "RabbitMQ", "Redis", "S3")
RUNS = 2
OUTAGE_S = 2.0


@pytest.fixture(scope="session")
def seed() -> int:
    """A new one each time, and printed; `STORM_SEED` sets it again."""
    return int(os.environ.get("STORM_SEED") or int.from_bytes(os.urandom(4), "big"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """A gateway on servers of its own, which may be killed."""
    with production(tmp_path_factory.mktemp("production")) as made:
        yield made


@pytest.fixture(scope="session")
def storm(stack: Production, seed: int) -> Storm:
    """The storms of this session, all over the same gateway."""
    return Storm(stack.gateway, random.Random(seed))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_may_be_killed_or_halted_at_any_moment(
    stack: Production, storm: Storm, seed: int, name: str
) -> None:
    """Every acknowledged update is counted once, or its round failed or its erasure was recorded."""
    print(f"STORM_SEED={seed}")

    for fault in (*Fault, *Fault)[: 2 * RUNS]:
        storm.run(stack.part(name), fault, outage_s=OUTAGE_S)

    print(storm.tally.text())
    verdict = stack.gateway.home.verify_log()
    assert verdict.ok, verdict.text()
    assert not stack.missing_blobs()
