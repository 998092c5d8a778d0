"""`fl-gateway audit hammer` and `audit rebuild` on a gateway as a user starts it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from living.served import Served

MINUTE_S = 60


@pytest.fixture(scope="module")
def vkey(served: Served) -> Path:
    """The log's key, in a file."""
    bundle = served.http.get("/api/v1/audit/bundle", headers=served.staff("auditor")).content
    file = served.directory / "log.vkey"
    with ZipFile(BytesIO(bundle)) as archive:
        file.write_bytes(archive.read("keys/log.vkey"))
    return file


def _started(served: Served, *words: str) -> subprocess.Popen[str]:
    """A command beside `serve` that is not waited for."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FLG_")}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "audit", *words, "--json"],
        cwd=served.directory,
        env=plain,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=MINUTE_S + 180)
    assert out, err
    return process.returncode, json.loads(out)


def test_a_minute_of_the_hammer(served: Served, vkey: Path) -> None:
    """Issue 5: over HTTP and from the database at once, while two write; each waits, so that it costs little."""
    token = served.staff("auditor")["Authorization"].removeprefix("Bearer ")
    seconds = ("--seconds", str(MINUTE_S))
    over_http = ("--url", served.url, "--token", token, "--vkey", str(vkey))

    local = _started(served, "hammer", *seconds, "--readers", "2", "--writers", "2", "--pause", "0.05")
    remote = _started(served, "hammer", *seconds, "--readers", "2", "--pause", "0.2", *over_http)
    endings = [_ended(local), _ended(remote)]

    assert [code for code, _ in endings] == [0, 0], endings
    (_, near), (_, far) = endings
    assert near["last_size"] - near["first_size"] > 100
    assert min(near["inclusions"], far["inclusions"]) > 50
    assert far["last_size"] > far["first_size"]
    assert (near["failure"], far["failure"], far["written"]) == ("", "", 0)


def test_a_hammer_without_its_token_or_gateway_says_what_to_look_at(served: Served, vkey: Path) -> None:
    """Exit 2: nothing was proven, and nothing refuted."""
    nothing = ("audit", "hammer", "--seconds", "5", "--vkey", str(vkey))

    refused = served.command(*nothing, "--url", served.url)
    away = served.command(*nothing, "--url", "http://127.0.0.1:1")

    assert (refused.returncode, away.returncode) == (2, 2)
    assert "--token" in refused.stderr
    assert "--url" in away.stderr


def test_a_tree_that_was_harmed_is_mended_beside_the_running_gateway(served: Served) -> None:
    """Exit 1 the first time, with what differed; 0 the second; the log goes on and verifies."""
    with sqlite3.connect(served.directory / "fl-gateway.db", timeout=30) as database:
        database.execute("UPDATE audit_tiles SET hashes = x'00'")
        database.execute("INSERT INTO audit_tiles VALUES (4, 0, x'00')")
    database.close()

    mended = served.command("audit", "rebuild")
    again = served.command("audit", "rebuild", "--json")

    assert (mended.returncode, again.returncode) == (1, 0), (mended.stderr, again.stderr)
    assert "tile 4/0 differed: written anew" in mended.stdout
    assert json.loads(again.stdout)["is_good"]
    # The sequencer waits a second after a refusal, and writers that never pause can keep it from SQLite's lock.
    hit = served.command("audit", "hammer", "--seconds", "5", "--pause", "0.02")
    assert hit.returncode == 0, (hit.stdout, hit.stderr)


def test_a_rebuild_is_an_entry(served: Served) -> None:
    """Somebody with rights on the log's tables was at work."""
    assert served.command("audit", "rebuild").returncode == 0

    shown = served.http.get(
        "/api/v1/audit/entries?limit=1000&after=0", headers=served.staff("auditor")
    ).json()
    found = shown["data"]
    while shown["data"]:
        after = shown["data"][-1]["seq"]
        shown = served.http.get(
            f"/api/v1/audit/entries?limit=1000&after={after}", headers=served.staff("auditor")
        ).json()
        found += shown["data"]
    rebuilt = [entry for entry in found if entry["event_type"] == "audit.rebuilt"]
    assert rebuilt
    assert rebuilt[0]["details"]["entries"] > 0
