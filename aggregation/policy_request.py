"""Reads a policy from the body of `POST /api/v1/rounds`: unknown members and wrong types name their field."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from aggregation.accountant import noise_multiplier_for
from aggregation.errors import PolicyError
from aggregation.noise import stated_distance
from aggregation.policy import NoiseKind, Policy, Rule, Unit, Weights

_Choice = TypeVar("_Choice", bound=StrEnum)
_AGGREGATION = frozenset({"rule", "weights", "weight_cap", "server_lr", "faulty_clients"})
_PRIVACY = frozenset(
    {
        "mechanism",
        "unit",
        "clip_norm",
        "noise_multiplier",
        "epsilon",
        "delta",
        "planned_records",
        "silo_norm",
    }
)


def policy_from_request(
    body: Mapping[str, Any],
    *,
    coordinates: int,
    sampling_rate: float | None = None,
) -> Policy:
    """The policy of a round request; other members of the body are not looked at.

    `coordinates` is the model's number of float elements (`wire.dimension`), `sampling_rate` that of a Poisson
    cohort. A wished `epsilon` becomes the smallest noise multiplier that keeps it for this one round.
    """
    aggregation = _object(body, "aggregation", _AGGREGATION)
    privacy = _object(body, "privacy", _PRIVACY)
    mechanism = _choice(privacy, "privacy.mechanism", NoiseKind, None)
    return Policy(
        planned_clients=_required(_count(body, "planned_clients"), "planned_clients"),
        min_clients=_required(_count(body, "min_clients"), "min_clients"),
        rule=_choice(aggregation, "aggregation.rule", Rule, Rule.MEAN),
        weights=_choice(aggregation, "aggregation.weights", Weights, Weights.EQUAL),
        weight_cap=_count(aggregation, "aggregation.weight_cap"),
        server_lr=_number(aggregation, "aggregation.server_lr", 1.0) or 0.0,
        faulty_clients=_count(aggregation, "aggregation.faulty_clients"),
        mechanism=mechanism,
        unit=_choice(privacy, "privacy.unit", Unit, Unit.CLIENT),
        clip_norm=_number(privacy, "privacy.clip_norm"),
        noise_multiplier=_noise_multiplier(privacy, coordinates, sampling_rate or 1.0),
        delta=_number(privacy, "privacy.delta"),
        planned_records=_count(privacy, "privacy.planned_records"),
        silo_norm=_number(privacy, "privacy.silo_norm"),
        sampling_rate=sampling_rate,
    )


def _noise_multiplier(privacy: Mapping[str, Any], coordinates: int, sampling_rate: float) -> float | None:
    wished = _number(privacy, "privacy.noise_multiplier")
    epsilon = _number(privacy, "privacy.epsilon")
    if epsilon is None:
        return wished
    if wished is not None:
        raise PolicyError("privacy.epsilon", "stands beside noise_multiplier", "give one of the two")
    delta = _number(privacy, "privacy.delta")
    if delta is None or not 0 < delta < 1:
        raise PolicyError("privacy.delta", "is missing or out of range", "epsilon means nothing without it")
    if epsilon <= 0:
        raise PolicyError("privacy.epsilon", "is not positive", "give a number above 0")
    return noise_multiplier_for(
        epsilon, delta, sampling_rate=sampling_rate, distance=stated_distance(coordinates)
    )


def _object(body: Mapping[str, Any], field: str, known: frozenset[str]) -> Mapping[str, Any]:
    value = body.get(field)
    if value is None and field == "aggregation":
        return {}
    if not isinstance(value, Mapping):
        raise PolicyError(field, "is missing or not an object", f"give an object with {_listed(known)}")
    for name in value:
        if name not in known:
            raise PolicyError(f"{field}.{name}", "is not known", f"the members are {_listed(known)}")
    return value


def _choice(values: Mapping[str, Any], field: str, kind: type[_Choice], default: _Choice | None) -> _Choice:
    value = values.get(_last(field), default)
    try:
        return kind(value)
    except ValueError:
        raise PolicyError(field, "is not one of the choices", f"give one of {_listed(kind)}") from None


def _number(values: Mapping[str, Any], field: str, default: float | None = None) -> float | None:
    value = values.get(_last(field))
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(field, "is not a number", "give a JSON number")
    try:
        return float(value)
    except OverflowError:
        raise PolicyError(field, "is out of range", "give a smaller number") from None


def _count(values: Mapping[str, Any], field: str) -> int | None:
    value = values.get(_last(field))
    if value is None:
        return None
    if type(value) is not int:
        raise PolicyError(field, "is not a whole number", "give an integer")
    return value


def _required(value: int | None, field: str) -> int:
    if value is None:
        raise PolicyError(field, "is missing", "give it")
    return value


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _listed(names: Any) -> str:
    return ", ".join(sorted(str(name) for name in names))
