"""A package of very many participations is written in the memory that a small one takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "big_package.py"
MANY = 20_000
"""A list of so many rows would take more than twice of what may be added; by hand, give 100,000 to the script."""
MAY_BE_ADDED = 12_000_000


def test_memory_does_not_grow_with_what_a_person_did(tmp_path: Path) -> None:
    """Required: constant memory; measured as the peak of a process that packs once small, then large."""
    path = os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parents[2])])

    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(MANY)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["after"] - told["before"] < MAY_BE_ADDED, told
    assert told["size_bytes"] > 400_000
