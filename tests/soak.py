"""`make soak`: the kill matrix many times over, with long halts; prints the totals of every cell.

python tests/soak.py --runs 20 --halt-s 10 [--seed N] [--only PostgreSQL]
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

from living.production import PARTS, production
from living.storm import Fault, Storm


def main() -> int:
    """Run every cell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="runs of each cell")
    parser.add_argument("--halt-s", type=float, default=10.0, help="length of a SIGSTOP")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}, {chosen.runs} runs a cell, halts of {chosen.halt_s:g} s", flush=True)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="flg-soak-") as folder, production(Path(folder)) as stack:
        storm = Storm(stack.gateway, random.Random(chosen.seed))
        for name in chosen.only or PARTS:
            for fault in Fault:
                broken += _cell(stack.part(name), fault, storm, chosen.runs, chosen.halt_s)
        print(storm.tally.text())
        verdict = stack.gateway.home.verify_log()
        print(
            f"log: {'verified' if verdict.ok else verdict.text()}; blobs missing: {len(stack.missing_blobs())}"
        )
        broken += (not verdict.ok) + len(stack.missing_blobs())
    print("all promises kept" if not broken else f"{broken} broken")
    return int(broken > 0)


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


if __name__ == "__main__":
    sys.exit(main())
