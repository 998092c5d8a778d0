"""What clients, operators, officers and auditors do to a running gateway, over HTTP."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from typing import Any, TypeVar

import httpx
import numpy as np
from living.home import Home

from aggregation.wire import write_safetensors
from gateway.auth.clients import NewClient, add_client
from gateway.auth.scopes import Role

Json = dict[str, Any]
T = TypeVar("T")
PATIENCE_S = 60.0
_LOOK_S = 0.02
SHAPES = {"b": (4,), "w": (8, 4)}
NOISED = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5}
BARE = {"mechanism": "none"}
BUDGET = {"epsilon": 8.0, "delta": 1e-5}


def await_that(what: str, look: Callable[[], T | None], *, patience_s: float = PATIENCE_S) -> T:
    """What `look` finds, as soon as it finds something that is true."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience_s:g} s: {what}")
        time.sleep(_LOOK_S)
    return found


def tensors(seed: int) -> bytes:
    """A small update (or model) of the schema that every test round has."""
    draw = np.random.default_rng(seed)
    made = {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return b"".join(write_safetensors(made))


@dataclass(frozen=True, slots=True)
class Person:
    """A registered device, and the one subject behind it."""

    client_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """Its credentials."""
        return {"Authorization": f"Bearer {self.token}"}


class Driver:
    """Drives a gateway on a home; how that runs is its subclass's business."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._http: httpx.Client | None = None
        self._staff: dict[str, NewClient] = {}
        self._tokens: dict[str, tuple[dict[str, str], float]] = {}

    @property
    def http(self) -> httpx.Client:
        """A client of the running gateway, without credentials."""
        assert self._http is not None
        return self._http

    # What clients do

    def client_add(self, role: str) -> NewClient:
        """Add a client at the console."""
        with self.home.stores() as services:
            return add_client(services, f"a {role}", Role(role))

    def as_role(self, role: str) -> dict[str, str]:
        """Credentials of a client of that role, made at the first call; a token is renewed before it ends."""
        headers, until_s = self._tokens.get(role, ({}, 0.0))
        if time.monotonic() < until_s:
            return headers
        if role not in self._staff:
            self._staff[role] = self.client_add(role)
        who, form = self._staff[role], {"grant_type": "client_credentials"}
        answer = self.http.post("/oauth/token", data=form, auth=(who.client_id, who.client_secret))
        told = good(answer, 200)
        headers = {"Authorization": f"Bearer {told['access_token']}"}
        self._tokens[role] = headers, time.monotonic() + told["expires_in"] / 2
        return headers

    def register(self, **device: Any) -> Person:
        """A new device, with a subject of its own."""
        body = {"device_id": "silo", "platform": "linux", **device}
        told = good(
            self.http.post("/api/v1/clients/register", json=body, headers=self.as_role("operator")), 201
        )
        return Person(told["client_id"], told["registration_token"])

    def add_model(self, *, budget: Json | None = None) -> Json:
        """Start a lineage."""
        body, said = tensors(0), {"name": "digits"} | ({"privacy_budget": budget} if budget else {})
        headers = {"X-Model-Checksum": sha256(body).hexdigest(), "X-Model-Metadata": json.dumps(said)}
        return good(
            self.http.post("/api/v1/models", content=body, headers=self.as_role("operator") | headers), 201
        )

    def ask_round(self, privacy: Json = NOISED, **wish: Any) -> httpx.Response:
        """Ask for a round: two planned clients unless the wish says otherwise."""
        body = {"planned_clients": 2, "min_clients": 2, "privacy": privacy, **wish}
        return self.http.post("/api/v1/rounds", json=body, headers=self.as_role("operator"))

    def open_round(self, privacy: Json = NOISED, **wish: Any) -> int:
        """Open a round; its number."""
        return int(good(self.ask_round(privacy, **wish), 201)["round_number"])

    def send(self, person: Person, number: int, body: bytes, **headers: str) -> httpx.Response:
        """Send an update; header names with `_` for `-`."""
        sent = {
            "X-Update-Checksum": sha256(body).hexdigest(),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return self.http.post(f"/api/v1/rounds/{number}/updates", content=body, headers=person.headers | sent)

    def submit(self, person: Person, number: int, body: bytes | None = None, **headers: str) -> Json:
        """Send an update that is accepted."""
        return good(self.send(person, number, body or tensors(1), **headers), 202)

    def round(self, number: int) -> Json:
        """A round as it stands."""
        return good(self.http.get(f"/api/v1/rounds/{number}", headers=self.as_role("operator")), 200)

    def await_end(self, number: int) -> Json:
        """The round once it is completed or failed."""
        ended = ("completed", "failed")

        def look() -> Json | None:
            found = self.round(number)
            return found if found["status"] in ended else None

        return await_that(f"the end of round {number}", look)

    def run_round(self, people: list[Person], privacy: Json = NOISED) -> Json:
        """A whole round with an update of each."""
        number = self.open_round(privacy, planned_clients=len(people), min_clients=len(people))
        for position, person in enumerate(people):
            self.submit(person, number, tensors(position + 1))
        return self.await_end(number)

    def await_invitation(self, person: Person, number: int) -> Json:
        """The person's invitation to a round, once it has come."""

        def look() -> Json | None:
            told = good(self.http.get("/api/v1/invitations?wait=1", headers=person.headers), 200)
            return next((one for one in told["data"] if one["round_number"] == number), None)

        return await_that(f"the invitation to round {number}", look)

    def run_poisson_round(self, rate: float, privacy: Json = NOISED) -> Json:
        """A round that samples from whoever is registered, and to which nobody answers."""
        deadline = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
        selection = {"strategy": "poisson", "sampling_rate": rate}
        number = self.open_round(privacy, selection=selection, min_clients=1, deadline=deadline)
        return self.await_end(number)

    # The data-protection officer, the auditor

    def ask_privacy(self, kind: str, person: Person) -> Json:
        """Open a data-protection request; it is carried out at once as far as it goes."""
        wish = {"type": kind, "subject": {"client_id": person.client_id}}
        return good(self.http.post("/api/v1/privacy/requests", json=wish, headers=self.as_role("dpo")), 201)

    def privacy_request(self, case_id: str) -> Json:
        """A request as it stands."""
        return good(self.http.get(f"/api/v1/privacy/requests/{case_id}", headers=self.as_role("dpo")), 200)

    def export(self, person: Person) -> bytes:
        """The text of everything in the person's export package."""
        case = self.ask_privacy("access", person)
        await_that("the package", lambda: self._completed(case["id"]))  # the worker may have been first
        url = f"/api/v1/privacy/requests/{case['id']}/package"
        answer = self.http.get(url, headers=self.as_role("dpo"))
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(BytesIO(answer.content)) as package:
            return b"\n".join(package.read(name) for name in package.namelist())

    def erase(self, person: Person) -> Json:
        """Erase the person, to the end."""
        case = self.ask_privacy("erasure", person)
        return await_that("the end of the erasure", lambda: self._completed(case["id"]))

    def entries(self, event_type: str | None = None) -> list[Json]:
        """The log's entries as stored."""
        found: list[Json] = []
        while True:
            query = {"limit": "1000"} | ({"after": str(found[-1]["seq"])} if found else {})
            answer = self.http.get("/api/v1/audit/entries", params=query, headers=self.as_role("auditor"))
            page = good(answer, 200)["data"]
            found += page
            if len(page) < 1000:
                return [entry for entry in found if event_type in (None, entry["event_type"])]

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        look = lambda: self.http.get("/api/v1/audit/checkpoint", headers=self.as_role("auditor"))  # noqa: E731
        return await_that("a checkpoint", lambda: look().text if look().status_code == 200 else None)

    def _completed(self, case_id: str) -> Json | None:
        case = self.privacy_request(case_id)
        return case if case["status"] == "completed" else None


def good(answer: httpx.Response, status: int) -> Json:
    """The answer's JSON, if it has the status that was expected."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:500]}"
    told: Json = answer.json()
    return told
