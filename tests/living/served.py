"""A `serve` process of its own for the wire tests, spoken to with plain httpx: nothing of our own client code."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aggregation.wire import write_safetensors

MAX_UPDATE_BYTES = 300_000
MECHANISM_NONE = {"mechanism": "none"}
GAUSSIAN = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "delta": 1e-5}
Headers = dict[str, str]


def update_of(value: float = 0.5) -> bytes:
    """An update of the schema that every model here has."""
    return b"".join(write_safetensors({"w": np.full((4, 3), value, np.float32)}))


def checksum(body: bytes) -> str:
    return sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway as a user starts it: a directory, an address."""

    directory: Path
    url: str
    http: httpx.Client
    tokens: dict[str, Headers]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `fl-gateway` in the gateway's directory, beside the running `serve`."""
        return _command(self.directory, *words)

    def staff(self, role: str) -> Headers:
        """Credentials of a client of that role, made at the first call."""
        if role not in self.tokens:
            added = json.loads(self.command("client", "add", role, "--role", role, "--json").stdout)
            self.tokens[role] = self.token_of(added)
        return self.tokens[role]

    def token_of(self, client: dict[str, str], **form: str) -> Headers:
        answer = self.http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials", **form},
            auth=(client["client_id"], client["client_secret"]),
        )
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def register(self, **device: Any) -> tuple[str, Headers]:
        """A device of its own: its client id and credentials."""
        answer = self.http.post("/api/v1/clients/register", json=device, headers=self.staff("operator"))
        told = answer.json()
        return told["client_id"], {"Authorization": f"Bearer {told['registration_token']}"}

    def add_model(self, *, headers: Headers | None = None, **metadata: Any) -> httpx.Response:
        body = update_of(0.0)
        sent = {"X-Model-Checksum": checksum(body), "X-Model-Metadata": json.dumps({"name": "m", **metadata})}
        return self.http.post(
            "/api/v1/models", content=body, headers=self.staff("operator") | sent | (headers or {})
        )

    def ask_round(self, **wish: Any) -> httpx.Response:
        """Ask for a round on a new lineage, so that no test waits for another's round."""
        base = {} if "base_version" in wish else {"base_version": self.add_model().json()["version"]}
        body = {"planned_clients": 1, "min_clients": 1, "privacy": MECHANISM_NONE} | base | wish
        return self.http.post("/api/v1/rounds", json=body, headers=self.staff("operator"))

    def send(self, number: int, headers: Headers, body: bytes = b"") -> httpx.Response:
        body = body or update_of()
        sent = {"X-Update-Checksum": checksum(body)} | headers
        return self.http.post(f"/api/v1/rounds/{number}/updates", content=body, headers=sent)

    def raw(self, request: bytes, *, then_closed: bool = False) -> bytes:
        """What the gateway answers to these very bytes, as far as it comes within a moment."""
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as peer:
            peer.sendall(request)
            if then_closed:
                peer.shutdown(socket.SHUT_WR)
            answer = b""
            while b"request_id" not in answer and (piece := peer.recv(65_536)):
                answer += piece
        return answer


def _environment(directory: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FLG_")}
    return plain | {
        "FLG_MAX_UPDATE_BYTES_FILE": str(directory / "max_update_bytes"),
        "OPENBLAS_NUM_THREADS": "1",
    }


def _command(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        cwd=directory,
        env=_environment(directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`fl-gateway serve --port 0` in an empty directory; one setting comes from a file, as containers give secrets."""
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "max_update_bytes").write_text(f"{MAX_UPDATE_BYTES}\n")
    with (directory / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", "--port", "0"],
            cwd=directory,
            env=_environment(directory),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            word, url = process.stdout.readline().split()
            assert word == "ready"
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
                yield Served(directory, url, http, {})
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=40)[0]
    assert rest == "", "`ready` is the only line on standard output"


def eventually(look: Callable[[], Any], *, within_s: float = 15.0) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document with all of its members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "error"} <= set(told)
    assert set(told["error"]) == {"code", "message", "details", "request_id", "timestamp"}
    assert (told["status"], told["code"], told["error"]["code"]) == (status, code, code)
    assert told["error"]["request_id"] == answer.headers["X-Request-ID"]
    return told


def jws_part(token: str, part: int) -> dict[str, Any]:
    text = token.split(".")[part]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def public_key(served: Served, kid: str) -> Ed25519PublicKey:
    """The key of that id, from jwks.json."""
    keys = served.http.get("/.well-known/jwks.json").json()["keys"]
    x = next(key["x"] for key in keys if key["kid"] == kid)
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "="))


def verify_jws(served: Served, token: str) -> None:
    signed, _, signature = token.rpartition(".")
    key = public_key(served, jws_part(token, 0)["kid"])
    key.verify(base64.urlsafe_b64decode(signature + "=="), signed.encode())
