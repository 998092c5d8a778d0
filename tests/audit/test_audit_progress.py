"""Long work tells on a terminal how far it is, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from logbook import checkpoint, entries, lines, zipped

CHAIN = entries(2100)


def test_a_terminal_shows_how_far_the_verifier_is(tmp_path: Path) -> None:
    """DESIGN, CLI: on standard error, so that what is printed can be piped; nothing without a terminal."""
    bundle = zipped(tmp_path / "b.zip", lines(CHAIN), checkpoint(CHAIN))
    command = [sys.executable, "-m", "audit.verify", str(bundle)]
    screen, terminal = os.openpty()

    shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True)
    os.close(terminal)
    told = os.read(screen, 10_000).decode()
    os.close(screen)
    piped = subprocess.run(command, capture_output=True, check=True)

    assert told == "\r1000 of 2100 entries, 47 %\r2000 of 2100 entries, 95 %\r\n"
    assert piped.stderr == b""
    assert shown.stdout == piped.stdout
