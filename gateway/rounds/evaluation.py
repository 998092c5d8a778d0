"""The operator's evaluation of a model (`FLG_EVALUATE`), run in a child process on data outside the federation.

Under DP this is the only source of accuracy and loss (RULES 13). A hook that fails or hangs costs the round its
figures, never the round.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.config import environment_for_children

log = logging.getLogger(__name__)
_MOST_OUTPUT_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the hook found; None where it said nothing usable."""

    accuracy: float | None = None
    loss: float | None = None


def evaluate(hook: str, model: Path, *, timeout_s: float) -> Evaluation:
    """Run the hook on a model file.

    Args:
        hook: `module:function`; empty means that there is none.
        model: path of the safetensors file.
        timeout_s: the child is killed after this time.
    """
    if not hook:
        return Evaluation()
    command = [sys.executable, "-m", "gateway.rounds.evaluation", hook, str(model)]
    with tempfile.TemporaryFile() as output:
        status = _run(command, output, timeout_s)
        if status != 0:
            log.warning("the evaluation hook failed with exit status %s", status)
            return Evaluation()
        output.seek(max(0, output.seek(0, os.SEEK_END) - _MOST_OUTPUT_BYTES))
        return _parse(output.read())


def _run(command: list[str], output: IO[bytes], timeout_s: float) -> int:
    """The child's exit status; on a time-out, or if this process goes, it ends with all that it started."""
    alive, held = os.pipe()
    try:
        child = subprocess.Popen(
            [*command, str(alive)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(alive,),
            env=environment_for_children(),
        )
        return _status_of(child, timeout_s)
    finally:
        os.close(alive)
        os.close(held)


def _status_of(child: subprocess.Popen[bytes], timeout_s: float) -> int:
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        log.warning("the evaluation hook took longer than %s s", timeout_s)
        return -signal.SIGKILL
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _parse(output: bytes) -> Evaluation:
    try:
        told = json.loads(output.splitlines()[-1])
        return Evaluation(_finite(told.get("accuracy")), _finite(told.get("loss")))
    except (ValueError, IndexError, AttributeError, OverflowError, RecursionError):
        log.warning("the evaluation hook answered no JSON object")
        return Evaluation()


def _finite(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


def _end_with(alive: int) -> None:
    """Nobody else would end this process, and what it started, once the gateway was killed."""
    os.read(alive, 1)
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """The child: call `module:function` with the path and print its dictionary as JSON."""
    hook, path, alive = arguments
    threading.Thread(target=_end_with, args=(int(alive),), daemon=True).start()
    module, _, function = hook.partition(":")
    print(json.dumps(getattr(importlib.import_module(module), function)(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
