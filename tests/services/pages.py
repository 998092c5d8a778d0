"""What a page of docs/ shows, and running it as somebody who pastes it into a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from services.checkout import ROOT

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in that language, in order."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return [block for shown, block in _FENCE.findall(text) if shown == language]


def run_shown(
    script: str, directory: Path, environ: Mapping[str, str], *, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Give the script to a shell that stops at the first command that fails; `fl-gateway` is on its path."""
    return subprocess.run(
        ["bash", "-ec", script],
        cwd=directory,
        env={**environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
