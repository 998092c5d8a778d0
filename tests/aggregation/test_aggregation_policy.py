"""The round's policy: which requests make one, which are refused by field, and its one canonical form."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from aggregation import (
    NoiseKind,
    Policy,
    PolicyError,
    Rule,
    Unit,
    Weights,
    epsilon,
    plan_grid,
    policy_from_request,
)

_PRIVACY = {"mechanism": "gaussian", "clip_norm": 1, "noise_multiplier": 1.5, "delta": 1e-6}


def _request(aggregation: Any = None, privacy: Any = None, **body: Any) -> dict[str, Any]:
    request: dict[str, Any] = {
        "planned_clients": 10,
        "min_clients": 5,
        "privacy": _PRIVACY if privacy is None else privacy,
    }
    if aggregation is not None:
        request["aggregation"] = aggregation
    return {**request, **body}


def _policy(request: dict[str, Any]) -> Policy:
    return policy_from_request(request, coordinates=1000)


def test_a_request_becomes_a_policy_with_defaults() -> None:
    """Mean, equal weights, server_lr 1, unit client."""
    policy = _policy(_request(deadline="2026-11-24T00:00:00Z"))

    assert policy == Policy(
        planned_clients=10,
        min_clients=5,
        mechanism=NoiseKind.GAUSSIAN,
        clip_norm=1.0,
        noise_multiplier=1.5,
        delta=1e-6,
    )
    assert policy.is_noised
    assert not _policy(_request(privacy={"mechanism": "none"})).is_noised


def test_a_wished_epsilon_becomes_noise() -> None:
    """One round on the planned grid spends at most the wished epsilon."""
    privacy = {"mechanism": "gaussian", "clip_norm": 1, "epsilon": 2.0, "delta": 1e-6}

    policy = _policy(_request(privacy=privacy))

    spent = epsilon([plan_grid(policy, 1000).mechanism()], 1e-6)
    assert 1.999 < spent <= 2.0


_RECORD = {**_PRIVACY, "unit": "record", "planned_records": 1000}
_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"planned_clients": 10, "min_clients": 5}, "privacy"),
    (_request(privacy=[]), "privacy"),
    (_request(privacy={}), "privacy.mechanism"),
    (_request(privacy={**_PRIVACY, "mechanism": "laplace"}), "privacy.mechanism"),
    (_request(privacy={**_PRIVACY, "mechanism": ["gaussian"]}), "privacy.mechanism"),
    (_request(privacy={**_PRIVACY, "sigma": 1}), "privacy.sigma"),
    (_request(privacy={**_PRIVACY, "clip_norm": 0}), "privacy.clip_norm"),
    (_request(privacy={**_PRIVACY, "clip_norm": "1"}), "privacy.clip_norm"),
    (_request(privacy={**_PRIVACY, "clip_norm": True}), "privacy.clip_norm"),
    (_request(privacy={**_PRIVACY, "clip_norm": math.nan}), "privacy.clip_norm"),
    (_request(privacy={**_PRIVACY, "clip_norm": 10**400}), "privacy.clip_norm"),
    (_request(privacy={**_PRIVACY, "clip_norm": None}), "privacy.clip_norm"),
    (_request(privacy={**_PRIVACY, "noise_multiplier": 0}), "privacy.noise_multiplier"),
    (_request(privacy={**_PRIVACY, "noise_multiplier": 1e6}), "privacy.noise_multiplier"),
    (_request(privacy={**_PRIVACY, "noise_multiplier": None}), "privacy.noise_multiplier"),
    (_request(privacy={**_PRIVACY, "delta": 0}), "privacy.delta"),
    (_request(privacy={**_PRIVACY, "delta": 1}), "privacy.delta"),
    (_request(privacy={**_PRIVACY, "epsilon": 1}), "privacy.epsilon"),
    (_request(privacy={"mechanism": "gaussian", "clip_norm": 1, "epsilon": 1}), "privacy.delta"),
    (
        _request(privacy={"mechanism": "gaussian", "clip_norm": 1, "epsilon": -1, "delta": 1e-6}),
        "privacy.epsilon",
    ),
    (
        _request(privacy={"mechanism": "gaussian", "clip_norm": 1, "epsilon": 1e-9, "delta": 1e-13}),
        "privacy.epsilon",
    ),
    (_request(privacy={**_PRIVACY, "planned_records": 5}), "privacy.planned_records"),
    (_request(privacy={**_PRIVACY, "silo_norm": 5}), "privacy.silo_norm"),
    (_request(privacy={**_PRIVACY, "unit": "record"}), "privacy.planned_records"),
    (_request(privacy={**_RECORD, "planned_records": 2.5}), "privacy.planned_records"),
    (_request(privacy={**_RECORD, "silo_norm": 0.5}), "privacy.silo_norm"),
    (_request({"weights": "samples", "weight_cap": 5}, _RECORD), "aggregation.weights"),
    (_request(privacy={"mechanism": "none", "unit": "record"}), "privacy.unit"),
    (_request(privacy={"mechanism": "none", "delta": 1e-6}), "privacy.delta"),
    (_request(privacy={"mechanism": "none", "noise_multiplier": 1}), "privacy.noise_multiplier"),
    (_request({"rule": "median"}), "aggregation.rule"),
    (_request({"rule": "best"}), "aggregation.rule"),
    (_request({"weights": "samples"}), "aggregation.weight_cap"),
    (_request({"weights": "samples", "weight_cap": 0}), "aggregation.weight_cap"),
    (_request({"weight_cap": 5}), "aggregation.weight_cap"),
    (_request({"server_lr": 0}), "aggregation.server_lr"),
    (_request({"server_lr": math.inf}), "aggregation.server_lr"),
    (_request({"momentum": 0.9}), "aggregation.momentum"),
    (_request({"faulty_clients": 1}), "aggregation.faulty_clients"),
    (_request({"rule": "median", "weights": "samples"}, {"mechanism": "none"}), "aggregation.weights"),
    (
        _request({"rule": "multi_krum", "faulty_clients": 2}, {"mechanism": "none"}),
        "aggregation.faulty_clients",
    ),
    (_request("mean"), "aggregation"),
    (_request(planned_clients=None), "planned_clients"),
    (_request(planned_clients=0), "planned_clients"),
    (_request(planned_clients=True), "planned_clients"),
    (_request(min_clients=0), "min_clients"),
    (_request(min_clients=11), "min_clients"),
    (_request(min_clients=2.0), "min_clients"),
]


@pytest.mark.parametrize(("request_body", "field"), _REFUSED)
def test_a_policy_that_cannot_be_is_refused_by_field(request_body: dict[str, Any], field: str) -> None:
    """A refusal says which member is wrong and what to do."""
    with pytest.raises(PolicyError) as caught:
        _policy(request_body)

    assert caught.value.field == field
    assert caught.value.remedy
    assert caught.value.code == "VALIDATION_FAILED"


_POLICIES = [
    _policy(_request()),
    _policy(_request({"weights": "samples", "weight_cap": 1000, "server_lr": 0.1})),
    _policy(_request(privacy=_RECORD)),
    _policy(_request(privacy={**_RECORD, "silo_norm": 33.3})),
    _policy(_request({"weights": "samples"}, {"mechanism": "none"})),
    _policy(_request({"rule": "multi_krum", "faulty_clients": 1}, {"mechanism": "none", "clip_norm": 2})),
    _policy(_request({"rule": "geometric_median"}, {"mechanism": "none"})),
]


@pytest.mark.parametrize("policy", _POLICIES)
def test_the_canonical_form_is_read_back(policy: Policy) -> None:
    """What the row keeps is the policy itself."""
    assert Policy.from_canonical(policy.canonical()) == policy


def test_the_canonical_form_has_no_floats_and_one_digest() -> None:
    """Audit entries hold no floats (RFC 8785 by the standard encoder); other policies have other digests."""
    members = json.loads(_POLICIES[0].canonical(), parse_float=lambda text: pytest.fail(text))

    assert members["noise_multiplier"] == "1.5"
    assert members["delta"] == "1e-06"
    assert list(members) == sorted(members)
    assert len({policy.digest() for policy in _POLICIES}) == len(_POLICIES)


def test_the_silo_radius_is_public() -> None:
    """By default planned records times the clip norm."""
    assert _policy(_request(privacy=_RECORD)).silo_radius == 1000.0
    assert _policy(_request(privacy={**_RECORD, "silo_norm": 33.3})).silo_radius == 33.3
    assert (Rule.MEAN, Weights.EQUAL, Unit.RECORD) == ("mean", "equal", "record")
