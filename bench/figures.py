"""How a benchmark measures and what it prints: ratios to something measured beside it, never bare numbers.

`--json` prints one object: machine, versions, figures (DESIGN, "Benchmarks").
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value beside another; `goal` bounds their ratio, from below or (`at_most`) from above.

    Without a goal it only tells what the machine can do.
    """

    name: str
    value: float
    unit: str
    beside: str
    beside_value: float
    goal: float | None = None
    at_most: bool = False

    @property
    def ratio(self) -> float:
        """The value over what stands beside it."""
        return self.value / self.beside_value

    @property
    def is_met(self) -> bool:
        """Whether the ratio keeps the goal."""
        if self.goal is None:
            return True
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def public(self) -> dict[str, Any]:
        """The figure as `--json` prints it."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "beside": self.beside,
            "beside_value": _rounded(self.beside_value),
            "ratio": _rounded(self.ratio),
            "goal": None if self.goal is None else f"{'<=' if self.at_most else '>='} {self.goal:g}",
            "met": self.is_met,
        }


@dataclass(frozen=True, slots=True)
class Options:
    """What a benchmark was asked for."""

    quick: bool
    json: bool


def options(description: str) -> Options:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="less work, rougher figures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    return Options(chosen.quick, chosen.json)


def cpu_seconds(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The median CPU time of each work, all of them run in turn, so that a slow moment hits them alike."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()  # warm caches and first uses
    for _ in range(rounds):
        for work, taken in zip(works, times, strict=True):
            start = time.process_time()
            work()
            taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in times]


def report(figures: Sequence[Figure], packages: Sequence[str], *, as_json: bool) -> None:
    """Print the figures, for people or as one JSON object."""
    if as_json:
        result = {
            "machine": machine(),
            "versions": versions(packages),
            "figures": [figure.public() for figure in figures],
        }
        print(json.dumps(result, indent=2))
        return
    for figure in figures:
        facts = figure.public()
        verdict = f", goal {facts['goal']}: {'met' if figure.is_met else 'MISSED'}" if figure.goal else ""
        print(
            f"{facts['name']}: {facts['value']:g} {facts['unit']} beside {facts['beside_value']:g} "
            f"({facts['beside']}), ratio {facts['ratio']:g}{verdict}"
        )


def machine() -> dict[str, Any]:
    """Processor, cores and system, as far as the figures depend on them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's version and those of the packages that were measured."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
