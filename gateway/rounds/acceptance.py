"""Whether a new model may become the base of the next round, by the operator's own evaluation of it (RULES 13).

The figures come from `FLG_EVALUATE` alone, and are compared as the decimals that the log tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, assert_never

from gateway.rounds.evaluation import Evaluation


class Metric(StrEnum):
    """What is compared."""

    ACCURACY = "accuracy"
    LOSS = "loss"


class Rejection(StrEnum):
    """Why a model is not published."""

    MODEL_REJECTED = "MODEL_REJECTED"
    MODEL_NOT_EVALUATED = "MODEL_NOT_EVALUATED"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What the operator asks of a round's model; a bound that is None is not asked for."""

    metric: Metric
    threshold: Decimal | None = None
    max_worsening: Decimal | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Acceptance:
        """As the round's row keeps it: `{metric, threshold?, max_worsening?}`."""
        return cls(
            Metric(stored["metric"]),
            _decimal(stored.get("threshold")),
            _decimal(stored.get("max_worsening")),
        )

    @property
    def needs_base(self) -> bool:
        """Whether the base version's figure is asked for too."""
        return self.max_worsening is not None

    def figure(self, evaluation: Evaluation) -> Decimal | None:
        """The figure that counts, or None if the evaluation has none."""
        match self.metric:
            case Metric.ACCURACY:
                return _decimal(evaluation.accuracy)
            case Metric.LOSS:
                return _decimal(evaluation.loss)
            case _:
                assert_never(self.metric)

    def judge(self, model: Evaluation, base: Evaluation) -> Verdict:
        """The verdict on a new model; `base` is looked at only where `needs_base` says so."""
        new, old = self.figure(model), self.figure(base) if self.needs_base else None
        told = {
            "metric": self.metric.value,
            "threshold": _text(self.threshold),
            "base_metric": _text(old),
            "model_metric": _text(new),
        }
        facts = {name: value for name, value in told.items() if value is not None}
        if new is None or (self.needs_base and old is None):
            return Verdict(Rejection.MODEL_NOT_EVALUATED, facts)
        bounds = [self.threshold, None if old is None else self._worst_beside(old)]
        is_good = all(self._is_as_good(new, bound) for bound in bounds if bound is not None)
        return Verdict(None if is_good else Rejection.MODEL_REJECTED, facts)

    def _worst_beside(self, base: Decimal) -> Decimal:
        worse = self.max_worsening or Decimal(0)
        return base - worse if self.metric is Metric.ACCURACY else base + worse

    def _is_as_good(self, figure: Decimal, bound: Decimal) -> bool:
        return figure >= bound if self.metric is Metric.ACCURACY else figure <= bound


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model is accepted (`rejection` is None), and what the entry tells of it, as decimal strings."""

    rejection: Rejection | None
    facts: Mapping[str, str]


def _decimal(number: float | None) -> Decimal | None:
    return None if number is None else Decimal(str(number))


def _text(number: Decimal | None) -> str | None:
    return None if number is None else format(number, "f")
