"""What a run of the demo will do, settled before any data is touched: rounds, steps, clipping, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from aggregation.accountant import noise_multiplier_for
from aggregation.noise import stated_distance
from aggregation.policy import MAX_NOISE_MULTIPLIER
from gateway.demo.data import CLASSES, FEATURES
from gateway.demo.errors import UnplannableRun

PLANNED_RECORDS = 1440  # a public round number near the 1,437 training records: the divisor of every round
DELTA = 1e-5
LOCAL_STEPS = 20  # full-batch gradient steps of a silo, where a silo's whole update is the unit or nothing is
LOCAL_STEP = 8.0
RECORD_CLIP = 0.5
CLIENT_CLIP = 1.0
FIRST_STEP, LAST_STEP = 48.0, 24.0  # unit record: the server's step falls geometrically, in 1 / RECORD_CLIP
MARGIN = 1.001  # a little more noise than needed: decimal numbers on the way must not overdraw the budget
MOST_ROUNDS = 100


class Unit(StrEnum):
    """Whose presence the noise hides."""

    RECORD = "record"
    CLIENT = "client"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """A run as planned; every number in it is public."""

    unit: Unit
    rounds: int
    clients: int
    epsilon: float | None
    delta: float | None
    noise_multiplier: float
    clip_norm: float

    def server_lr(self, round_index: int) -> float:
        """The server's step in the round with this index, from 0."""
        if self.unit is not Unit.RECORD:
            return 1.0
        progress = round_index / max(1, self.rounds - 1)
        return float(FIRST_STEP * (LAST_STEP / FIRST_STEP) ** progress / self.clip_norm)

    @property
    def silo_norm(self) -> float:
        """The public bound on a silo's sum in unit record: five times an even share of clipped records."""
        return self.clip_norm * PLANNED_RECORDS * min(1.0, 5 / self.clients)

    def privacy(self) -> dict[str, Any]:
        """The privacy policy of each round, as the API takes it."""
        match self.unit:
            case Unit.NONE:
                return {"mechanism": "none"}
            case Unit.CLIENT:
                return self._gaussian()
            case Unit.RECORD:
                return self._gaussian() | {"planned_records": PLANNED_RECORDS, "silo_norm": self.silo_norm}
        assert_never(self.unit)

    def budget(self) -> dict[str, float] | None:
        """The budget of the model's lineage, or none where no noise is drawn."""
        if self.epsilon is None or self.delta is None:
            return None
        return {"epsilon": self.epsilon, "delta": self.delta}

    def round_request(self, round_index: int) -> dict[str, Any]:
        """The body that opens the round with this index, from 0."""
        return {
            "planned_clients": self.clients,
            "min_clients": max(1, self.clients // 2),
            "training_config": self.training_config(),
            "aggregation": {"rule": "mean", "weights": "equal", "server_lr": self.server_lr(round_index)},
            "privacy": self.privacy(),
        }

    def training_config(self) -> dict[str, Any]:
        """What the silos are asked to do: one clipped step over all records, or some local steps."""
        if self.unit is Unit.RECORD:
            return {"local_steps": 1}
        return {"local_steps": LOCAL_STEPS, "step": LOCAL_STEP}

    def _gaussian(self) -> dict[str, Any]:
        return {
            "mechanism": "gaussian",
            "unit": self.unit.value,
            "clip_norm": self.clip_norm,
            "noise_multiplier": self.noise_multiplier,
            "delta": self.delta,
        }


def make_plan(unit: Unit, *, rounds: int, clients: int, epsilon: float) -> Plan:
    """Plan a run that spends at most `epsilon` at delta 1e-5 over all its rounds.

    Raises:
        UnplannableRun: no such run is possible.
    """
    if not 1 <= rounds <= MOST_ROUNDS:
        raise UnplannableRun(f"{rounds} rounds cannot be planned: take 1 to {MOST_ROUNDS}")
    if unit is Unit.NONE:
        return Plan(unit, rounds, clients, None, None, 0.0, 0.0)
    if not (math.isfinite(epsilon) and 0.01 <= epsilon <= 100):
        raise UnplannableRun(f"epsilon {epsilon:g} cannot be planned: take 0.01 to 100")
    distance = stated_distance(CLASSES * (FEATURES + 1))
    least_noise = noise_multiplier_for(epsilon, DELTA, count=rounds, distance=distance)
    if (noise_multiplier := round(MARGIN * least_noise, 4)) > MAX_NOISE_MULTIPLIER:
        raise UnplannableRun(
            f"epsilon {epsilon:g} over {rounds} rounds needs too much noise: take fewer rounds"
        )
    clip_norm = RECORD_CLIP if unit is Unit.RECORD else CLIENT_CLIP
    return Plan(unit, rounds, clients, epsilon, DELTA, noise_multiplier, clip_norm)
