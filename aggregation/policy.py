"""A round's policy: how updates are combined and which noise hides them, in one canonical form.

The digest of the canonical form stands in the invitation, the receipt and the audit entry (DESIGN, "DP is the
server's policy"). Which values may meet is decided here, once.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from aggregation.errors import PolicyError

MAX_NORM = 1e15
MIN_NORM = 1e-9
MAX_NOISE_MULTIPLIER = 1000.0
MAX_CLIENTS = 1_000_000
MAX_RECORDS = 2**40
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1e-5, 1 - 1e-5


class Rule(StrEnum):
    """How updates are combined."""

    MEAN = "mean"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed_mean"
    MULTI_KRUM = "multi_krum"
    GEOMETRIC_MEDIAN = "geometric_median"


class Weights(StrEnum):
    """What an update counts in a mean."""

    EQUAL = "equal"
    SAMPLES = "samples"


class NoiseKind(StrEnum):
    """The privacy mechanism."""

    NONE = "none"
    GAUSSIAN = "gaussian"


class Unit(StrEnum):
    """Whose presence the noise hides: a client with all it sent, or one record of a silo's data."""

    CLIENT = "client"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Policy:
    """All that decides what a cohort of updates becomes; valid by construction."""

    planned_clients: int
    min_clients: int
    rule: Rule = Rule.MEAN
    weights: Weights = Weights.EQUAL
    weight_cap: int | None = None
    server_lr: float = 1.0
    faulty_clients: int | None = None
    mechanism: NoiseKind = NoiseKind.NONE
    unit: Unit = Unit.CLIENT
    clip_norm: float | None = None
    noise_multiplier: float | None = None
    delta: float | None = None
    planned_records: int | None = None
    silo_norm: float | None = None
    sampling_rate: float | None = None

    def __post_init__(self) -> None:
        _check_counts(self)
        _check_rule(self)
        if self.mechanism is NoiseKind.GAUSSIAN:
            _check_gaussian(self)
        else:
            _check_without_noise(self)
        if self.sampling_rate is not None:
            _check_sampled(self)

    @property
    def is_noised(self) -> bool:
        """Whether a release under this policy may claim an epsilon."""
        return self.mechanism is NoiseKind.GAUSSIAN

    @property
    def is_sampled(self) -> bool:
        """Whether the cohort is a Poisson sample: its size is as secret as who is in it (RULES 12)."""
        return self.sampling_rate is not None

    @property
    def fewest_updates(self) -> int:
        """The fewest updates that make a model: none under sampling, where an empty cohort is pure noise."""
        return 0 if self.is_sampled else self.min_clients

    @property
    def silo_radius(self) -> float:
        """Unit record: the public cap of a silo's sum (`silo_norm`, or planned records times clip norm)."""
        if self.silo_norm is not None:
            return self.silo_norm
        return (self.clip_norm or 0.0) * (self.planned_records or 0)

    def canonical(self) -> bytes:
        """RFC 8785 JSON of all fields; floats travel as strings that read back exactly.

        A policy without sampling has no member `sampling_rate`, so that digests of older policies stay.
        """
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        if self.sampling_rate is None:
            del values["sampling_rate"]
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def from_canonical(cls, canonical: bytes | str) -> Policy:
        """The policy that `canonical` wrote."""
        values: dict[str, Any] = json.loads(canonical)
        for name in ("server_lr", "clip_norm", "noise_multiplier", "delta", "silo_norm", "sampling_rate"):
            if values.get(name) is not None:
                values[name] = float(values[name])
        values["rule"] = Rule(values["rule"])
        values["weights"] = Weights(values["weights"])
        values["mechanism"] = NoiseKind(values["mechanism"])
        values["unit"] = Unit(values["unit"])
        return cls(**values)


def _plain(value: Any) -> str | int | None:
    return repr(value) if isinstance(value, float) else value


def _check_counts(policy: Policy) -> None:
    _within("planned_clients", policy.planned_clients, 1, MAX_CLIENTS)
    _within("min_clients", policy.min_clients, 1, MAX_CLIENTS)
    if policy.min_clients > policy.planned_clients and not policy.is_sampled:
        raise PolicyError("min_clients", "is above planned_clients", "give at most planned_clients")


def _check_rule(policy: Policy) -> None:
    _within("aggregation.server_lr", policy.server_lr, 1e-9, 1e9)
    if policy.weight_cap is not None:
        _within("aggregation.weight_cap", policy.weight_cap, 1, MAX_RECORDS)
        if policy.weights is not Weights.SAMPLES:
            _refuse("aggregation.weight_cap", "bounds nothing with equal weights", "leave it out")
    if policy.rule is not Rule.MEAN and policy.weights is not Weights.EQUAL:
        _refuse("aggregation.weights", f"cannot be samples with rule {policy.rule}", "use equal weights")
    if policy.faulty_clients is not None:
        _within("aggregation.faulty_clients", policy.faulty_clients, 0, MAX_CLIENTS)
        if policy.rule not in (Rule.TRIMMED_MEAN, Rule.MULTI_KRUM):
            _refuse("aggregation.faulty_clients", f"means nothing to rule {policy.rule}", "leave it out")
        if 2 * policy.faulty_clients + 3 > policy.min_clients:
            _refuse(
                "aggregation.faulty_clients",
                "is too large for min_clients",
                "give at most (min_clients - 3) / 2",
            )


def _check_gaussian(policy: Policy) -> None:
    for name in ("clip_norm", "noise_multiplier", "delta"):
        if getattr(policy, name) is None:
            _refuse(f"privacy.{name}", "is missing", "mechanism gaussian needs it")
    _within("privacy.clip_norm", policy.clip_norm, MIN_NORM, MAX_NORM)
    _within("privacy.noise_multiplier", policy.noise_multiplier, 1e-3, MAX_NOISE_MULTIPLIER)
    _within("privacy.delta", policy.delta, 1e-300, 0.5)
    if policy.rule is not Rule.MEAN:
        _refuse("aggregation.rule", f"{policy.rule} has no privacy proof", "use mean, or mechanism none")
    if policy.unit is Unit.RECORD:
        _check_record_unit(policy)
        return
    if policy.weights is Weights.SAMPLES and policy.weight_cap is None:
        _refuse("aggregation.weight_cap", "is missing", "samples weights under noise need a public bound")
    _without(policy, "planned_records", "silo_norm", why="belongs to unit record")


def _check_record_unit(policy: Policy) -> None:
    if policy.weights is not Weights.EQUAL:
        _refuse("aggregation.weights", "cannot be samples with unit record", "a silo's sum counts as it is")
    if policy.planned_records is None:
        _refuse("privacy.planned_records", "is missing", "unit record divides by a public record count")
    _within("privacy.planned_records", policy.planned_records, 1, MAX_RECORDS)
    _within("privacy.silo_norm", policy.silo_radius, policy.clip_norm or 0.0, math.inf)


def _check_without_noise(policy: Policy) -> None:
    if policy.clip_norm is not None:
        _within("privacy.clip_norm", policy.clip_norm, MIN_NORM, MAX_NORM)
    if policy.unit is Unit.RECORD:
        _refuse("privacy.unit", "cannot be record without noise", "use mechanism gaussian, or unit client")
    _without(
        policy,
        "noise_multiplier",
        "delta",
        "planned_records",
        "silo_norm",
        why="belongs to mechanism gaussian",
    )


def _check_sampled(policy: Policy) -> None:
    """Sampling whole clients amplifies the privacy of clients alone (decision 0064)."""
    _within("selection.sampling_rate", policy.sampling_rate, MIN_SAMPLING_RATE, MAX_SAMPLING_RATE)
    if policy.mechanism is not NoiseKind.GAUSSIAN:
        _refuse("privacy.mechanism", "is none with strategy poisson", "use gaussian, or strategy random")
    if policy.unit is not Unit.CLIENT:
        _refuse("privacy.unit", "is record with strategy poisson", "use unit client, or strategy random")


def _without(policy: Policy, *names: str, why: str) -> None:
    for name in names:
        if getattr(policy, name) is not None:
            _refuse(f"privacy.{name}", why, "leave it out")


def _within(field: str, value: float | None, low: float, high: float) -> None:
    if value is None or not low <= value <= high:  # NaN is within nothing
        _refuse(field, "is out of range", f"give a number from {low:g} to {high:g}")


def _refuse(field: str, reason: str, remedy: str) -> None:
    raise PolicyError(field, reason, remedy)
