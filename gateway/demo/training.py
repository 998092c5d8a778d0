"""A silo's part of a round: from the global model and its own records to the update it sends."""

from __future__ import annotations

import numpy as np

from gateway.demo.data import Records
from gateway.demo.model import Softmax, Tensors, clipped_gradient_sum, gradient_sum
from gateway.demo.plan import LOCAL_STEP, LOCAL_STEPS, Plan, Unit

_BELOW = 1 - 1e-6  # rounding to float32 may lengthen a vector by less than this


def local_update(plan: Plan, base: Softmax, records: Records) -> Tensors:
    """What the silo sends: the sum of its records' clipped steps, or its model's change after local steps."""
    if plan.unit is Unit.RECORD:
        return clipped_steps(base, records, clip_norm=plan.clip_norm, silo_norm=plan.silo_norm).tensors()
    return local_delta(base, records).tensors()


def clipped_steps(base: Softmax, records: Records, *, clip_norm: float, silo_norm: float) -> Softmax:
    """The sum of each record's clipped step downhill: one record moves it by `clip_norm` at most.

    The whole is pulled into the ball of radius `silo_norm`, which brings no two sums further apart.
    """
    total = clipped_gradient_sum(base, records, clip_norm * _BELOW)
    shrink = min(1.0, silo_norm * _BELOW / max(total.norm(), np.finfo(float).tiny))
    return Softmax(-shrink * total.weight, -shrink * total.bias)


def local_delta(base: Softmax, records: Records) -> Softmax:
    """How the model changed after some full-batch gradient steps on the silo's own records."""
    model = base
    for _ in range(LOCAL_STEPS):
        model = model.plus(gradient_sum(model, records), scale=-LOCAL_STEP / len(records))
    return model.plus(base, scale=-1.0)
