"""Commands on a database that is not ready, or not there: one line that says what to do, and exit 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from living.home import clean_environment
from services.ports import free_port


def _run(tmp_path: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        cwd=tmp_path,
        env=clean_environment() | {"FLG_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_production_database_is_migrated_by_hand_alone(postgresql_url: str, tmp_path: Path) -> None:
    """An embedded database is migrated on the way; PostgreSQL's schema is the operator's to change."""
    before = _run(tmp_path, postgresql_url, "client", "list")
    upgraded = _run(tmp_path, postgresql_url, "db", "upgrade")
    after = _run(tmp_path, postgresql_url, "client", "list", "--json")

    assert (before.returncode, before.stdout) == (2, "")
    assert "fl-gateway db upgrade" in before.stderr
    assert "Traceback" not in before.stderr
    assert upgraded.returncode == 0, upgraded.stderr
    assert (after.returncode, after.stdout) == (0, "[]\n")


def test_a_database_that_is_away_is_named_without_its_secrets(tmp_path: Path) -> None:
    """RULES 30: the URL may hold a password; only the setting is named."""
    url = f"postgresql+psycopg://gateway:canary-secret@127.0.0.1:{free_port()}/gateway"

    done = _run(tmp_path, url, "client", "list")

    assert done.returncode == 2
    assert "FLG_DATABASE_URL" in done.stderr
    assert "canary-secret" not in done.stderr
    assert "Traceback" not in done.stderr
