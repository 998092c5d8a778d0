"""The numeric core: wire format, validation, clipping, exact sums, noise, accounting, robust rules.

It knows no web, no database and no network: bytes and numbers come in, bytes and numbers go out.
Importing this package loads nothing of it: a name brings its module, and numpy, when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aggregation.accountant import (
        ADJACENCY,
        Mechanism,
        decimal_up,
        delta_at,
        epsilon,
        gaussian_delta,
        gaussian_epsilon,
        noise_multiplier_for,
    )
    from aggregation.certificate import Certificate
    from aggregation.clipping import clip, clip_factor, l2_norm
    from aggregation.combine import UpdateSource
    from aggregation.engines.local import Release, aggregate
    from aggregation.errors import (
        AggregationError,
        BadFormat,
        DuplicateUpdate,
        ModelOverflow,
        NoiseKeyMismatch,
        PolicyError,
        SensitivityExceeded,
        TooFewUpdates,
    )
    from aggregation.grid import Grid, plan_grid, quantise
    from aggregation.header import compare, parse_header, read_layout
    from aggregation.noise import SAMPLER_VERSION, SIGMA, noise_block, noise_key, stated_distance
    from aggregation.npz import npz_to_safetensors
    from aggregation.policy import NoiseKind, Policy, Rule, Unit, Weights
    from aggregation.policy_request import policy_from_request
    from aggregation.reader import Summary, UpdateReader
    from aggregation.wire import (
        Layout,
        ReadAt,
        Schema,
        Slot,
        TensorSpec,
        dimension,
        header_bytes,
        iter_blocks,
        schema_from_json,
        schema_json,
        write_safetensors,
    )

_HOMES = {
    "accountant": (
        "ADJACENCY",
        "Mechanism",
        "decimal_up",
        "delta_at",
        "epsilon",
        "gaussian_delta",
        "gaussian_epsilon",
        "noise_multiplier_for",
    ),
    "certificate": ("Certificate",),
    "clipping": ("clip", "clip_factor", "l2_norm"),
    "combine": ("UpdateSource",),
    "engines.local": ("Release", "aggregate"),
    "errors": (
        "AggregationError",
        "BadFormat",
        "DuplicateUpdate",
        "ModelOverflow",
        "NoiseKeyMismatch",
        "PolicyError",
        "SensitivityExceeded",
        "TooFewUpdates",
    ),
    "grid": ("Grid", "plan_grid", "quantise"),
    "header": ("compare", "parse_header", "read_layout"),
    "noise": ("SAMPLER_VERSION", "SIGMA", "noise_block", "noise_key", "stated_distance"),
    "npz": ("npz_to_safetensors",),
    "policy": ("NoiseKind", "Policy", "Rule", "Unit", "Weights"),
    "policy_request": ("policy_from_request",),
    "reader": ("Summary", "UpdateReader"),
    "wire": (
        "Layout",
        "ReadAt",
        "Schema",
        "Slot",
        "TensorSpec",
        "dimension",
        "header_bytes",
        "iter_blocks",
        "schema_from_json",
        "schema_json",
        "write_safetensors",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ADJACENCY",
    "SAMPLER_VERSION",
    "SIGMA",
    "AggregationError",
    "BadFormat",
    "Certificate",
    "DuplicateUpdate",
    "Grid",
    "Layout",
    "Mechanism",
    "ModelOverflow",
    "NoiseKeyMismatch",
    "NoiseKind",
    "Policy",
    "PolicyError",
    "ReadAt",
    "Release",
    "Rule",
    "Schema",
    "SensitivityExceeded",
    "Slot",
    "Summary",
    "TensorSpec",
    "TooFewUpdates",
    "Unit",
    "UpdateReader",
    "UpdateSource",
    "Weights",
    "aggregate",
    "clip",
    "clip_factor",
    "compare",
    "decimal_up",
    "delta_at",
    "dimension",
    "epsilon",
    "gaussian_delta",
    "gaussian_epsilon",
    "header_bytes",
    "iter_blocks",
    "l2_norm",
    "noise_block",
    "noise_key",
    "noise_multiplier_for",
    "npz_to_safetensors",
    "parse_header",
    "plan_grid",
    "policy_from_request",
    "quantise",
    "read_layout",
    "schema_from_json",
    "schema_json",
    "stated_distance",
    "write_safetensors",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
