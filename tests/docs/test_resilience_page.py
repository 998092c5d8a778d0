"""docs/resilience.md: the long form of the kill matrix runs as shown, here with one short run of one part."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from services.checkout import ROOT

PAGE = (ROOT / "docs" / "resilience.md").read_text("utf-8")


def test_the_soak_runs_with_the_options_shown_and_prints_the_totals() -> None:
    """`make soak` hands `SOAK_ARGS` to the program; every option of the page is one that it takes."""
    (shown,) = re.findall(r'^\$ make soak SOAK_ARGS="(.*)"$', PAGE, re.MULTILINE)
    shorter = {"--runs": "1", "--halt-s": "1", "--only": "Redis"}
    words = shlex.split(shown)
    options = [shorter.get(before, word) for before, word in zip(["", *words], words, strict=False)]

    dry = subprocess.run(
        ["make", "--dry-run", "soak", f"SOAK_ARGS={shown}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "tests/soak.py", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert f"tests/soak.py {shown}" in dry.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 7, 1 runs a cell, halts of 1 s\n")
    assert "2 runs, " in done.stdout
    assert done.stdout.endswith("all promises kept\n")
