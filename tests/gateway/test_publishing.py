"""The log published as tiles in a folder and in S3: whole at every moment, made up for after an outage, never mixed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from blob_stores import Servers
from services import s3
from sqlalchemy import insert
from tile_reader import read_log

from audit.events import EventType
from audit.store import tree_size
from audit.tables import audit_pending
from audit.tiles import TargetForeign
from audit.tiles.publish import Publisher, Target
from gateway.api.audit import log_vkey
from gateway.cli.opening import prepared_services
from gateway.config import Config
from gateway.errors import BlobsAway, ConfigError
from gateway.parts.sequencing import run_sequencer, sequencer_of
from gateway.parts.starting import recover
from gateway.publishing import open_target
from gateway.publishing.publishing import Publishing
from gateway.publishing.targets import FolderTarget
from gateway.services import Services
from gateway.storage.leadership import Leadership

sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
Publish = Callable[[], int]


def _grow(services: Services, count: int) -> None:
    drafts = [
        services.trail.draft(EventType.AUDIT_TRIED, details={"count": number}) for number in range(count)
    ]
    rows = [{"id": one.id, "body": one.body().decode(), "created_at": one.time} for one in drafts]
    with services.engine.begin() as conn:
        conn.execute(insert(audit_pending), rows)


def _sequenced(services: Services, count: int) -> None:
    _grow(services, count)
    sequencer = sequencer_of(services)
    while sequencer.run_once():
        pass


def _publisher(services: Services, target: Target) -> Publisher:
    return Publisher(services.engine, target, services.origin, services.state.last_checkpoint)


def _into(services: Services, place: str | Path) -> Services:
    named = place if isinstance(place, str) else f"file:{place}"
    return replace(services, config=replace(services.config, tlog_publish=named))


def _size(services: Services) -> int:
    with services.engine.connect() as conn:
        return tree_size(conn)


def _entries(folder: Path, services: Services) -> list[bytes]:
    return read_log(lambda path: (folder / path).read_bytes(), log_vkey(services))


def _await(is_so: Callable[[], bool], within_s: float = 120) -> None:
    until_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until_s, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the tests publish to; it is not there yet."""
    return tmp_path / "published" / "tlog"


# A folder


def test_a_folder_is_a_whole_log_that_anybody_may_read(services: Services, folder: Path) -> None:
    """Files of mode 0644 in folders of 0755, as a web server of another user needs them; nothing else lies there."""
    _sequenced(services, 600)
    target = open_target(_into(services, folder).config)
    assert target is not None
    target.prepare()

    assert Publisher(
        services.engine, target, services.origin, services.state.last_checkpoint
    ).run_once() == _size(services)

    assert len(_entries(folder, services)) == _size(services)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert {path.parent.stat().st_mode & 0o777 for path in files} == {0o755}
    assert not [path for path in files if path.relative_to(folder).parts[0].startswith(".")]


@sqlite
def test_a_strict_umask_does_not_hide_what_is_published(services: Services, folder: Path) -> None:
    """Services run with 027 or 077; the web server is another user."""
    _sequenced(services, 300)
    target = open_target(_into(services, folder).config)
    assert target is not None

    before = os.umask(0o077)
    try:
        target.prepare()
        _publisher(services, target).run_once()
    finally:
        os.umask(before)

    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert {path.parent.stat().st_mode & 0o777 for path in files} == {0o755}


@sqlite
def test_what_a_killed_publisher_wrote_aside_goes_with_the_next_start(
    services: Services, folder: Path
) -> None:
    """Only below `.incoming`: whatever else lies in the folder is not ours to remove."""
    (folder / ".incoming").mkdir(parents=True)
    left, own = folder / ".incoming" / ".000.x", folder / "robots.txt"
    left.write_bytes(b"half")
    own.write_text("ours")
    target = open_target(_into(services, folder).config)
    assert target is not None

    target.prepare()

    assert not left.exists()
    assert own.read_text() == "ours"


def test_a_sequencer_that_is_killed_at_any_moment_leaves_a_whole_log(folder: Path, tmp_path: Path) -> None:
    """SIGKILL while it publishes, twice; what lies there verifies each time, and the next start makes up the rest."""
    config = Config(
        database_url=f"sqlite:///{tmp_path / 'main.db'}",
        keystore_url=f"sqlite:///{tmp_path / 'keys.db'}",
        blob_url=f"file:{tmp_path / 'blobs'}",
        state_url=f"file:{tmp_path / 'state'}",
        master_key="5a" * 32,
        siem_sinks="",
        tlog_publish=f"file:{folder}",
    )
    services = prepared_services(config, part="console")
    recover(services)
    for _ in range(2):
        _sequenced(services, 1200)
        had = _count_files(folder)
        with _sequence_process(config, tmp_path) as process:
            _await(lambda had=had: _count_files(folder) > had + 2)  # type: ignore[misc]
            process.kill()
        if (folder / "checkpoint").exists():
            assert len(_entries(folder, services)) <= _size(services)
    with _sequence_process(config, tmp_path) as process:
        _await(
            lambda: (folder / "checkpoint").exists() and len(_entries(folder, services)) == _size(services)
        )
        process.terminate()
        assert process.wait(timeout=30) == 0
    assert len(_entries(folder, services)) == _published_size(folder) >= 2400
    services.close()


def _published_size(folder: Path) -> int:
    checkpoint = folder / "checkpoint"
    return int(checkpoint.read_text().split("\n")[1]) if checkpoint.exists() else 0


def _count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


@contextmanager
def _sequence_process(config: Config, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`fl-gateway sequence` on these settings; killed when the block ends."""
    names = [
        "database_url",
        "keystore_url",
        "blob_url",
        "state_url",
        "master_key",
        "siem_sinks",
        "tlog_publish",
    ]
    settings = {f"FLG_{name.upper()}": str(getattr(config, name)) for name in names}
    command = [sys.executable, "-m", "gateway.cli", "sequence"]
    with subprocess.Popen(command, env={**os.environ, **settings}, cwd=directory) as process:
        try:
            yield process
        finally:
            process.kill()


# The loop


@pytest.fixture
def running(services: Services, folder: Path) -> Iterator[Callable[..., Publishing]]:
    """Starts publishers in threads of their own; they end with the test."""
    stop, threads = threading.Event(), list[threading.Thread]()

    def start(pause_s: float = 0.05) -> Publishing:
        target = open_target(_into(services, folder).config)
        assert target is not None
        publishing = Publishing(services, target, pause_s=pause_s)
        threads.append(threading.Thread(target=publishing.run, args=(stop,)))
        threads[-1].start()
        return publishing

    yield start
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_two_publishers_take_turns(
    services: Services, folder: Path, running: Callable[..., Publishing]
) -> None:
    """One leads; the log is published once, whoever of them it is."""
    running()
    running()
    for _ in range(3):
        _sequenced(services, 40)
        _await(
            lambda: (folder / "checkpoint").exists() and len(_entries(folder, services)) == _size(services)
        )


@sqlite
def test_a_target_that_is_away_never_stops_the_sequencer(
    services: Services, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file lies where the folder should: entries are sequenced and signed; once it is gone, all is made up for."""
    recover(services)
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("in the way")
    stop = threading.Event()
    sequencer = threading.Thread(target=run_sequencer, args=(_into(services, folder), stop))
    with caplog.at_level(logging.WARNING):
        sequencer.start()
        try:
            _grow(services, 300)
            _await(lambda: _size(services) >= 300)
            _await(lambda: "the log is not published" in caplog.text)
            folder.parent.unlink()
            _await(lambda: (folder / "checkpoint").exists())
        finally:
            stop.set()
            sequencer.join(timeout=30)
    assert len(_entries(folder, services)) >= 300
    assert caplog.text.count("the log is not published") == 1
    assert "the log is published again" in caplog.text


@sqlite
def test_a_lead_that_cannot_be_taken_is_tried_again(
    services: Services, folder: Path, running: Callable[..., Publishing]
) -> None:
    """No room for the lock's file, no descriptor left: the thread lives, and publishes once that is over."""
    _sequenced(services, 20)
    in_the_way = Path(f"{services.engine.url.database}.publisher.lock")
    in_the_way.mkdir()

    running()
    time.sleep(0.3)
    in_the_way.rmdir()

    _await(lambda: (folder / "checkpoint").exists(), within_s=20)


@sqlite
def test_who_lost_the_lead_shows_no_checkpoint_any_more(services: Services, folder: Path) -> None:
    """The next one may be further already: an older checkpoint behind its own would look like a rollback."""
    _sequenced(services, 300)
    next_one = Leadership(services.engine, "publisher")

    class Overtaken(FolderTarget):
        def write(self, path: str, content: bytes) -> None:
            super().write(path, content)
            publishing._lead.close()
            assert next_one.leads()

    publishing = Publishing(services, Overtaken(folder))
    publishing._step(threading.Event())
    next_one.close()

    assert any(folder.rglob("tile/*"))
    assert not (folder / "checkpoint").exists()


@sqlite
def test_another_log_in_the_folder_is_an_alarm(
    services: Services,
    folder: Path,
    running: Callable[..., Publishing],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """CRITICAL in the log file, and not a byte is written there."""
    _sequenced(services, 20)
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_text("another log\n")
    with caplog.at_level(logging.CRITICAL):
        running()
        _await(lambda: "FLG_TLOG_PUBLISH" in caplog.text)

    assert [one.levelname for one in caplog.records] == ["CRITICAL"]
    assert sorted(path.name for path in folder.iterdir()) == [".incoming", "checkpoint"]
    assert (folder / "checkpoint").read_text() == "another log\n"


# S3


def _bucket_reader(server: s3.S3Server, bucket: str, prefix: str) -> Callable[[str], bytes]:
    client = server.client()
    return lambda path: bytes(client.get_object(Bucket=bucket, Key=f"{prefix}{path}")["Body"].read())


@sqlite
@pytest.mark.parametrize("kind", s3.KINDS)
def test_a_bucket_is_a_whole_log_with_the_headers_that_caches_need(
    services: Services, s3_servers: Servers, kind: str
) -> None:
    """Content types, and how long each may be kept; a second publisher goes on from what lies there."""
    server, prefix = s3_servers(kind), f"tlog-{os.urandom(4).hex()}/"
    there = {**server.settings(), "blob_url": services.config.blob_url}
    config = replace(services.config, **there, tlog_publish=f"s3://{s3.BUCKET}/{prefix}")
    fetch = _bucket_reader(server, s3.BUCKET, prefix)
    for count in (300, 250):
        _sequenced(services, count)
        target = open_target(config)
        assert target is not None
        target.check()
        _publisher(services, target).run_once()
        target.close()
        assert len(read_log(fetch, log_vkey(services))) == _size(services)

    head = server.client().head_object
    if kind != "checking":
        tile = head(Bucket=s3.BUCKET, Key=f"{prefix}tile/0/000")
        shown = head(Bucket=s3.BUCKET, Key=f"{prefix}checkpoint")
        assert tile["ContentType"] == "application/octet-stream"
        assert shown["ContentType"] == "text/plain; charset=utf-8"
    if kind == "moto":  # the others keep no Cache-Control
        assert tile["CacheControl"] == "max-age=31536000, immutable"
        assert shown["CacheControl"] == "no-cache"


@sqlite
def test_a_bucket_that_is_away_is_told_and_another_log_in_it_left_alone(
    services: Services, s3_servers: Servers
) -> None:
    """The message names FLG_TLOG_PUBLISH, since the blobs may lie in another bucket."""
    server, prefix = s3_servers("moto"), f"tlog-{os.urandom(4).hex()}/"
    there = {**server.settings(), "blob_url": services.config.blob_url}
    _sequenced(services, 10)
    gone = open_target(replace(services.config, **there, tlog_publish="s3://no-such-bucket/x"))
    held = open_target(replace(services.config, **there, tlog_publish=f"s3://{s3.BUCKET}/{prefix}"))
    assert gone is not None
    assert held is not None
    held.write(
        "checkpoint",
        b"example.com/other\n1\n" + b"A" * 43 + b"=\n\n\xe2\x80\x94 example.com/other AAAAAAA=\n",
    )

    with pytest.raises(BlobsAway, match="FLG_TLOG_PUBLISH"):
        gone.prepare()
    with pytest.raises(BlobsAway, match="FLG_TLOG_PUBLISH"):
        gone.write("checkpoint", b"x")
    with pytest.raises(TargetForeign, match="another log"):
        _publisher(services, held).run_once()
    gone.close()
    held.close()


@pytest.mark.parametrize(
    "place", ["ftp:x", "file:", "s3:", "s3://", "s3://No_Bucket/x", "s3://bucket/a b", "s3://bucket/x?y", "x"]
)
def test_a_place_of_another_form_is_refused(place: str) -> None:
    """At the start, not when the first tile is due."""
    with pytest.raises(ConfigError, match="FLG_TLOG_PUBLISH"):
        open_target(Config(tlog_publish=place))
