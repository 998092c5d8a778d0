"""A silo: it registers, downloads the model, trains on its records, sends its update, keeps the receipt."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256

from safetensors.numpy import load, save

from gateway.demo.api import Api, Json
from gateway.demo.data import Records
from gateway.demo.errors import ClaimFailed
from gateway.demo.model import Softmax
from gateway.demo.plan import Plan
from gateway.demo.training import local_update


@dataclass(frozen=True, slots=True)
class Sent:
    """An update that the gateway acknowledged."""

    round_number: int
    update_id: str
    receipt: str


@dataclass(slots=True)
class Silo:
    """One participant; its records never leave this object."""

    name: str
    api: Api
    client_id: str
    token: str = field(repr=False)
    records: Records = field(repr=False)
    sent: list[Sent] = field(default_factory=list)

    @classmethod
    def register(cls, api: Api, operator_token: str, name: str, records: Records) -> Silo:
        """Become a client of the gateway; the operator's token vouches for the silo."""
        wish = {"name": name, "platform": "python", "capabilities": {"framework": "numpy"}}
        made = api.post_json("/api/v1/clients/register", operator_token, wish, expect=(201,))
        return cls(name, api, made["client_id"], made["registration_token"], records)

    def take_part(self, plan: Plan) -> Sent:
        """Do this silo's part of the open round."""
        current = self.api.get_json("/api/v1/rounds/current", self.token)
        base = Softmax.from_tensors(load(self._download(current["global_model"])))
        body = save(local_update(plan, base, self.records))
        number = int(current["round_number"])
        answer = self.api.post_bytes(
            f"/api/v1/rounds/{number}/updates",
            self.token,
            body,
            self._headers(plan, number, body),
            expect=(202,),
        )
        sent = Sent(number, answer["update_id"], answer["receipt"])
        self.sent.append(sent)
        return sent

    def knock(self) -> int:
        """The status that the gateway answers this silo's token with: 401 once the silo is erased."""
        return self.api.get("/api/v1/rounds/current", self.token, expect=range(200, 500)).status_code

    def _download(self, model: Json) -> bytes:
        body = self.api.get(f"/api/v1/models/{model['version']}", self.token).content
        if sha256(body).hexdigest() != model["checksum"]:
            raise ClaimFailed(f"{self.name} got a model that does not have the announced checksum")
        return body

    def _headers(self, plan: Plan, round_number: int, body: bytes) -> dict[str, str]:
        checksum = sha256(body).hexdigest()
        metadata = {"training_metrics": plan.training_config()}
        return {
            "X-Update-Checksum": checksum,
            "X-Update-Metadata": json.dumps(metadata),
            "Idempotency-Key": f"round-{round_number}-{checksum[:32]}",
        }
