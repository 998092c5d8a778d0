"""The operator's evaluation on held-out data (`FLG_EVALUATE=gateway.demo.evaluate:evaluate`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load

from gateway.demo.data import Records, load_split
from gateway.demo.model import Softmax, accuracy, loss


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the held-out data say about a model."""

    accuracy: float
    loss: float


def evaluate_model(model: Softmax, held_out: Records) -> Evaluation:
    """Accuracy and mean cross-entropy of a model."""
    return Evaluation(accuracy(model, held_out), loss(model, held_out))


def evaluate(model_path: str) -> dict[str, float]:
    """What the gateway calls after each round, in a child process, with the path of the new model."""
    model = Softmax.from_tensors(load(Path(model_path).read_bytes()))
    found = evaluate_model(model, load_split()[1])
    return {"accuracy": found.accuracy, "loss": found.loss}
