"""A small federation in this very process: real stores, Flask's test client, and the worker run by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from aggregation.wire import write_safetensors
from audit.reading import reading
from gateway.auth.clients import add_client
from gateway.auth.scopes import Role
from gateway.parts.sequencing import sequencer_of
from gateway.privacy import privacy_desk
from gateway.rounds.worker import Worker
from gateway.services import Services
from gateway.tables import client_updates, models, outbox, privacy_ledger, rounds

Tensors = Mapping[str, npt.NDArray[Any]]
SHAPES = {"bias": (3,), "weight": (4, 3)}


def tensors(value: float = 0.0) -> dict[str, npt.NDArray[np.float32]]:
    """A model, or an update, whose numbers are all the same."""
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


def file_of(content: Tensors) -> bytes:
    """The safetensors file of some tensors."""
    return b"".join(write_safetensors(content))


@dataclass(frozen=True, slots=True)
class Silo:
    """A registered client and its bearer token."""

    client_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """Its credentials."""
        return {"Authorization": f"Bearer {self.token}"}


class Federation:
    """An operator, silos, and the gateway's background parts, each driven by the test."""

    def __init__(self, services: Services, http: FlaskClient) -> None:
        self.services = services
        self.http = http
        self.operator = self.staff("operator")
        self.worker = Worker(services, privacy_desk(services))

    def staff(self, role: str) -> dict[str, str]:
        """The credentials of a new client of a role."""
        new = add_client(self.services, f"the {role}", Role(role))
        answer = self.http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(new.client_id, new.client_secret),
        )
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json['access_token']}"}

    def register(self, name: str = "silo", **more: Any) -> Silo:
        """A new client with a subject of its own."""
        answer = self.http.post(
            "/api/v1/clients/register", json={"device_id": name, **more}, headers=self.operator
        )
        assert answer.status_code == 201, answer.text
        return Silo(answer.json["client_id"], answer.json["registration_token"])

    def add_model(self, content: Tensors | None = None, **metadata: Any) -> TestResponse:
        """Upload a model, which starts a lineage."""
        body = file_of(content or tensors())
        headers = {
            **self.operator,
            "X-Model-Checksum": sha256(body).hexdigest(),
            "X-Model-Metadata": json.dumps({"name": "test", **metadata}),
        }
        return self.http.post("/api/v1/models", data=body, headers=headers)

    def download(self, version: str, **headers: str) -> TestResponse:
        """A model's bytes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.get(f"/api/v1/models/{version}", headers={**self.operator, **named}, buffered=True)

    def open_round(self, **wish: Any) -> TestResponse:
        """Create a round; two clients and no noise unless the wish says otherwise."""
        body = {"planned_clients": 2, "min_clients": 1, "privacy": {"mechanism": "none"}} | wish
        return self.http.post("/api/v1/rounds", json=body, headers=self.operator)

    def submit(
        self, silo: Silo, body: bytes, *, number: int = 1, headers: Mapping[str, str] | None = None
    ) -> TestResponse:
        """Send an update, with its true checksum unless a header says otherwise."""
        all_headers = {"X-Update-Checksum": sha256(body).hexdigest(), **silo.headers, **(headers or {})}
        return self.http.post(f"/api/v1/rounds/{number}/updates", data=body, headers=all_headers)

    def work(self) -> None:
        """Let the worker look once at everything, now."""
        self.worker._next_sweep = 0.0
        self.worker.run_once()

    def sequence(self) -> int:
        """Order everything pending into the log."""
        sequencer, total = sequencer_of(self.services), 0
        while done := sequencer.run_once():
            total += done
        return total

    def round(self, number: int = 1) -> dict[str, Any]:
        """The round as the API shows it."""
        answer = self.http.get(f"/api/v1/rounds/{number}", headers=self.operator)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json
        return found

    def kept(self) -> dict[str, int]:
        """How many rows, messages and files there are: what a refusal must not change."""
        with reading(self.services.engine) as conn:
            rows = {
                table.name: conn.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (client_updates, models, rounds, outbox, privacy_ledger)
            }
        folder = Path(self.services.config.blob_url.removeprefix("file:"))
        files = sum(path.is_file() for path in folder.rglob("*"))
        return {**rows, "files": files, "seeds": len(self.services.keystore.seeds())}
