"""Events of training: models, rounds, the intake, updates, and what a release spends."""

from __future__ import annotations

from collections.abc import Mapping

from audit.vocabulary import Event, EventType, Ocsf, Outcome, Retention, Severity, details

_OPENED, _CHANGED = Ocsf(6003, 1), Ocsf(6003, 3)
_READ, _UPDATE, _WRITE, _CREATE = Ocsf(6005, 1), Ocsf(6005, 2), Ocsf(6005, 5), Ocsf(6005, 6)
_ENABLE, _DISABLE = Ocsf(6002, 6), Ocsf(6002, 7)

_MODEL = "model_id model_version checksum"
# How the new model fared in the operator's evaluation, where the round asks for one.
_JUDGED = "metric? threshold?:decimal base_metric?:decimal model_metric?:decimal"
# What the aggregation proves of itself; the figures of the noise are missing in a release that claims no epsilon.
_CERTIFICATE = (
    "policy rule mechanism unit count?:integer divisor:decimal coordinates:integer sensitivity?:integer "
    "sum_q2_bound?:decimal sigma?:decimal gamma?:decimal noise_multiplier?:decimal distance?:decimal "
    "accumulator? sampler_version? sampling_rate?:decimal"
)


def _round(meaning: str, clear: str, severity: Severity = Severity.INFORMATIONAL) -> Event:
    declared = details(clear=f"round_number:integer {clear}")
    return Event(meaning, severity, _CHANGED, Retention.ACCOUNTABILITY, declared)


TRAINING: Mapping[EventType, Event] = {
    EventType.MODEL_PUBLISHED: Event(
        "A model was published as the start of a lineage.",
        Severity.INFORMATIONAL,
        _CREATE,
        Retention.ACCOUNTABILITY,
        details(clear=f"{_MODEL} size_bytes:integer epsilon_budget delta"),
    ),
    EventType.MODEL_PROMOTED: Event(
        "A model version was made the base of the next round.",
        Severity.LOW,
        _UPDATE,
        Retention.ACCOUNTABILITY,
        details(clear=_MODEL),
    ),
    EventType.MODEL_DOWNLOADED: Event(
        "A client fetched a model version.",
        Severity.INFORMATIONAL,
        _READ,
        Retention.PARTICIPATION,
        details(clear=f"{_MODEL} status:integer"),
    ),
    EventType.ROUND_CREATED: Event(
        "A training round was opened; with noise, its privacy budget was reserved.",
        Severity.INFORMATIONAL,
        _OPENED,
        Retention.ACCOUNTABILITY,
        details(clear="round_number:integer model_id model_version policy_hash policy selection?"),
    ),
    EventType.ROUND_SELECTED: _round(
        "A round drew its clients; under Poisson sampling their number is not told.",
        "strategy policy_hash eligible?:integer chosen?:integer reserves?:integer reason?",
    ),
    EventType.ROUND_PAUSED: _round(
        "A round takes no updates until it is resumed.", "", severity=Severity.LOW
    ),
    EventType.ROUND_RESUMED: _round("A paused round takes updates again.", "deadline:time paused_s:integer"),
    EventType.ROUND_EXTENDED: _round(
        "A round's deadline was put off.",
        "deadline:time min_clients:integer extensions_left:integer accepted?:integer",
    ),
    EventType.ROUND_CLOSED: _round("A round takes no more updates.", ""),
    EventType.ROUND_FROZEN: _round(
        "The cohort of a round was fixed.", "planned_clients:integer policy_hash num_updates?:integer"
    ),
    EventType.ROUND_COMPLETED: _round(
        "A round's aggregate was released as a new model version.",
        f"model_id result_version checksum policy_hash cohort_size?:integer {_CERTIFICATE} {_JUDGED}",
    ),
    EventType.ROUND_FAILED: Event(
        "A round ended without a release; `spend_stays` tells whether its budget is spent all the same.",
        Severity.MEDIUM,
        _CHANGED,
        Retention.ACCOUNTABILITY,
        details(clear=f"round_number:integer reason spend_stays:flag count?:integer {_JUDGED}"),
        outcomes=(Outcome.FAILURE,),
    ),
    EventType.INTAKE_STOPPED: Event(
        "The operator stopped the intake of every round.",
        Severity.MEDIUM,
        _DISABLE,
        Retention.ACCOUNTABILITY,
        details(),
    ),
    EventType.INTAKE_RESUMED: Event(
        "The operator opened the intake again.",
        Severity.LOW,
        _ENABLE,
        Retention.ACCOUNTABILITY,
        details(),
    ),
    EventType.UPDATE_ACCEPTED: Event(
        "A client's update was checked and kept.",
        Severity.INFORMATIONAL,
        _WRITE,
        Retention.PARTICIPATION,
        details(
            clear="round_number:integer size_bytes:integer policy_hash update_mac",
            sealed="update_id client_id",
        ),
    ),
    EventType.PRIVACY_SPENT: Event(
        "A release spent privacy budget; the figures are those of the whole lineage after it.",
        Severity.INFORMATIONAL,
        _WRITE,
        Retention.ACCOUNTABILITY,
        details(
            clear="round_number:integer model_id state epsilon_spent:decimal epsilon_if_cohort_known?:decimal "
            "delta:decimal unit mechanism noise_multiplier:decimal sampling_rate:decimal adjacency reason?"
        ),
    ),
}
