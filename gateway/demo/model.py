"""The demo's model: softmax regression in numpy; a record's gradient is clipped without being built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.demo.data import CLASSES, FEATURES, Floats, Records

Tensors = dict[str, NDArray[np.float32]]

BIAS_INPUT = 0.1  # the bias sees this constant: it hardly adds to a record's norm, which clipping bounds


@dataclass(frozen=True, slots=True)
class Softmax:
    """A weight for each digit and feature and a bias for each digit, as float64 while we compute."""

    weight: Floats
    bias: Floats

    @classmethod
    def zero(cls) -> Softmax:
        """The model that knows nothing."""
        return cls(np.zeros((CLASSES, FEATURES)), np.zeros(CLASSES))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.floating]]) -> Softmax:
        """The model in these tensors."""
        return cls(np.asarray(tensors["weight"], np.float64), np.asarray(tensors["bias"], np.float64))

    def tensors(self) -> Tensors:
        """As it travels: `weight` and `bias` in float32."""
        return {"weight": self.weight.astype(np.float32), "bias": self.bias.astype(np.float32)}

    def plus(self, step: Softmax, scale: float = 1.0) -> Softmax:
        """This model moved by `scale` times a step."""
        return Softmax(self.weight + scale * step.weight, self.bias + scale * step.bias)

    def norm(self) -> float:
        """The L2 norm over both tensors."""
        return float(np.hypot(np.linalg.norm(self.weight), np.linalg.norm(self.bias)))


def probabilities(model: Softmax, features: Floats) -> Floats:
    """How likely each digit is, record by record."""
    scores = features @ model.weight.T + BIAS_INPUT * model.bias
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def accuracy(model: Softmax, records: Records) -> float:
    """The share of the records that the model reads rightly."""
    return float(np.mean(probabilities(model, records.features).argmax(axis=1) == records.labels))


def loss(model: Softmax, records: Records) -> float:
    """The mean cross-entropy."""
    chosen = probabilities(model, records.features)[np.arange(len(records)), records.labels]
    return float(-np.mean(np.log(np.maximum(chosen, 1e-300))))


def gradient_sum(model: Softmax, records: Records) -> Softmax:
    """The gradient of the cross-entropy, summed over the records."""
    return _weighted_sum(_residuals(model, records), records.features)


def clipped_gradient_sum(model: Softmax, records: Records, clip_norm: float) -> Softmax:
    """The sum of the records' gradients, each first shortened to `clip_norm` at most.

    A record's gradient is an outer product, so its norm is the product of two norms and no gradient is built.
    """
    residuals = _residuals(model, records)
    lengths = np.sqrt(np.sum(records.features**2, axis=1) + BIAS_INPUT**2)
    norms = np.linalg.norm(residuals, axis=1) * lengths
    shrink = np.minimum(1.0, clip_norm / np.maximum(norms, 1e-300))
    return _weighted_sum(residuals * shrink[:, None], records.features)


def _residuals(model: Softmax, records: Records) -> Floats:
    residuals = probabilities(model, records.features)
    residuals[np.arange(len(records)), records.labels] -= 1.0
    return residuals


def _weighted_sum(residuals: Floats, features: Floats) -> Softmax:
    return Softmax(residuals.T @ features, BIAS_INPUT * residuals.sum(axis=0))
