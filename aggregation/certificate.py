"""What a release says about itself, for the audit entry: integers below 2^53 and decimal strings only.

The bound of the sums of squares is public; the largest sum that was met is not: it is a norm, un-noised
(RULES 13).
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Certificate:
    """How a model came about; the fields of the noise are None in a release that claims no epsilon.

    `count` is None where the cohort was sampled: the claim needs that nobody learns its size.
    """

    policy: str
    rule: str
    mechanism: str
    unit: str
    count: int | None
    divisor: str
    coordinates: int
    sensitivity: int | None = None
    sum_q2_bound: str | None = None
    sum_q2_max: str | None = None  # never in `details`
    sigma: str | None = None
    gamma: str | None = None
    noise_multiplier: str | None = None
    distance: str | None = None
    accumulator: str | None = None
    sampler_version: str | None = None
    sampling_rate: str | None = None

    def details(self) -> dict[str, str | int]:
        """The public facts, for the entry's details."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["sum_q2_max"]
        return {name: value for name, value in values.items() if value is not None}
