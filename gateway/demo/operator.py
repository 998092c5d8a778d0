"""The operator's part: publish the first model, open rounds, wait for them, and evaluate what they made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256

from safetensors.numpy import load, save

from gateway.demo.api import Api, Json, wait_for
from gateway.demo.data import load_split
from gateway.demo.errors import ClaimFailed
from gateway.demo.evaluate import Evaluation, evaluate_model
from gateway.demo.model import Softmax
from gateway.demo.plan import Plan

ROUND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Operator:
    """Who runs the federation; holds no records of the silos."""

    api: Api
    token: str = field(repr=False)

    def publish_model(self, plan: Plan) -> str:
        """Start a lineage with a model that knows nothing, and say its id."""
        body = save(Softmax.zero().tensors())
        metadata: Json = {"name": "digits"}
        if (budget := plan.budget()) is not None:
            metadata["privacy_budget"] = budget
        headers = {
            "X-Model-Checksum": sha256(body).hexdigest(),
            "X-Model-Metadata": json.dumps(metadata),
        }
        made = self.api.post_bytes("/api/v1/models", self.token, body, headers, expect=(201,))
        return str(made["model_id"])

    def open_round(self, plan: Plan, index: int) -> int:
        """Open the round with this index, from 0, and say its number."""
        made = self.api.post_json("/api/v1/rounds", self.token, plan.round_request(index), expect=(201,))
        return int(made["round_number"])

    def wait_for_model(self, round_number: int) -> Json:
        """The round as completed, with its `result_model`.

        Raises:
            ClaimFailed: the round failed.
            NotInTime: it took too long.
        """

        def look() -> Json | None:
            found = self.api.get_json(f"/api/v1/rounds/{round_number}", self.token)
            if found["status"] == "failed":
                raise ClaimFailed(f"round {round_number} failed: {found.get('failure', 'no reason given')}")
            return found if found["status"] == "completed" else None

        return wait_for(f"The end of round {round_number}", look, timeout_s=ROUND_TIMEOUT_S)

    def evaluate(self, version: str) -> Evaluation:
        """How well this version reads the held-out digits."""
        body = self.api.get(f"/api/v1/models/{version}", self.token).content
        return evaluate_model(Softmax.from_tensors(load(body)), load_split()[1])
