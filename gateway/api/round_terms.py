"""The terms of a round beside its privacy: whom it asks, what its model must reach, when its deadline is put off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from aggregation.policy import MAX_CLIENTS
from gateway.errors import ValidationFailed
from gateway.rounds.opening import Extension
from gateway.rounds.portable import WHAT, is_portable
from gateway.rounds.record import Round
from gateway.rounds.strategy import Selection, Strategy, selection_of
from gateway.wire import WIRE

_LONGEST_S = 3650 * 86_400
_Seconds = Annotated[int, Field(ge=1, le=_LONGEST_S)]
_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Errors = Iterator[tuple[str, str]]


def _one_error(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the member, in place of one for each type that it might have had."""
    try:
        return validate(value)
    except ValidationError:
        raise PydanticCustomError("scalar", "must be a text, a number, true or false") from None


_Scalar = Annotated[str | bool | int | float, WrapValidator(_one_error)]


@dataclass(frozen=True, slots=True, config=WIRE)
class SelectionWish:
    """Which clients may take part; a member that means nothing to the strategy is refused."""

    strategy: Literal["all", "random", "fair", "poisson"] = "all"
    reserves: Annotated[int, Field(ge=0, le=MAX_CLIENTS)] | None = None
    respond_within_s: _Seconds | None = None
    seen_within_s: _Seconds | None = None
    capabilities: Annotated[dict[_Name, _Scalar], Field(max_length=32)] | None = None
    sampling_rate: Annotated[float, Field(gt=0, lt=1)] | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class AcceptanceWish:
    """What the operator's evaluation must say of the new model; `max_worsening` is against the base model."""

    metric: Literal["accuracy", "loss"]
    threshold: float | None = None
    max_worsening: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class ExtensionWish:
    """By how much, and how often at most, the deadline is put off while fewer than `min_clients` have come."""

    seconds: _Seconds
    times: Annotated[int, Field(ge=1, le=1000)] = 1


@dataclass(frozen=True, slots=True, config=WIRE)
class SelectionView:
    """How a round chooses its clients; the sampling rate is a decimal string."""

    strategy: str
    reserves: int
    respond_within_s: int | None
    seen_within_s: int | None
    capabilities: dict[str, Any]
    sampling_rate: str | None


@dataclass(frozen=True, slots=True, config=WIRE)
class AcceptanceView:
    """What the new model must reach."""

    metric: str
    threshold: float | None
    max_worsening: float | None


@dataclass(frozen=True, slots=True, config=WIRE)
class ExtensionView:
    """By how much the deadline is put off, and how often still."""

    seconds: int
    times_left: int


def selection_from(wish: SelectionWish) -> Selection:
    """The wished selection, its members in keeping with its strategy.

    Raises:
        ValidationFailed: one of them means nothing there, or is missing.
    """
    _refuse("/selection", _selection_errors(wish))
    return Selection(
        strategy=Strategy(wish.strategy),
        reserves=wish.reserves or 0,
        respond_within_s=wish.respond_within_s,
        seen_within_s=wish.seen_within_s,
        capabilities=wish.capabilities or {},
        sampling_rate=wish.sampling_rate,
    )


def acceptance_from(wish: AcceptanceWish | None, *, evaluates: bool) -> dict[str, Any] | None:
    """The wished test of the new model, as the round's row keeps it.

    Args:
        wish: what the body says.
        evaluates: whether `FLG_EVALUATE` is set, without which no model can be tested.

    Raises:
        ValidationFailed: it tests nothing, or nothing can be tested.
    """
    if wish is None:
        return None
    _refuse("/acceptance", _acceptance_errors(wish, evaluates))
    return {"metric": wish.metric, "threshold": wish.threshold, "max_worsening": wish.max_worsening}


def extension_from(wish: ExtensionWish | None, strategy: str) -> Extension | None:
    """The wished extension.

    Raises:
        ValidationFailed: the round samples, and ends when it was said to end.
    """
    if wish is None:
        return None
    if strategy == Strategy.POISSON:
        _refuse("", iter([("/extension", "would tell how many were sampled: leave it out with poisson")]))
    return Extension(wish.seconds, wish.times)


def selection_view(found: Round) -> SelectionView:
    """How the round chooses."""
    selection = selection_of(found)
    rate = selection.sampling_rate
    return SelectionView(
        strategy=selection.strategy.value,
        reserves=selection.reserves,
        respond_within_s=selection.respond_within_s,
        seen_within_s=selection.seen_within_s,
        capabilities=dict(selection.capabilities),
        sampling_rate=None if rate is None else repr(rate),
    )


def acceptance_view(found: Round) -> AcceptanceView | None:
    """What the round's model must reach; None: nothing."""
    if found.acceptance is None:
        return None
    told = found.acceptance
    return AcceptanceView(told["metric"], told["threshold"], told["max_worsening"])


def extension_view(found: Round) -> ExtensionView | None:
    """How the round's deadline is put off; None: not at all."""
    if found.extension_s is None:
        return None
    return ExtensionView(found.extension_s, found.extensions_left or 0)


_MEANINGLESS = {
    Strategy.ALL: ("reserves", "respond_within_s", "seen_within_s", "capabilities", "sampling_rate"),
    Strategy.RANDOM: ("sampling_rate",),
    Strategy.FAIR: ("sampling_rate",),
    Strategy.POISSON: ("reserves", "respond_within_s"),
}


def _selection_errors(wish: SelectionWish) -> _Errors:
    strategy = Strategy(wish.strategy)
    for name in _MEANINGLESS[strategy]:
        if getattr(wish, name) is not None:
            yield f"/{name}", f"means nothing to strategy {strategy.value}: leave it out"
    if strategy is Strategy.POISSON and wish.sampling_rate is None:
        yield "/sampling_rate", "is missing: strategy poisson needs it"
    if strategy in (Strategy.RANDOM, Strategy.FAIR) and wish.respond_within_s and not wish.reserves:
        yield "/respond_within_s", "means nothing without reserves: give some, or leave it out"
    if not is_portable(wish.capabilities or {}):
        yield "/capabilities", WHAT


def _acceptance_errors(wish: AcceptanceWish, evaluates: bool) -> _Errors:
    if wish.threshold is None and wish.max_worsening is None:
        yield "", "tests nothing: give threshold, max_worsening or both"
    if not evaluates:
        yield "", "cannot be tested: FLG_EVALUATE names no evaluation"


def _refuse(under: str, errors: _Errors) -> None:
    found = [{"pointer": f"{under}{name}", "detail": detail} for name, detail in errors]
    if found:
        raise ValidationFailed(found)
