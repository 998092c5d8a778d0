"""What can go wrong in the numeric core: each error has a stable code, its facts, and says what to do."""

from __future__ import annotations


class AggregationError(Exception):
    """The one base of every error of this package."""

    code = "AGGREGATION_FAILED"


class BadFormat(AggregationError):
    """The bytes are not the safetensors (or .npz) file expected; `tensor` is None if none is to blame."""

    code = "INVALID_MODEL_FORMAT"

    def __init__(self, tensor: str | None, reason: str) -> None:
        self.tensor = tensor
        self.reason = reason
        super().__init__(f"{reason} (tensor {tensor!r})" if tensor is not None else reason)


class PolicyError(AggregationError):
    """A value of the policy cannot be: `field` is its path in the request body, `remedy` what to do."""

    code = "VALIDATION_FAILED"

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        self.field = field
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{field} {reason}: {remedy}")


class SensitivityExceeded(AggregationError):
    """An update on the grid is longer than the noise was planned for: nothing may be released."""

    code = "SENSITIVITY_EXCEEDED"

    def __init__(self, update_id: str, bound: int) -> None:
        self.update_id = update_id
        self.bound = bound
        super().__init__(
            f"update {update_id}: the sum of squares passes the bound {bound}; "
            "the norm given for it is not the norm of its bytes: measure it again with UpdateReader"
        )


class TooFewUpdates(AggregationError):
    """The cohort is smaller than the policy, or the rule, needs."""

    code = "TOO_FEW_UPDATES"

    def __init__(self, count: int, needed: int) -> None:
        self.count = count
        self.needed = needed
        super().__init__(f"{count} updates, {needed} needed: the round fails")


class DuplicateUpdate(AggregationError):
    """One update was given twice; a cohort is a set."""

    code = "DUPLICATE_UPDATE"

    def __init__(self, update_id: str) -> None:
        self.update_id = update_id
        super().__init__(f"update {update_id} is in the cohort twice: give each update once")


class NoiseKeyMismatch(AggregationError):
    """A noised release without a noise key, or a noise key for a release that has no noise."""

    code = "NOISE_KEY_MISMATCH"

    def __init__(self, *, needed: bool) -> None:
        self.needed = needed
        super().__init__(
            "this policy needs a noise key of 32 bytes: derive it with noise_key()"
            if needed
            else "this policy adds no noise: give no noise key, and claim no epsilon"
        )


class ModelOverflow(AggregationError):
    """The new model does not fit its own dtype: the update was too large."""

    code = "MODEL_OVERFLOW"

    def __init__(self, tensor: str) -> None:
        self.tensor = tensor
        super().__init__(f"tensor {tensor!r} overflows its dtype: lower server_lr or clip_norm")
