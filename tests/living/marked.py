"""A client that puts one word into everything that it can say to a gateway: fields, headers, paths, bodies, files."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import uuid4

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from living.driver import SHAPES, Driver, Person
from living.home import Home
from sqlalchemy import select

from aggregation.wire import write_safetensors
from audit.events import Retention
from audit.reading import reading
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.tables import clients

_ARGUMENT = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")
_WITH_BODY = ("POST", "PUT", "PATCH")


@dataclass(frozen=True, slots=True)
class Marked:
    """The person, its word, the values in which it said it, and the round that it took part in."""

    person: Person
    word: str
    values: tuple[str, ...]
    key: Ed25519PrivateKey
    number: int


def take_part(gateway: Driver, word: str, other: Person, *, public: str = "") -> Marked:
    """Register with the word in every field, and finish a round with it beside another person.

    Args:
        gateway: where.
        word: the word.
        other: who takes part beside it.
        public: what the operator says to everybody, in clear.
    """
    key = Ed25519PrivateKey.generate()
    said = {"name": f"name {word}", "device_id": f"id {word}", "platform": f"on {word}"}
    verifies = b64encode(key.public_key().public_bytes_raw()).decode()
    person = gateway.register(**said, capabilities={"owner": word, word: [word]}, public_key=verifies)
    number = gateway.open_round(training_config={"note": public})
    body = spelling(word)
    told = json.dumps({"num_samples": 3, "note": word, word: {"deep": [word]}})
    gateway.submit(person, number, body, **_signed(key, body), X_Update_Metadata=told, Idempotency_Key=word)
    gateway.submit(other, number)
    assert gateway.await_end(number)["status"] == "completed"
    return Marked(person, word, (word, *said.values()), key, number)


def be_refused(gateway: Driver, marked: Marked) -> None:
    """Send updates that are refused for every reason that a body can give, with the word in them."""
    word, number = marked.word, gateway.open_round()
    tensors = {"b": np.zeros(4, np.float32), "w": np.zeros((8, 4), np.float32)}
    odd = b"".join(write_safetensors({**tensors, word: tensors["b"]}))
    good = spelling(word)
    for body, more in (
        (word.encode() * 50, {}),
        (odd, {}),
        (good[:-9], {}),
        (good, {"X_Update_Checksum": sha256(word.encode()).hexdigest()}),
        (good, {"X_Update_Metadata": f"not json {word}"}),
        (good, {"X_Client_Signature": b64encode(word.encode()).decode()}),
    ):
        headers = {**_signed(marked.key, body), **more}
        answer = gateway.send(marked.person, number, body, **headers)
        assert 400 <= answer.status_code < 500, answer.text
    gateway.http.post(f"/api/v1/rounds/{number}/close", headers=gateway.as_role("operator"))
    gateway.await_end(number)


def ask_everything(gateway: Driver, marked: Marked) -> int:
    """Ask every route of the gateway, with the word in path, query, headers, cookies and body; how many answered."""
    word, asked = marked.word, 0
    headers = {
        **marked.person.headers,
        "User-Agent": word,
        "Cookie": f"flg_session={word}; {word}={word}",
        "X-Request-ID": word,
        "traceparent": word,
        "tracestate": f"a={word}",
        "Idempotency-Key": f"{word} again",
        "Accept-Language": word,
        "Referer": f"http://localhost/{word}",
        "X-Forwarded-For": word,
        "Forwarded": f"for={word}",
        "X-Update-Metadata": json.dumps({word: word}),
        "X-Model-Metadata": json.dumps({"name": word}),
        "If-None-Match": f'"{word}"',
        "Prefer": f"respond-async, {word}",
    }
    for method, path in _routes(gateway.home, word):
        for sent in _bodies(word) if method in _WITH_BODY else ({},):
            answer = gateway.http.request(method, path, params={word: word}, headers=headers, **sent)
            assert answer.status_code < 500, f"{method} {path}: {answer.text}"
            assert method == "GET" or answer.status_code >= 300, f"{method} {path}: {answer.text}"
            asked += 1
    return asked


def fail_to_enter(gateway: Driver, word: str) -> None:
    """Knock with the word as a token, a secret, an assertion, a code, a name and a password."""
    http = gateway.http
    for proof in (f"Bearer {word}", f"Basic {b64encode(f'{word}:{word}'.encode()).decode()}", word):
        http.get("/api/v1/rounds", headers={"Authorization": proof})
    for form in (
        {"grant_type": "client_credentials", "client_id": word, "client_secret": word, "scope": word},
        {"grant_type": "authorization_code", "code": word, "redirect_uri": word, "code_verifier": word},
        {"grant_type": "refresh_token", "refresh_token": word, "client_id": word, "client_secret": word},
        {"grant_type": word, "client_assertion_type": word, "client_assertion": f"{word}.{word}.{word}"},
    ):
        http.post("/oauth/token", data=form, headers={"User-Agent": word})
    http.post("/oauth/revoke", data={"token": word}, auth=(word, word))
    http.post("/console/sign-in", data={"name": word, "password": word, "code": word})
    http.get(
        "/oauth/authorize", params={"client_id": word, "state": word, "redirect_uri": word, "scope": word}
    )


def leave_an_upload(home: Home, marked: Marked) -> None:
    """The part of a body that lies in a directory of blobs when its process is killed."""
    subject, blob_id, folder = (
        subject_of(home, marked.person),
        uuid4().hex,
        home.directory / "blobs" / "incoming",
    )
    with home.stores() as services:
        _, key = services.sealer.new_blob_key(subject, Retention.PARTICIPATION, blob_id, services.clock())
        blob = services.blobs.incoming(blob_id, key)
        blob.write(spelling(marked.word) * 10_000)
        if folder.is_dir():
            (aside,) = folder.glob(f"{blob_id}.*")
            shutil.copy(aside, folder / f"{blob_id}.killed")
        blob.discard()


def subject_of(home: Home, person: Person) -> str:
    """The subject behind a client that is there."""
    query = select(clients.c.subject_id).where(clients.c.client_id == person.client_id)
    with home.stores() as services, reading(services.engine) as conn:
        return str(conn.execute(query).scalar_one())


def spelling(text: str) -> bytes:
    """An update whose tensor spells the text: an encrypted blob must not show it."""
    rows, columns = SHAPES["w"]
    size = rows * columns * 4
    spelt = np.frombuffer(text.encode().ljust(size, b"x")[:size], np.float32).reshape(rows, columns)
    return b"".join(write_safetensors({"b": np.zeros(SHAPES["b"], np.float32), "w": spelt}))


def _signed(key: Ed25519PrivateKey, body: bytes) -> dict[str, str]:
    return {"X_Client_Signature": b64encode(key.sign(sha256(body).digest())).decode()}


def _routes(home: Home, word: str) -> Iterator[tuple[str, str]]:
    """Method and path of every route, with the word for each argument that is text."""
    with home.stores() as services:
        app = create_app(services)
        rules = list(app.url_map.iter_rules())
        close_refusals(app)
    for rule in rules:
        path = _ARGUMENT.sub(lambda found: "1" if found[1] == "int" else word, rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, path


def _bodies(word: str) -> Iterator[dict[str, Any]]:
    names = ("name", "type", "reason", "model_id", "base_version", "public_key", "client_id", "scope", word)
    yield {"json": dict.fromkeys(names, word)}
    yield {"data": dict.fromkeys(names, word)}
    yield {"content": word.encode()}
