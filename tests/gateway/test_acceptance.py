"""The acceptance test of a new model: the operator's evaluation decides whether it becomes the next base."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from audit.reading import reading
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.privacy import privacy_desk
from gateway.rounds.acceptance import Acceptance, Metric, Rejection
from gateway.rounds.evaluation import Evaluation
from gateway.rounds.ledger import LineStatus, read_lines
from gateway.rounds.opening import RoundRequest, open_round
from gateway.rounds.publishing import promote
from gateway.rounds.recovery import sweep_blobs
from gateway.rounds.worker import Worker
from gateway.services import Services
from gateway.tables import model_versions, models

Entries = Callable[..., list[dict[str, Any]]]
# A model's accuracy is its first number, its loss one less it; a model of -1 makes the hook fail.
HOOK = """
import json, pathlib, struct, time

def judge(path):
    data = pathlib.Path(path).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    first = struct.unpack_from("<f", data, start + json.loads(data[8:start])["bias"]["data_offsets"][0])[0]
    assert first >= 0
    return {"accuracy": round(first, 3), "loss": round(1 - first, 3)}

def slow(path):
    pathlib.Path(FOLDER, "began").touch()
    while not pathlib.Path(FOLDER, "go").exists():
        time.sleep(0.02)
    return judge(path)
"""
NOISED = {"mechanism": "gaussian", "clip_norm": 8.0, "noise_multiplier": 1.0, "delta": 1e-5}


@pytest.fixture
def judged(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """The stores with an evaluation hook."""
    (tmp_path / "judging_hook.py").write_text(f"FOLDER = {str(tmp_path)!r}\n{HOOK}", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return replace(services, config=replace(services.config, evaluate="judging_hook:judge"))


@pytest.fixture
def federation(judged: Services) -> Iterator[Federation]:
    """A federation with a model of accuracy 0.5, and no round."""
    app = create_app(judged)
    made = Federation(judged, app.test_client())
    assert made.add_model(tensors(0.5)).status_code == 201
    yield made
    close_refusals(app)


def run_round(federation: Federation, change: float, number: int = 1, **wish: Any) -> dict[str, Any]:
    """A round of one update that changes the model by this much."""
    opened = federation.open_round(planned_clients=1, **wish)
    assert opened.status_code == 201, opened.text
    federation.submit(federation.register(), file_of(tensors(change)), number=number)
    federation.work()
    return federation.round(number)


# The judgement itself


ACCURACY, LOSS = Metric.ACCURACY, Metric.LOSS


@pytest.mark.parametrize(
    ("asked", "model", "base", "rejection"),
    [
        (Acceptance(ACCURACY, threshold=Decimal("0.8")), 0.8, None, None),
        (Acceptance(ACCURACY, threshold=Decimal("0.8")), 0.79, None, Rejection.MODEL_REJECTED),
        (Acceptance(LOSS, threshold=Decimal("0.8")), 0.8, None, None),
        (Acceptance(LOSS, threshold=Decimal("0.8")), 0.81, None, Rejection.MODEL_REJECTED),
        (Acceptance(ACCURACY, max_worsening=Decimal("0.1")), 0.6, 0.7, None),
        (Acceptance(ACCURACY, max_worsening=Decimal("0.1")), 0.59, 0.7, Rejection.MODEL_REJECTED),
        (Acceptance(LOSS, max_worsening=Decimal("0.1")), 0.3, 0.2, None),
        (Acceptance(LOSS, max_worsening=Decimal("0.1")), 0.31, 0.2, Rejection.MODEL_REJECTED),
        (Acceptance(ACCURACY, Decimal("0.9"), Decimal("0.1")), 0.8, 0.7, Rejection.MODEL_REJECTED),
        (Acceptance(ACCURACY, threshold=Decimal("0.1")), None, None, Rejection.MODEL_NOT_EVALUATED),
        (Acceptance(ACCURACY, max_worsening=Decimal("1")), 0.9, None, Rejection.MODEL_NOT_EVALUATED),
    ],
    ids=[
        "as accurate as asked",
        "less accurate",
        "no more loss than asked",
        "more loss",
        "worse than its base by no more than allowed, in decimals",
        "worse than its base",
        "more loss than its base by no more than allowed",
        "more loss than its base",
        "better than its base, below the threshold",
        "no figure",
        "no figure of its base",
    ],
)
def test_a_model_is_judged_by_its_bounds(
    asked: Acceptance, model: float | None, base: float | None, rejection: Rejection | None
) -> None:
    """Required: not worse than a threshold, nor than the base by more than `max_worsening`; both if both are asked."""

    def of(figure: float | None) -> Evaluation:
        return Evaluation(accuracy=figure) if asked.metric is ACCURACY else Evaluation(loss=figure)

    verdict = asked.judge(of(model), of(base))

    assert verdict.rejection is rejection
    assert verdict.facts["metric"] == asked.metric.value


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_a_better_model_is_never_rejected_where_a_worse_one_is_accepted(
    one: float, other: float, worsening: float
) -> None:
    """The judgement grows with the figure, and no figure is told but as a plain decimal."""
    asked = Acceptance.from_json({"metric": "accuracy", "threshold": None, "max_worsening": worsening})
    better, worse = max(one, other), min(one, other)

    verdicts = [
        asked.judge(Evaluation(accuracy=figure), Evaluation(accuracy=0.5)) for figure in (better, worse)
    ]

    assert verdicts[1].rejection is not None or verdicts[0].rejection is None
    assert all(
        "e" not in fact.lower() for v in verdicts for name, fact in v.facts.items() if name != "metric"
    )


# In a round


def test_a_model_that_is_good_enough_is_published_with_its_figures(
    federation: Federation, entries: Entries
) -> None:
    """The entry tells what was asked and what was found, as decimal strings."""
    asked = {"metric": "accuracy", "threshold": 0.6, "max_worsening": 0.05}

    ended = run_round(federation, 0.25, acceptance=asked)

    assert (ended["status"], ended["result_model"]["version"]) == ("completed", "1.1.0")
    details = entries("round.completed")[0]["details"]
    told = {name: details[name] for name in ("metric", "threshold", "base_metric", "model_metric")}
    assert told == {"metric": "accuracy", "threshold": "0.6", "base_metric": "0.5", "model_metric": "0.75"}


def test_a_model_that_is_worse_is_rejected_and_its_base_stays(
    federation: Federation, judged: Services, entries: Entries
) -> None:
    """Required: the round fails with MODEL_REJECTED, the blob goes, the base stays current, the entry tells why."""
    blobs = set(judged.blobs.names())

    ended = run_round(federation, -0.25, acceptance={"metric": "accuracy", "max_worsening": 0.1})

    assert (ended["status"], ended["failure"], ended["result_model"]) == ("failed", "MODEL_REJECTED", None)
    assert len(set(judged.blobs.names()) - blobs) == 1  # the update, no model
    assert federation.open_round().json["global_model"]["version"] == "1.0.0"
    (entry,) = entries("round.failed")
    told = {name: entry["details"][name] for name in ("reason", "metric", "base_metric", "model_metric")}
    assert told == {
        "reason": "MODEL_REJECTED",
        "metric": "accuracy",
        "base_metric": "0.5",
        "model_metric": "0.25",
    }
    assert entry["sealed"] == set()


def test_the_spend_of_a_rejected_model_stays(federation: Federation, judged: Services) -> None:
    """RULES 8: its noise was drawn; what an operator could repeat until it pleases must cost each time."""
    model = federation.add_model(tensors(0.5), privacy_budget={"epsilon": 20.0, "delta": 1e-5}).json

    ended = run_round(federation, -0.25, privacy=NOISED, acceptance={"metric": "loss", "threshold": -99.0})

    with reading(judged.engine) as conn:
        (line,) = read_lines(conn, model["model_id"])
    assert (ended["status"], line.status) == ("failed", LineStatus.SPENT)
    assert [spend.ledger_id for spend in judged.state.spends()] == [line.ledger_id]
    assert judged.keystore.seeds() == []


def test_no_finite_epsilon_holds_after_a_rejected_model_without_noise(
    federation: Federation, entries: Entries
) -> None:
    """Promise 9: its figure stands in the log, which is a release without noise."""
    run_round(federation, -0.25, acceptance={"metric": "accuracy", "max_worsening": 0.1})

    run_round(federation, 0.0, number=2, privacy=NOISED)

    (spent,) = entries("privacy.spent")
    assert spent["details"]["epsilon_spent"] == "Infinity"


def test_a_hook_that_tells_nothing_rejects_the_model(federation: Federation) -> None:
    """Required: no figure to be had is MODEL_NOT_EVALUATED; an unknown model must not slip through."""
    ended = run_round(federation, -0.75, acceptance={"metric": "accuracy", "threshold": 0.0})

    assert (ended["status"], ended["failure"]) == ("failed", "MODEL_NOT_EVALUATED")


def test_the_base_s_recorded_figure_counts(federation: Federation, judged: Services) -> None:
    """Required: the figure that the base was published with, and only without one it is evaluated now."""
    with judged.engine.begin() as conn:
        conn.execute(update(model_versions).values(accuracy=0.9))

    ended = run_round(federation, 0.25, acceptance={"metric": "accuracy", "max_worsening": 0.1})

    assert (ended["status"], ended["failure"]) == ("failed", "MODEL_REJECTED")


def test_a_test_that_nothing_can_answer_is_refused_before_anything_is_spent(
    services: Services, http: FlaskClient
) -> None:
    """Without FLG_EVALUATE no model could pass: the round is not opened."""
    federation = Federation(services, http)
    federation.add_model()

    answer = federation.open_round(acceptance={"metric": "accuracy", "threshold": 0.5})

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert federation.kept()["rounds"] == 0


# Killed, and raced


class KilledError(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_worker_killed_after_the_rejection_leaves_a_blob_that_is_swept(
    federation: Federation, judged: Services
) -> None:
    """Failed and not yet removed: no row names the model, so the sweep takes it."""
    federation.open_round(planned_clients=1, acceptance={"metric": "accuracy", "max_worsening": 0.1})
    federation.submit(federation.register(), file_of(tensors(-0.25)))

    def die(point: str) -> None:
        if point == "round.rejected":
            raise KilledError

    dying = Worker(replace(judged, crash=die), privacy_desk(judged))
    with pytest.raises(KilledError):
        dying.run_once()
    left = set(judged.blobs.names())
    at_once = replace(judged, config=replace(judged.config, blob_grace_s=0.0, evaluate_timeout_s=0.0))
    swept = sweep_blobs(at_once)

    assert (federation.round()["status"], swept) == ("failed", 1)
    assert len(left - set(judged.blobs.names())) == 1


def test_a_worker_that_rejects_what_another_published_removes_nothing(
    federation: Federation, judged: Services
) -> None:
    """An evaluation may differ between two runs: the first to commit decides, and its model is kept."""
    federation.open_round(planned_clients=1, acceptance={"metric": "accuracy", "threshold": 0.6})
    federation.submit(federation.register(), file_of(tensors(0.25)))
    strict = replace(judged, config=replace(judged.config, evaluate=""))
    published = []

    def between(point: str) -> None:
        if point == "round.model_blob" and not published:
            published.append(Worker(judged, privacy_desk(judged)).run_once())

    Worker(replace(strict, crash=between), privacy_desk(judged)).run_once()

    assert published
    assert federation.round()["status"] == "completed"
    assert federation.download("1.1.0").status_code == 200


def test_a_slow_evaluation_holds_up_no_other_round_and_no_erasure(
    federation: Federation, judged: Services, tmp_path: Path
) -> None:
    """The release runs beside the worker's turn."""
    slow = replace(judged, config=replace(judged.config, evaluate="judging_hook:slow"))
    federation.open_round(planned_clients=1)
    federation.submit(federation.register(), file_of(tensors(0.25)))
    stop, worker = threading.Event(), Worker(slow, privacy_desk(slow))
    running = threading.Thread(target=worker.run, args=(stop,))
    running.start()
    try:
        _await(lambda: (tmp_path / "began").exists())
        assert federation.add_model(tensors(0.5)).status_code == 201
        federation.open_round(min_clients=2, extension={"seconds": 60, "times": 1})
        judged.clock.advance(timedelta(hours=1))  # type: ignore[attr-defined]
        federation.operator = federation.staff("operator")
        _await(lambda: federation.round(2)["extension"]["times_left"] == 0)
        first = federation.round(1)["status"]
    finally:
        (tmp_path / "go").touch()
        stop.set()
        running.join(30)

    assert first == "aggregating"
    assert federation.round(1)["status"] == "completed"


# Roll-back


def test_a_roll_back_and_an_acceptance_test_work_together(federation: Federation, entries: Entries) -> None:
    """After a roll-back the earlier version is what the next model is compared with, and is in the entries."""
    run_round(federation, 0.25)
    promoted = federation.http.post("/api/v1/models/1.0.0/promote", headers=federation.operator)

    ended = run_round(federation, 0.125, number=2, acceptance={"metric": "accuracy", "max_worsening": 0.0})

    assert promoted.status_code == 200
    assert (ended["status"], ended["global_model"]["version"]) == ("completed", "1.0.0")
    assert ended["result_model"]["version"] == "1.2.0"
    assert entries("round.completed")[1]["details"]["base_metric"] == "0.5"
    assert entries("model.promoted")[0]["details"]["model_version"] == "1.0.0"


def test_a_round_that_opens_at_the_moment_of_a_roll_back_builds_on_the_promoted_version(
    federation: Federation, judged: Services
) -> None:
    """The newest version is chosen before the lineage is locked: under the lock it is looked at again."""
    run_round(federation, 0.25)
    rolled: list[object] = []

    def remember(_: object) -> Callable[[object], None]:
        if not rolled:
            rolled.append(promote(judged, "1.0.0"))
        return lambda _: None

    policy = {"planned_clients": 1, "min_clients": 1, "privacy": {"mechanism": "none"}}
    wish = RoundRequest(None, judged.clock() + timedelta(hours=1), 1, 1, {}, policy)
    made = open_round(judged, wish, remember=remember)

    assert made.base_version == "1.0.0"
    with reading(judged.engine) as conn:
        assert conn.execute(models.select()).one().current_version == "1.0.0"


def _await(look: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not look():
        assert time.monotonic() < until
        time.sleep(0.02)
