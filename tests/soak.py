"""`make soak`: the kill matrix many times over, with long halts, then kills on the log's way; prints the totals.

python tests/soak.py --runs 20 --halt-s 10 --kills 50 [--seed N] [--only PostgreSQL] [--only log]
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

from living.log_storm import LogStorm
from living.logged import LOG_PARTS, logged
from living.production import PARTS, production
from living.storm import Fault, Storm

LOG = "log"


def main() -> int:
    """Run every cell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="runs of each cell")
    parser.add_argument("--halt-s", type=float, default=10.0, help="length of a SIGSTOP")
    parser.add_argument("--kills", type=int, default=50, help="kills of each part of the log's way")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument(
        "--only", choices=(*PARTS, LOG), action="append", help="this part alone; may be repeated"
    )
    chosen = parser.parse_args()
    parts = chosen.only or (*PARTS, LOG)
    broken = 0
    if matrix := [name for name in parts if name != LOG]:
        broken += _matrix(matrix, chosen.seed, chosen.runs, chosen.halt_s)
    if LOG in parts:
        broken += _log(chosen.seed, chosen.kills)
    print("all promises kept" if not broken else f"{broken} broken")
    return int(broken > 0)


def _matrix(parts: list[str], seed: int, runs: int, halt_s: float) -> int:
    print(f"seed {seed}, {runs} runs a cell, halts of {halt_s:g} s", flush=True)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="flg-soak-") as folder, production(Path(folder)) as stack:
        storm = Storm(stack.gateway, random.Random(seed))
        for name in parts:
            for fault in Fault:
                broken += _cell(stack.part(name), fault, storm, runs, halt_s)
        print(storm.tally.text())
        verdict = stack.gateway.home.verify_log()
        print(
            f"log: {'verified' if verdict.ok else verdict.text()}; blobs missing: {len(stack.missing_blobs())}"
        )
        broken += (not verdict.ok) + len(stack.missing_blobs())
    return broken


def _cell(part, fault: Fault, storm: Storm, runs: int, halt_s: float) -> int:  # type: ignore[no-untyped-def]
    started_s, broken = time.monotonic(), 0
    for _ in range(runs):
        try:
            storm.run(part, fault, outage_s=halt_s)
        except AssertionError as error:
            broken += 1
            print(f"{part.name} {fault}: BROKEN: {error}", flush=True)
    print(
        f"{part.name:<11}{fault}: {runs - broken}/{runs} in {time.monotonic() - started_s:.0f} s", flush=True
    )
    return broken


def _log(seed: int, kills: int) -> int:
    print(f"seed {seed}, {kills} kills of each part of the log's way", flush=True)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="flg-soak-") as folder, logged(Path(folder)) as stack:
        storm = LogStorm(stack.gateway, stack.sinks, random.Random(seed))
        for name in LOG_PARTS:
            started_s, before = time.monotonic(), broken
            for _ in range(kills):
                try:
                    storm.run(stack.part(name))
                except AssertionError as error:
                    broken += 1
                    print(f"{name} SIGKILL: BROKEN: {error}", flush=True)
            kept, took_s = kills - (broken - before), time.monotonic() - started_s
            print(f"{name:<11}SIGKILL: {kept}/{kills} in {took_s:.0f} s", flush=True)
        print(storm.tally.text())
        verdict = stack.gateway.home.verify_log()
        print(f"log: {'verified' if verdict.ok else verdict.text()}")
    return broken + (not verdict.ok)


if __name__ == "__main__":
    sys.exit(main())
