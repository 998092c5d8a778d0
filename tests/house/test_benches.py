"""The benches stand: each can be loaded, and the servers that they measure start and show the process that works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from services.checkout import ROOT

_RUN = """
import importlib, sys
from pathlib import Path

for path in Path("bench").glob("*.py"):
    importlib.import_module(f"bench.{path.stem}")
serving = importlib.import_module("bench.serving")
body = serving.small_update()
for kind in ("gunicorn", "granian"):
    with serving.served(Path(sys.argv[1]) / kind, kind) as running:
        assert Path(f"/proc/{running.web_process()}").exists()
        print(kind, running.open_round(body))
"""


def test_the_servers_of_the_benches_start_and_tell_who_answers(tmp_path: Path) -> None:
    """docs/performance.md: its commands run for minutes; what they all begin with is run here."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["gunicorn 1", "granian 1"]
