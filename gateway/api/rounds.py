"""Rounds over HTTP: create, close, list, and what a client needs to know to take part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass
from sqlalchemy import Connection

from audit.reading import reading
from gateway import idempotency
from gateway.api.round_terms import (
    AcceptanceView,
    AcceptanceWish,
    ExtensionView,
    ExtensionWish,
    SelectionView,
    SelectionWish,
    acceptance_from,
    acceptance_view,
    extension_from,
    extension_view,
    selection_from,
    selection_view,
)
from gateway.auth.admission import current_client
from gateway.auth.scopes import Scope
from gateway.errors import (
    BudgetExceeded,
    Conflict,
    GatewayError,
    IdempotencyKeyReused,
    IntakeStopped,
    NoOpenRound,
    NotFound,
    RoundExpired,
    RoundOpen,
    ValidationFailed,
)
from gateway.openapi import operation
from gateway.paths import VERSION, insist_number
from gateway.rounds.closing import close_round
from gateway.rounds.deadlines import END_OF_TIME
from gateway.rounds.intake_switch import insist_intake
from gateway.rounds.lineage import ModelVersion, find_version
from gateway.rounds.opening import RoundRequest, open_round
from gateway.rounds.record import Round, current_round, find_round, list_rounds
from gateway.rounds.strategy import is_poisson
from gateway.services import Services, current_services
from gateway.wire import (
    PAGE,
    WIRE,
    Links,
    Pagination,
    answer,
    dump,
    page,
    page_asked,
    parse_json,
    read_json_body,
)

rounds = Blueprint("rounds", __name__, url_prefix="/api/v1/rounds")
DEFAULT_DURATION = timedelta(hours=1)


@dataclass(frozen=True, slots=True, config=WIRE)
class Aggregation:
    """How updates become a model."""

    rule: Literal["mean", "median", "trimmed_mean", "multi_krum", "geometric_median"] = "mean"
    weights: Literal["equal", "samples"] = "equal"
    weight_cap: int | None = None
    server_lr: float = 1.0
    faulty_clients: int | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class Privacy:
    """The privacy mechanism; `epsilon` is this round's own, and becomes a noise multiplier."""

    mechanism: Literal["none", "gaussian"] = "none"
    unit: Literal["client", "record"] = "client"
    clip_norm: float | None = None
    noise_multiplier: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    planned_records: int | None = None
    silo_norm: float | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class RoundWish:
    """The body that creates a round."""

    planned_clients: Annotated[int, Field(ge=1)]
    min_clients: Annotated[int, Field(ge=1)]
    privacy: Privacy
    base_version: Annotated[str, Field(pattern=VERSION)] | None = None
    deadline: Annotated[AwareDatetime, Field(lt=END_OF_TIME)] | None = None
    training_config: dict[str, Any] = Field(default_factory=dict)
    selection: SelectionWish = Field(default_factory=SelectionWish)
    aggregation: Aggregation = Field(default_factory=Aggregation)
    acceptance: AcceptanceWish | None = None
    extension: ExtensionWish | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class GlobalModel:
    """A model, as a round shows it."""

    model_id: str
    version: str
    download_url: str
    checksum: str
    size_bytes: int


@dataclass(frozen=True, slots=True, config=WIRE)
class PrivacyView:
    """A round's privacy, as its policy fixes it; decimal strings, null where it has none."""

    mechanism: str
    unit: str
    clip_norm: str | None
    noise_multiplier: str | None
    delta: str | None
    planned_records: int | None
    silo_norm: str | None
    sampling_rate: str | None
    policy_hash: str


@dataclass(frozen=True, slots=True, config=WIRE)
class AggregationView:
    """How a round's updates become a model, as its policy fixes it; decimal strings."""

    rule: str
    weights: str
    weight_cap: int | None
    server_lr: str


@dataclass(frozen=True, slots=True, config=WIRE)
class RoundView:
    """A round as the API shows it; of a Poisson sample only operators learn `num_updates`."""

    round_number: int
    status: str
    global_model: GlobalModel
    global_model_url: str
    training_config: dict[str, Any]
    deadline: datetime
    min_clients: int
    planned_clients: int
    privacy: PrivacyView
    aggregation: AggregationView
    selection: SelectionView
    acceptance: AcceptanceView | None
    extension: ExtensionView | None
    num_updates: int | None
    started_at: datetime
    completed_at: datetime | None
    result_model: GlobalModel | None
    failure: str | None
    paused: bool


@dataclass(frozen=True, slots=True, config=WIRE)
class RoundList:
    """A page of rounds, and the current one beside it."""

    data: list[RoundView]
    current: RoundView | None
    pagination: Pagination
    links: Links


@rounds.get("/current")
@operation(
    "The round that takes updates now",
    answers={200: RoundView},
    errors=(NoOpenRound,),
)
def show_current() -> Response:
    """404 `NO_OPEN_ROUND` if there is none."""
    with reading(current_services().engine) as conn:
        return answer(shown_round(conn, current_round(conn)))


@rounds.get("")
@operation(
    "The rounds, the newest first",
    answers={200: RoundList},
    errors=(ValidationFailed,),
    numbers=PAGE,
)
def show_rounds() -> Response:
    """One page of rounds with a member `current` beside it."""
    number, per_page = page_asked()
    with reading(current_services().engine) as conn:
        found, total = list_rounds(conn, limit=per_page, offset=(number - 1) * per_page)
        views = [shown_round(conn, one) for one in found]
        try:
            current: RoundView | None = shown_round(conn, current_round(conn))
        except NoOpenRound:
            current = None
    return page(views, total, current=current)


@rounds.get("/<int:round_number>")
@operation("One round", answers={200: RoundView}, errors=(NotFound,))
def show_round(round_number: int) -> Response:
    """A round by its number."""
    with reading(current_services().engine) as conn:
        return answer(shown_round(conn, find_round(conn, insist_number(round_number))))


@rounds.post("")
@operation(
    "Create a round, which takes updates at once or first draws its clients",
    body=RoundWish,
    answers={201: RoundView},
    errors=(
        BudgetExceeded,
        RoundOpen,
        Conflict,
        NotFound,
        ValidationFailed,
        IdempotencyKeyReused,
        IntakeStopped,
    ),
    headers=("Idempotency-Key",),
)
def create_round() -> Response:
    """Fix the policy, reserve the privacy spend, and open; `selecting` until its clients are drawn."""
    services = current_services()
    with reading(services.engine) as conn:
        insist_intake(conn)
    body = read_json_body()
    hashed, digest = idempotency.key_hash("rounds"), sha256(body).digest()
    first = idempotency.replay(hashed, digest)
    if first is not None:
        return first
    wish = round_request(parse_json(RoundWish, body), services)
    try:
        made = open_round(services, wish, remember=_remember(services, hashed, digest))
    except GatewayError:
        first = idempotency.replay(hashed, digest)  # the same request at the same moment was faster
        if first is None:
            raise
        return first
    with reading(services.engine) as conn:
        return answer(shown_round(conn, made), 201, {"Location": f"/api/v1/rounds/{made.round_number}"})


@rounds.post("/<int:round_number>/close")
@operation(
    "End a round's intake now",
    answers={202: RoundView},
    errors=(NotFound, RoundExpired),
)
def close(round_number: int) -> Response:
    """The updates that came are aggregated, or the round fails below `min_clients`."""
    services = current_services()
    closed = close_round(services, insist_number(round_number))
    with reading(services.engine) as conn:
        return answer(shown_round(conn, closed), 202)


def round_request(wish: RoundWish, services: Services) -> RoundRequest:
    policy = {
        "planned_clients": wish.planned_clients,
        "min_clients": wish.min_clients,
        "aggregation": asdict(wish.aggregation),
        "privacy": asdict(wish.privacy),
    }
    return RoundRequest(
        base_version=wish.base_version,
        deadline=wish.deadline or services.clock() + DEFAULT_DURATION,
        planned_clients=wish.planned_clients,
        min_clients=wish.min_clients,
        training_config=wish.training_config,
        policy=policy,
        selection=selection_from(wish.selection),
        acceptance=acceptance_from(wish.acceptance, evaluates=bool(services.config.evaluate)),
        extension=extension_from(wish.extension, wish.selection.strategy),
    )


def _remember(
    services: Services, hashed: str | None, digest: bytes
) -> Callable[[Round], Callable[[Connection], None]]:
    subject_id = current_client().subject_id

    def make(made: Round) -> Callable[[Connection], None]:
        with reading(services.engine) as conn:
            view = shown_round(conn, made)
        kept = idempotency.remembered(hashed, digest, dump(view), status=201, subject_id=subject_id)
        return lambda conn: idempotency.store(conn, kept)

    return make


def shown_round(conn: Connection, found: Round) -> RoundView:
    base = shown_model(find_version(conn, found.base_version))
    result = shown_model(find_version(conn, found.result_version)) if found.result_version else None
    policy = found.policy
    return RoundView(
        round_number=found.round_number,
        status=found.status.value,
        global_model=base,
        global_model_url=base.download_url,
        training_config=found.training_config,
        deadline=found.deadline,
        min_clients=found.min_clients,
        planned_clients=found.planned_clients,
        privacy=PrivacyView(
            mechanism=policy["mechanism"],
            unit=policy["unit"],
            clip_norm=policy["clip_norm"],
            noise_multiplier=policy["noise_multiplier"],
            delta=policy["delta"],
            planned_records=policy["planned_records"],
            silo_norm=policy["silo_norm"],
            sampling_rate=policy.get("sampling_rate"),
            policy_hash=found.policy_hash,
        ),
        aggregation=AggregationView(
            policy["rule"], policy["weights"], policy["weight_cap"], policy["server_lr"]
        ),
        selection=selection_view(found),
        acceptance=acceptance_view(found),
        extension=extension_view(found),
        num_updates=_num_updates(found),
        started_at=found.started_at,
        completed_at=found.completed_at,
        result_model=result,
        failure=found.failure,
        paused=found.paused_at is not None,
    )


def _num_updates(found: Round) -> int | None:
    """The size of a Poisson sample would tell of who is in it (RULES 12)."""
    if is_poisson(found) and Scope.ROUND_MANAGE not in current_client().scopes:
        return None
    return found.num_updates


def shown_model(version: ModelVersion) -> GlobalModel:
    """A model version as rounds and invitations show it."""
    url = f"{current_services().config.public_url.rstrip('/')}/api/v1/models/{version.version}"
    return GlobalModel(version.model_id, version.version, url, version.checksum, version.size_bytes)
