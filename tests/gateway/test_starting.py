"""Start and stop in every mode are entries, and so is a setting that changed; no setting's value is told anywhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from living.driver import await_that
from living.home import Home, clean_environment, home_in
from sqlalchemy import select

from audit.tables import audit_log, audit_pending
from gateway.config import Config
from gateway.services import Services, open_services
from gateway.starting import note_start, note_stop
from gateway.tables import settings_at_start

SECRET = "postgresql+psycopg://flg:s3cret-of-the-house@db.example/fl"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """The stores of an embedded gateway."""
    with home_in(tmp_path / "home", None) as made:
        yield made


def told(services: Services, event_type: str) -> list[dict[str, Any]]:
    """The details of the staged entries of a type, oldest first."""
    with services.engine.connect() as conn:
        bodies = conn.scalars(select(audit_pending.c.body).order_by(audit_pending.c.id))
        found = [json.loads(body) for body in bodies]
    return [entry["details"] for entry in found if entry["event_type"] == event_type]


def start(services: Services, config: Config, mode: str = "web") -> None:
    """A process of that kind starts with these settings."""
    note_start(replace(services, config=config), mode)


def test_the_first_start_and_one_with_the_same_settings_change_nothing(services: Services) -> None:
    """There is nothing to compare with at the first start."""
    start(services, services.config)
    start(services, services.config)

    assert [entry["mode"] for entry in told(services, "server.started")] == ["web", "web"]
    assert told(services, "config.changed") == []


def test_settings_that_differ_are_named_and_their_values_told_nowhere(services: Services) -> None:
    """Issue 5, 6: config.changed holds names alone; promise 8: no secret is stored in clear, not even its hash."""
    start(services, services.config)
    changed = replace(services.config, token_ttl_s=60, owner_database_url=SECRET)

    start(services, changed)
    start(services, changed)

    assert told(services, "config.changed") == [
        {"settings": ["FLG_OWNER_DATABASE_URL", "FLG_TOKEN_TTL_S"], "mode": "web"}
    ]
    with services.engine.connect() as conn:
        rows = conn.execute(select(settings_at_start)).all()
        pending = conn.scalars(select(audit_pending.c.body)).all()
    assert "s3cret" not in str(rows) + str(pending)
    assert len({row.digest for row in rows}) == len(rows)  # the same value under two names looks different


def test_each_kind_of_process_is_compared_with_its_own_kind(services: Services) -> None:
    """The sequencer alone knows its own database's name: that is no change for the others."""
    start(services, services.config)
    own = replace(services.config, sequencer_database_url=SECRET)

    start(services, own, "sequencer")
    start(services, services.config)
    start(services, services.config, "sequencer")

    assert told(services, "config.changed") == [
        {"settings": ["FLG_SEQUENCER_DATABASE_URL"], "mode": "sequencer"}
    ]


def test_a_setting_of_a_later_version_is_compared_with_its_default(services: Services) -> None:
    """An upgrade alone is no change of settings; what is set on the occasion is one."""
    start(services, services.config)
    with services.engine.begin() as conn:
        lost = settings_at_start.c.name.in_(["token_ttl_s", "siem_sinks"])
        conn.execute(settings_at_start.delete().where(lost))

    start(services, replace(services.config, token_ttl_s=Config().token_ttl_s))

    assert services.config.siem_sinks != Config().siem_sinks
    assert told(services, "config.changed") == [{"settings": ["FLG_SIEM_SINKS"], "mode": "web"}]


def test_an_end_is_not_held_up_by_a_database_that_is_away(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """The process ends all the same, and says so in its own log."""
    config = replace(
        Config(),
        database_url="postgresql+psycopg://nobody@127.0.0.1:1/none",
        keystore_url=f"sqlite:///{home.directory}/keys/subjects.db",
        state_url=f"file:{home.directory}/keys/state",
        master_key="5a" * 32,
    )
    with closing(open_services(config, part="web")) as services:
        note_stop(services, "web", 1.5)

    assert [record.getMessage() for record in caplog.records] == [
        "the log does not say that web ended: the database is away (OperationalError)"
    ]


def test_every_process_says_when_it_starts_and_ends(home: Home) -> None:
    """Issue 5, 6: start and stop of the web server of either make, and of a part by itself."""
    commands = {
        "web": "serve --only web --port 0",
        "web under granian": f"serve --only web --server granian --socket {home.directory}/web.sock",
        "worker": "worker",
    }
    expected = Counter(name.partition(" ")[0] for name in commands)
    with (home.directory / "log").open("wb") as log:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", *words.split()],
                cwd=home.directory,
                env=clean_environment() | home.environment(),
                stdout=subprocess.PIPE if "serve" in words else log,
                stderr=log,
            )
            for words in commands.values()
        ]

    try:
        await_that("every process started", lambda: modes(home, "server.started") == expected)
        for process in running:
            if process.stdout is not None:
                assert process.stdout.readline().startswith(b"ready ")
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        ended = [process.wait(30) for process in running]
        for process in running:
            if process.stdout is not None:
                process.stdout.close()

    assert modes(home, "server.stopped") == expected, (home.directory / "log").read_text()
    assert ended == [0] * len(running)


def modes(home: Home, event_type: str) -> Counter[str]:
    """Of which kinds of process there are entries of this type, in the log and before it."""
    with home.stores() as services, services.engine.connect() as conn:
        texts = [
            *conn.scalars(select(audit_pending.c.body)),
            *conn.scalars(select(audit_log.c.canonical)),
        ]
    entries = [json.loads(text) for text in texts]
    return Counter(entry["details"]["mode"] for entry in entries if entry["event_type"] == event_type)
