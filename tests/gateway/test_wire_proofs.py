"""The wire forms of models, updates, the log, data protection and the command line, against a real gateway."""

from __future__ import annotations

import base64
import json
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from typing import Any

import click
import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from living.served import (
    GAUSSIAN,
    MAX_UPDATE_BYTES,
    MECHANISM_NONE,
    Served,
    assert_problem,
    checksum,
    eventually,
    jws_part,
    public_key,
    update_of,
    verify_jws,
)

from aggregation.wire import write_safetensors
from gateway.cli import main


def test_a_model_is_served_as_uploaded_whole_or_in_part(served: Served) -> None:
    """API.md: ETag is the quoted checksum; Range; the bytes as uploaded."""
    made = served.add_model().json()
    operator, url = served.staff("operator"), f"/api/v1/models/{made['version']}"

    whole = served.http.get(url, headers=operator)
    part = served.http.get(url, headers=operator | {"Range": "bytes=4-9"})
    same = served.http.get(url, headers=operator | {"If-None-Match": whole.headers["ETag"]})
    other = served.http.get(url, headers=operator | {"If-Match": '"another"'})
    beyond = served.http.get(url, headers=operator | {"Range": "bytes=100000-"})

    assert set(made) == {"model_id", "version", "checksum", "size_bytes"}
    assert whole.content == update_of(0.0)
    assert whole.headers["ETag"] == f'"{made["checksum"]}"'
    assert whole.headers["X-Model-Checksum"] == made["checksum"]
    assert whole.headers["X-Model-Version"] == made["version"]
    assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert part.headers["Content-Range"] == f"bytes 4-9/{len(whole.content)}"
    assert (same.status_code, same.content) == (304, b"")
    assert_problem(other, 412, "PRECONDITION_FAILED")
    assert_problem(beyond, 416, "RANGE_NOT_SATISFIABLE")


def test_a_model_with_bad_metadata_is_refused(served: Served) -> None:
    """The header is parsed as strictly as a body, and named."""
    for text in ('{"name":"a","name":"b"}', "nope", '{"name":"m","privacy_budget":{"epsilon":1e400}}'):
        answer = served.add_model(headers={"X-Model-Metadata": text})

        told = assert_problem(answer, 422, "VALIDATION_FAILED")
        assert told["errors"][0]["pointer"].startswith("X-Model-Metadata")


def test_every_post_that_creates_honours_an_idempotency_key(served: Served) -> None:
    """API.md, Common: same body, the first answer again; another body, 422 IDEMPOTENCY_KEY_REUSED."""
    operator, dpo = served.staff("operator"), served.staff("dpo")
    client_id, silo = served.register()
    version = served.add_model().json()["version"]
    wish = {"base_version": version, "planned_clients": 2, "min_clients": 1, "privacy": MECHANISM_NONE}
    ask = {"type": "access", "subject": {"client_id": client_id}}
    model = update_of(0.0)
    calls: list[tuple[str, dict[str, str], bytes, bytes]] = [
        ("/api/v1/clients/register", operator, b'{"device_id":"a"}', b'{"device_id":"b"}'),
        ("/api/v1/models", operator | {"X-Model-Checksum": checksum(model)}, model, update_of(9.0)),
        (
            "/api/v1/rounds",
            operator,
            json.dumps(wish).encode(),
            json.dumps(wish | {"min_clients": 2}).encode(),
        ),
        ("/api/v1/privacy/requests", dpo, json.dumps(ask).encode(), b'{"type":"erasure"}'),
    ]

    for path, headers, body, another in calls:
        sent = {"Content-Type": "application/json", "Idempotency-Key": "k"} | headers
        first = served.http.post(path, content=body, headers=sent)
        second = served.http.post(path, content=body, headers=sent)
        reused = served.http.post(path, content=another, headers=sent)

        assert first.status_code == second.status_code == 201, first.text
        assert first.json() == second.json()
        assert_problem(reused, 422, "IDEMPOTENCY_KEY_REUSED")
    number = served.http.get("/api/v1/rounds/current", headers=silo).json()["round_number"]
    first, second = (served.send(number, silo | {"Idempotency-Key": "k"}) for _ in "ab")
    assert (first.status_code, first.json()) == (202, second.json())
    assert_problem(
        served.send(number, silo | {"Idempotency-Key": "k"}, update_of(2)), 422, "IDEMPOTENCY_KEY_REUSED"
    )
    assert_problem(served.send(number, silo), 409, "DUPLICATE_UPDATE")


def test_limited_routes_tell_the_limit_and_keep_it(served: Served) -> None:
    """API.md, Common: per client, 20 a minute for rounds; the reset in epoch seconds; operators have none."""
    _, silo = served.register()

    first, *_, last = [served.http.get("/api/v1/rounds", headers=silo) for _ in range(21)]

    assert first.headers["X-RateLimit-Limit"] == "20"
    assert first.headers["X-RateLimit-Remaining"] == "19"
    assert 0 < int(first.headers["X-RateLimit-Reset"]) - time.time() < 61
    assert_problem(last, 429, "RATE_LIMITED")
    assert last.headers["X-RateLimit-Remaining"] == "0"
    assert 0 < int(last.headers["Retry-After"]) <= 60
    unlimited = served.http.get("/api/v1/rounds", headers=served.staff("operator"))
    assert "X-RateLimit-Limit" not in unlimited.headers


def test_too_large_an_update_is_refused_by_its_length_alone(served: Served) -> None:
    """413 before the body is read: from Content-Length alone, or as soon as a chunked body passes the limit."""
    number = served.ask_round().json()["round_number"]
    (_, silo), (_, raw) = served.register(), served.register()
    head = f"POST /api/v1/rounds/{number}/updates HTTP/1.1\r\nHost: gateway\r\nAuthorization: {raw['Authorization']}"
    head += f"\r\nX-Update-Checksum: {'0' * 64}\r\nContent-Length: {{}}\r\n\r\n"
    body = update_of()

    announced = served.raw(head.format(10**12).encode())
    cut = served.raw(head.format(1000).encode() + b"abc", then_closed=True)
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as once:
        whole = once.post(
            f"/api/v1/rounds/{number}/updates",
            content=b"x" * (MAX_UPDATE_BYTES + 1),
            headers=silo | {"X-Update-Checksum": "0" * 64},
        )
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as once:
        chunked = once.post(
            f"/api/v1/rounds/{number}/updates",
            content=iter([body[:-1], body[-1:]]),
            headers=silo | {"X-Update-Checksum": checksum(body)},
        )

    assert announced.startswith(b"HTTP/1.1 413 ")
    assert b'"PAYLOAD_TOO_LARGE"' in announced
    assert cut.startswith(b"HTTP/1.1 400 ")
    assert b'"TRUNCATED_BODY"' in cut
    assert_problem(whole, 413, "PAYLOAD_TOO_LARGE")
    assert chunked.status_code == 202, chunked.text


@pytest.mark.parametrize(
    ("metadata", "status"),
    [('{"loss":0.5,"n":3}', 202), ('{"a":1e400}', 422), ('{"a":"\\ud800"}', 422), ('{"a":1,"a":2}', 422)],
)
def test_update_metadata_is_a_json_object(served: Served, metadata: str, status: int) -> None:
    """X-Update-Metadata is parsed as strictly as a body."""
    number = served.ask_round().json()["round_number"]
    _, silo = served.register()

    answer = served.send(number, silo | {"X-Update-Metadata": metadata})

    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("body", "tensor"),
    [
        (b"\x80\x04N.", None),
        (update_of()[:-1], "w"),
        (update_of(float("nan")), "w"),
        (update_of(float("inf")), "w"),
        (b"".join(write_safetensors({"w": np.zeros((4, 4), np.float32)})), "w"),
        (b"".join(write_safetensors({"w": np.zeros((4, 3), np.float64)})), "w"),
    ],
)
def test_a_bad_update_is_refused_and_its_tensor_named(
    served: Served, body: bytes, tensor: str | None
) -> None:
    """Bad input: pickle, truncated, NaN, Inf, wrong shape; wrong, missing and malformed checksums."""
    number = served.ask_round().json()["round_number"]
    _, silo = served.register()

    told = assert_problem(served.send(number, silo, body), 422, "INVALID_MODEL_FORMAT")
    mismatch = served.send(number, silo | {"X-Update-Checksum": "0" * 64})

    assert told["error"]["details"]["tensor"] == tensor
    assert_problem(mismatch, 422, "CHECKSUM_MISMATCH")
    unsaid = served.http.post(f"/api/v1/rounds/{number}/updates", content=body, headers=silo)
    assert_problem(unsaid, 400, "CHECKSUM_MISSING")


def test_a_receipt_becomes_a_proof(served: Served) -> None:
    """API.md, Receipts: a JWS whose kid is in jwks.json; 202 until sequenced, then a C2SP tlog-proof."""
    number = served.ask_round(planned_clients=2).json()["round_number"]
    _, silo = served.register()
    _, stranger = served.register()
    sent = served.send(number, silo).json()
    url = f"/api/v1/updates/{sent['update_id']}"

    proof = eventually(
        lambda: (
            answer if (answer := served.http.get(f"{url}/receipt", headers=silo)).status_code == 200 else None
        )
    )

    claims = jws_part(sent["receipt"], 1)
    verify_jws(served, sent["receipt"])
    assert jws_part(sent["receipt"], 0)["typ"] == "fl-receipt+jwt"
    assert set(claims) == {"entry_id", "entry_digest", "body_hash", "received_at", "origin", "max_delay"}
    assert (claims["body_hash"], claims["max_delay"]) == (checksum(update_of()), 86_400)
    first, extra, index, *_ = proof.text.split("\n")
    entry = json.loads(base64.b64decode(extra.removeprefix("extra ")))
    assert proof.headers["Content-Type"].startswith("text/plain")
    assert first == "c2sp.org/tlog-proof@v1"
    assert index == f"index {entry['seq']}"
    assert entry["id"] == claims["entry_id"]
    assert served.http.get(url, headers=silo).json()["receipt"] == sent["receipt"]
    assert_problem(served.http.get(url, headers=stranger), 404, "NOT_FOUND")


def test_the_log_is_read_over_http_and_verified_at_home(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API.md, Receipts and DESIGN, audit bundle: entries, proofs, checkpoint, bundle; exit codes 0, 1, 2."""
    auditor, directory = served.staff("auditor"), served.directory

    def read(path: str) -> httpx.Response:
        return served.http.get(f"/api/v1/audit/{path}", headers=auditor)

    eventually(lambda: read("entries").json()["data"])

    bundle = read("bundle")
    (directory / "bundle.zip").write_bytes(bundle.content)
    with zipfile.ZipFile(BytesIO(bundle.content)) as packed:
        names, lines = packed.namelist(), packed.read("entries.jsonl").split(b"\n")[:-1]
        with zipfile.ZipFile(directory / "spoilt.zip", "w") as spoilt:
            for name in names:
                content = packed.read(name)
                spoilt.writestr(name, content.replace(b'"seq":3,', b'"seq":4,', 1))
    commands = (
        ("verify", "bundle.zip", "--json"),
        ("verify", "spoilt.zip", "--json"),
        ("verify", "nothing.zip"),
    )
    with ThreadPoolExecutor(len(commands)) as at_once:
        ran = at_once.map(lambda words: served.command("audit", *words), commands)
    verified, refused, missing = ran
    monkeypatch.chdir(directory)  # these three in this process: starting one takes a second
    proved, exported, checkpoint = (
        CliRunner().invoke(main, ["audit", *words, "--json"])
        for words in (["prove", "1"], ["export", "-o", "again.zip"], ["checkpoint"])
    )

    assert [entry["seq"] for entry in read("entries?limit=2").json()["data"]] == [0, 1]
    assert [entry["seq"] for entry in read("entries?after=1&limit=2").json()["data"]] == [2, 3]
    assert [entry["seq"] for entry in read("entries?page=2&per_page=2").json()["data"]] == [2, 3]
    assert read("entries/0").content == lines[0]
    assert set(read("proof/inclusion?seq=0&size=3").json()) == {"hashes"}
    assert set(read("proof/consistency?from=2&to=4").json()) == {"hashes"}
    assert_problem(read("proof/inclusion?seq=5&size=3"), 422, "VALIDATION_FAILED")
    assert_problem(read("entries/999999999999999999999"), 404, "NOT_FOUND")
    assert read("checkpoint").headers["Content-Type"].startswith("text/plain")
    assert set(names) == {"checkpoint", "entries.jsonl", "keys/log.vkey", "README.txt"}
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (0, True)
    assert (refused.returncode, json.loads(refused.stdout)["first_bad_seq"]) == (1, 3)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert json.loads(proved.stdout)["proof"].startswith("c2sp.org/tlog-proof@v1\n")
    assert json.loads(exported.stdout)["entries"] >= len(lines)
    assert json.loads(checkpoint.stdout)["checkpoint"].count("\n\n") == 1


def test_a_person_is_told_and_erased(served: Served) -> None:
    """API.md, Privacy: the package's signed manifest, the receipt, and 401 for the erased from then on."""
    client_id, silo = served.register(device_id="the-device")
    dpo, url = served.staff("dpo"), "/api/v1/privacy/requests"
    subject = {"subject": {"client_id": client_id}}

    access = served.http.post(url, json={"type": "access", **subject}, headers=dpo)
    package = served.http.get(f"{url}/{access.json()['id']}/package", headers=dpo)
    erasure = served.http.post(url, json={"type": "erasure", **subject}, headers=dpo)
    receipt = served.http.get(f"{url}/{erasure.json()['id']}/receipt", headers=dpo)
    unnamed = served.http.post(url, json={"type": "access", "subject": {}}, headers=dpo)

    assert access.status_code == erasure.status_code == 201
    assert {"id", "type", "status", "due_at", "version"} <= set(access.json())
    with zipfile.ZipFile(BytesIO(package.content)) as packed:
        manifest = packed.read("manifest.json")
        key = public_key(served, json.loads(manifest)["kid"])
        key.verify(base64.b64decode(packed.read("manifest.sig")), manifest)
        for file in json.loads(manifest)["files"]:
            assert set(file) == {"path", "bytes", "sha256", "rows", "article"}
            assert sha256(packed.read(file["path"])).hexdigest() == file["sha256"]
        assert any(b"the-device" in packed.read(name) for name in packed.namelist())
    assert jws_part(receipt.text, 0)["typ"] == "fl-erasure+jwt"
    verify_jws(served, receipt.text)
    assert_problem(served.http.get("/api/v1/rounds", headers=silo), 401, "UNAUTHORIZED")
    assert_problem(unnamed, 422, "VALIDATION_FAILED")
    gone = served.http.get(f"{url}/{access.json()['id']}/package", headers=dpo)
    assert gone.status_code == 404


def test_a_release_is_reported(served: Served) -> None:
    """API.md, Privacy: the budget and a report in decimal strings, with the terms of the claim."""
    budget = {"epsilon": 3.0, "delta": 1e-5}
    version = served.add_model(privacy_budget=budget).json()["version"]
    asked = served.ask_round(base_version=version, privacy=GAUSSIAN | {"epsilon": 2.0}).json()
    _, silo = served.register()
    served.send(asked["round_number"], silo)
    operator, auditor = served.staff("operator"), served.staff("auditor")

    def ended() -> dict[str, Any] | None:
        found = served.http.get(f"/api/v1/rounds/{asked['round_number']}", headers=operator).json()
        return found if found["status"] in ("completed", "failed") else None

    result = eventually(ended)["result_model"]
    report = served.http.get(f"/api/v1/privacy/report/{result['version']}", headers=auditor).json()
    lines = served.http.get("/api/v1/privacy/budget", headers=auditor).json()["data"]

    terms = {"epsilon", "delta", "unit", "mechanism", "adjacency", "planned_clients"}
    assert terms <= set(report)
    assert 0 < float(report["epsilon"]) <= 2.0
    line = next(line for line in lines if line["model_id"] == result["model_id"])
    assert {"model_id", "epsilon_budget", "epsilon_spent", "delta"} <= set(line)
    assert all(isinstance(line[name], str) for name in ("epsilon_budget", "epsilon_spent", "delta"))


def _leaves(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of every command below."""
    if not isinstance(command, click.Group):
        yield names
        return
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        assert found is not None
        yield from _leaves(found, *names, name)


def test_every_command_has_help_and_refuses_wrong_usage() -> None:
    """DESIGN, CLI: `--help` exits 0, wrong usage 2."""
    for names in _leaves(main):
        assert CliRunner().invoke(main, [*names, "--help"]).exit_code == 0, names
        assert CliRunner().invoke(main, [*names, "--no-such-option"]).exit_code == 2, names
