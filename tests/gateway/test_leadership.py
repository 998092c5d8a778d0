"""Leadership: one of several processes leads, and another takes over when its session or process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from services import postgresql
from sqlalchemy import text

from gateway.storage.database import open_engine
from gateway.storage.leadership import Leadership

LEADS_ELSEWHERE = """
import sys, time
from gateway.storage.database import open_engine
from gateway.storage.leadership import Leadership
leadership = Leadership(open_engine(sys.argv[1]), "task")
print(leadership.leads(), flush=True)
time.sleep(60)
"""


def leader_elsewhere(url: str) -> subprocess.Popen[bytes]:
    """Another process, which leads."""
    process = subprocess.Popen([sys.executable, "-c", LEADS_ELSEWHERE, url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    return process


def until(fact: Callable[[], bool], patience_s: float = 10.0) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + patience_s
    while not (found := fact()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_one_of_two_leads_until_it_lets_go(database_url: str) -> None:
    """Two coordinators at once: one leads, and the other does as soon as the first is done."""
    engine = open_engine(database_url)
    first, second = Leadership(engine, "task"), Leadership(engine, "task")

    both = (first.leads(), second.leads(), first.leads())
    first.close()

    assert both == (True, False, True)
    assert second.leads()
    assert not first.leads()
    second.close()
    engine.dispose()


def test_leaders_of_two_tasks_do_not_meet(database_url: str) -> None:
    """The lead is of one task."""
    engine = open_engine(database_url)
    with closing(Leadership(engine, "one")) as one, closing(Leadership(engine, "other")) as other:
        assert one.leads()
        assert other.leads()
    engine.dispose()


def test_the_lead_goes_over_when_the_leader_is_killed(database_url: str) -> None:
    """SIGKILL leaves no lead behind: the lock ends with the process."""
    engine = open_engine(database_url)
    process = leader_elsewhere(database_url)
    with closing(Leadership(engine, "task")) as second:
        before = second.leads()
        process.kill()
        process.communicate()

        assert not before
        assert until(second.leads)
    engine.dispose()


def test_a_halted_leader_keeps_the_lead_until_its_session_ends(postgresql_url: str) -> None:
    """SIGSTOP: nobody can know whether it is at work. Its session can be ended, and then it has lost the lead."""
    engine = open_engine(postgresql_url)
    process = leader_elsewhere(postgresql_url)
    os.kill(process.pid, signal.SIGSTOP)
    with closing(Leadership(engine, "task")) as second:
        halted = second.leads()
        with engine.begin() as conn:
            query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            conn.execute(text(query))

        assert not halted
        assert until(second.leads)
    process.kill()
    process.communicate()
    engine.dispose()


def test_a_restart_of_the_server_ends_the_lead_and_it_is_taken_anew(caplog: pytest.LogCaptureFixture) -> None:
    """A leader that cannot ask does not lead; no restart of a part is needed to lead again."""
    with postgresql.running() as server:
        engine = open_engine(server.url())
        with closing(Leadership(engine, "task")) as leadership:
            before = leadership.leads()
            server.stop(crash=True)
            during = leadership.leads()
            server.start()

            assert (before, during) == (True, False)
            assert until(leadership.leads)
        engine.dispose()
    assert "the lead cannot be known" in caplog.text


def test_the_lead_takes_no_place_in_the_pool(postgresql_url: str) -> None:
    """Its connection is its own: the pool stays whole for work."""
    engine = open_engine(postgresql_url)
    with closing(Leadership(engine, "task")) as leadership:
        assert leadership.leads()
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()
