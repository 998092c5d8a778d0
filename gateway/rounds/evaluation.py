"""The operator's evaluation of a model (`FLG_EVALUATE`), run in a child process on data outside the federation.

Under DP this is the only source of accuracy and loss (RULES 13). A hook that fails or hangs costs the round its
figures, never the round.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway.config import environment_for_children

log = logging.getLogger(__name__)


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
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout_s, check=False, env=environment_for_children()
        )
    except subprocess.TimeoutExpired:
        log.warning("the evaluation hook took longer than %s s", timeout_s)
        return Evaluation()
    if done.returncode != 0:
        log.warning("the evaluation hook failed with exit status %s", done.returncode)
        return Evaluation()
    return _parse(done.stdout)


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


def main(arguments: list[str]) -> None:
    """The child: call `module:function` with the path and print its dictionary as JSON."""
    hook, path = arguments
    module, _, function = hook.partition(":")
    print(json.dumps(getattr(importlib.import_module(module), function)(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
