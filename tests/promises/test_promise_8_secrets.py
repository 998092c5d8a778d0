"""Promise 8: no secret is stored in clear or logged."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256

import pytest
from living.driver import BUDGET, good, tensors
from living.home import Home, clean_environment
from living.processes import gateway_in
from living.threads import LocalGateway

from compliance.keyring.keys import SigningUse
from gateway.auth.scopes import Role


def test_no_secret_is_in_any_byte_we_keep(gateway: LocalGateway) -> None:
    """Client secrets, API keys, tokens, signing keys, the master key, a round's seed: none of them, in no form."""
    gateway.add_model(budget=BUDGET)
    secrets = dict(_secrets_of_clients(gateway))
    person = gateway.register()
    secrets["registration token"] = person.token
    gateway.open_round()
    gateway.send(person, 1, b"refused")
    for header in ("Bearer wrong " + person.token, f"Basic {person.token}", person.token):
        gateway.http.get("/api/v1/rounds", headers={"Authorization": header})
    gateway.http.get(f"/api/v1/rounds?access_token={person.token}")
    secrets |= _keys(gateway.home)

    kept = gateway.home.every_byte_kept()

    found = [name for name, value in secrets.items() if any(form in kept for form in _forms(value))]
    assert found == []
    assert sha256(person.token.encode()).hexdigest().encode() in kept  # the search looks in the right place


def test_no_answer_repeats_a_secret(gateway: LocalGateway) -> None:
    """A problem document is made from codes and declared facts: what was sent does not come back."""
    new = gateway.client_add("participant")
    person = gateway.register()
    wrong_secret = {"grant_type": "client_credentials", "client_secret": new.client_secret + "x"}
    token = f"{person.token}x"

    answers = [
        gateway.http.post("/oauth/token", data=wrong_secret | {"client_id": new.client_id}),
        gateway.http.get("/api/v1/rounds", headers={"Authorization": f"Bearer {token}"}),
        gateway.http.get(f"/api/v1/rounds?access_token={token}", headers=person.headers),
        gateway.http.get(f"/api/v1/{token}", headers=person.headers),
        gateway.http.post("/api/v1/rounds", json={"privacy": token}, headers=gateway.as_role("operator")),
        gateway.http.post("/api/v1/rounds/1/updates", content=token.encode(), headers=person.headers),
        gateway.send(person, 1, tensors(1), X_Client_Signature=token, X_Update_Metadata=token),
    ]

    assert all(answer.status_code >= 400 for answer in answers)
    texts = [answer.text + str(answer.headers) for answer in answers]
    assert not [text for text in texts if person.token in text or new.client_secret in text]


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_a_served_gateway_logs_no_secret_and_keeps_its_keys_to_its_owner(home: Home) -> None:
    """Standard output and error of the process tree, and the modes of the master key, the key store and the state."""
    with gateway_in(home) as gateway:
        person = gateway.register()
        gateway.http.get(f"/api/v1/rounds?access_token={person.token}")
        gateway.http.get("/api/v1/rounds", headers=person.headers)
        gateway.send(person, 1, b"x", X_Update_Metadata=person.token)
        secrets = [person.token, *(value for _, value in _secrets_of_clients(gateway))]
        gateway.stop()
        written = gateway.log() + "".join(path.read_text() for path in home.directory.glob("serve-*.out"))

    keys = home.directory / "keys"
    open_to_others = [path for path in (keys, *keys.rglob("*")) if path.is_dir() and _others_may(path)]
    assert not [secret for secret in secrets if secret in written]
    assert open_to_others == []
    assert "Traceback" not in written


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_the_master_key_that_is_made_is_for_its_owner_alone(home: Home) -> None:
    """`./keys/master.key`, 0600; a key that others can read is refused at the start."""
    bare = home.environment()
    del bare["FLG_MASTER_KEY"]
    made = home.directory / "keys" / "master.key"

    first = _run_with(home, bare)
    mode = stat.S_IMODE(made.stat().st_mode)
    made.chmod(0o644)
    second = _run_with(home, bare)

    assert first[0] == 0, first
    assert mode == 0o600
    assert second[0] == 2
    assert "chmod 600" in second[1]
    assert made.read_text() not in second[1]


def _secrets_of_clients(gateway) -> Iterator[tuple[str, str]]:  # type: ignore[no-untyped-def]
    for role in Role:
        new = gateway.client_add(role.value)
        yield f"secret of a {role}", new.client_secret
        if new.api_key:
            yield f"API key of a {role}", new.api_key
        form = {"grant_type": "client_credentials"}
        answer = gateway.http.post("/oauth/token", data=form, auth=(new.client_id, new.client_secret))
        yield f"token of a {role}", good(answer, 200)["access_token"]


def _keys(home: Home) -> dict[str, bytes]:
    """The private keys, the master key, and the seed of the open round."""
    with home.stores() as services:
        store = services.keystore
        found = {f"{use} key": store.signing_key(use).private.private_bytes_raw() for use in SigningUse}
        found |= {f"seed {seed}": store.open_seed(seed) for seed in store.seeds()}
        subject_keys = [store.find(key.key_id) for key in store.keys_of("system")]
        found |= {f"subject key {key.key_id}": key.secret for key in subject_keys if key}
    return found | {"master key": bytes.fromhex("5a" * 32)}


def _forms(value: str | bytes) -> list[bytes]:
    """How a secret might be written down."""
    if isinstance(value, str):
        return [value.encode(), base64.b64encode(value.encode())]
    plain = base64.b64encode(value)
    return [value, value.hex().encode(), plain, plain.rstrip(b"=").translate(bytes.maketrans(b"+/", b"-_"))]


def _others_may(path) -> bool:  # type: ignore[no-untyped-def]
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _run_with(home: Home, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "client", "list"],
        cwd=home.directory,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr
