"""The demo's science without the gateway: many runs with seeded noise, to see how far accuracy varies.

`python -m gateway.demo.rehearsal --seeds 200` prints the figures of docs/demo.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np

from gateway.demo.data import Records, deal, load_split
from gateway.demo.model import Softmax, accuracy
from gateway.demo.plan import PLANNED_RECORDS, Plan, Unit, make_plan
from gateway.demo.training import local_update


def rehearse(plan: Plan, silos: Sequence[Records], held_out: Records, seed: int) -> list[float]:
    """The held-out accuracy after each round, with the gateway's arithmetic in floating point."""
    randomness = np.random.default_rng(seed)
    model = Softmax.zero()
    history = []
    for index in range(plan.rounds):
        step = _noise(plan, randomness)
        for records in silos:
            step = step.plus(_clipped(plan, Softmax.from_tensors(local_update(plan, model, records))))
        moved = model.plus(step, scale=plan.server_lr(index) / _divisor(plan))
        model = Softmax.from_tensors(moved.tensors())
        history.append(accuracy(model, held_out))
    return history


def _divisor(plan: Plan) -> int:
    return PLANNED_RECORDS if plan.unit is Unit.RECORD else plan.clients


def _clipped(plan: Plan, update: Softmax) -> Softmax:
    """The server's own clipping, which it does in unit client alone."""
    if plan.unit is not Unit.CLIENT:
        return update
    shrink = min(1.0, plan.clip_norm / max(update.norm(), 1e-300))
    return Softmax(shrink * update.weight, shrink * update.bias)


def _noise(plan: Plan, randomness: np.random.Generator) -> Softmax:
    sigma = plan.noise_multiplier * plan.clip_norm
    still = Softmax.zero()
    return Softmax(
        sigma * randomness.normal(size=still.weight.shape), sigma * randomness.normal(size=still.bias.shape)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON object with the mean and the least final accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unit", choices=[unit.value for unit in Unit], default=Unit.RECORD.value)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--epsilon", type=float, default=3.0)
    chosen = parser.parse_args(arguments)
    plan = make_plan(Unit(chosen.unit), rounds=chosen.rounds, clients=chosen.clients, epsilon=chosen.epsilon)
    training, held_out = load_split()
    silos = deal(training, chosen.clients)
    finals = [rehearse(plan, silos, held_out, seed)[-1] for seed in range(chosen.seeds)]
    figures = {
        "unit": plan.unit.value,
        "seeds": chosen.seeds,
        "noise_multiplier": plan.noise_multiplier,
        "mean": round(float(np.mean(finals)), 4),
        "least": round(min(finals), 4),
        "most": round(max(finals), 4),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
