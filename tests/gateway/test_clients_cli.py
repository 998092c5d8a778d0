"""`fl-gateway client` on the embedded database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from proof_keys import jwk

from gateway.cli.client import client


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with nothing configured."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(client, arguments)


def test_a_client_is_added_listed_and_moved(folder: Path) -> None:
    """DESIGN, CLI: add prints {client_id, client_secret, api_key?}; a name is as good as the id."""
    added = json.loads(run("add", "hospital-a", "--role", "participant", "--json").stdout)
    auditor = json.loads(run("add", "auditor", "--role", "auditor", "--json").stdout)

    assert set(added) == {"client_id", "client_secret", "api_key"}
    assert set(auditor) == {"client_id", "client_secret"}
    for command, status in (("suspend", "suspended"), ("resume", "active"), ("revoke", "revoked")):
        assert json.loads(run(command, "hospital-a", "--json").stdout)["status"] == status
    listed = json.loads(run("list", "--json").stdout)
    assert [(row["name"], row["role"], row["status"]) for row in listed] == [
        ("hospital-a", "participant", "revoked"),
        ("auditor", "auditor", "active"),
    ]
    assert added["client_secret"] not in run("list").stdout


def test_wrong_usage_ends_with_2(folder: Path) -> None:
    """An unknown role, an unknown client, a move that is not allowed."""
    run("add", "a", "--role", "auditor")
    run("revoke", "a")

    assert run("add", "b", "--role", "king").exit_code == 2
    assert run("add", "", "--role", "auditor").exit_code == 2
    assert run("suspend", "nobody").exit_code == 2
    assert run("resume", "a").exit_code == 2


def _file(folder: Path, *keys: dict[str, Any]) -> str:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps({"keys": keys}))
    return str(path)


def test_a_client_with_keys_or_a_certificate_has_no_secret(folder: Path) -> None:
    """API.md, Identity: --auth, --jwks, --subject-dn, --token, --redirect-uri; an operator still gets its API key."""
    keys = ("--auth", "private_key_jwt", "--jwks", _file(folder, jwk("Ed25519")))
    dn = ("--auth", "tls_client_auth", "--subject-dn", "CN=silo-a", "--token", "jwt")
    more = ("--redirect-uri", "https://tool.example/back", "--redirect-uri", "http://127.0.0.1/back")

    signing = json.loads(run("add", "signing", "--role", "operator", *keys, "--json").stdout)
    tls = json.loads(run("add", "tls", "--role", "dpo", *dn, *more, "--json").stdout)

    assert (set(signing), set(tls)) == ({"client_id", "api_key"}, {"client_id"})
    listed = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert [listed["signing"][name] for name in _SHOWN] == ["private_key_jwt", "opaque", []]
    assert [listed["tls"][name] for name in _SHOWN] == ["tls_client_auth", "jwt", list(more[1::2])]


_SHOWN = ("auth_method", "token_format", "redirect_uris")


_WRONG = (
    ("--auth private_key_jwt", "needs --jwks"),
    ("--auth self_signed_tls_client_auth", "needs --jwks"),
    ("--auth tls_client_auth", "needs --subject-dn"),
    ("--auth tls_client_auth --subject-dn silo", "RFC 4514"),
    ("--auth tls_client_auth --subject-dn CN=a --jwks good.json", "takes no --jwks"),
    ("--auth private_key_jwt --jwks good.json --subject-dn CN=a", "takes no --subject-dn"),
    ("--jwks good.json", "takes no --jwks"),
    ("--subject-dn CN=a", "takes no --subject-dn"),
    ("--auth private_key_jwt --jwks private.json", "is secret"),
    ("--auth private_key_jwt --jwks missing.json", "cannot be read"),
    ("--auth private_key_jwt --jwks text.json", "no JSON"),
    ("--auth private_key_jwt --jwks long.json", "too long"),
    ("--auth registration_token", "is not one of"),
    ("--auth none", "is not one of"),
    ("--token paseto", "is not one of"),
    ("--redirect-uri http://tool.example/back", "Redirect URI 1"),
    ("--redirect-uri https://a.example/ --redirect-uri https://a.example/#x", "Redirect URI 2"),
    ("--redirect-uri /back", "Redirect URI 1"),
    ("--redirect-uri https://a.example/ --redirect-uri https://a.example/", "each once"),
)


def test_what_does_not_go_together_is_said(folder: Path) -> None:
    """Exit 2, one sentence, and no client."""
    (folder / "good.json").write_text(json.dumps({"keys": [jwk("Ed25519")]}))
    (folder / "private.json").write_text(json.dumps({"keys": [jwk("Ed25519", d="canary")]}))
    (folder / "text.json").write_text("canary")
    (folder / "long.json").write_text(" " * 300_000)

    for words, said in _WRONG:
        done = run("add", "a", "--role", "auditor", *words.split())

        assert done.exit_code == 2, words
        assert said in done.stderr, words
        assert "canary" not in done.output
    assert json.loads(run("list", "--json").stdout) == []


def test_a_changed_proof_takes_the_place_of_the_old_one(folder: Path) -> None:
    """A new secret, which is shown once; new redirect URIs; and what the client does not have cannot be changed."""
    old = json.loads(run("add", "a", "--role", "auditor", "--json").stdout)
    run("add", "b", "--role", "auditor", "--auth", "tls_client_auth", "--subject-dn", "CN=b")

    rotated = json.loads(run("change", "a", "--rotate-secret", "--json").stdout)
    moved = json.loads(
        run("change", "b", "--subject-dn", "CN=c", "--redirect-uri", "https://b.example/", "--json").stdout
    )
    run("change", "b", "--no-redirect-uris")

    assert rotated["changed"] == ["secret"]
    assert rotated["client_secret"] not in ("", old["client_secret"])
    assert moved["changed"] == ["subject_dn", "redirect_uris"]
    assert json.loads(run("list", "--json").stdout)[1]["redirect_uris"] == []
    for words in (
        "a",
        "b --rotate-secret",
        "a --subject-dn CN=x",
        "a --jwks none.json",
        "b --redirect-uri x",
        "c --rotate-secret",
    ):
        assert run("change", *words.split()).exit_code == 2, words


def test_no_secret_is_made_and_then_not_shown(folder: Path) -> None:
    """An auditor has no API key to change: that must not be found out after its secret has become another."""
    run("add", "a", "--role", "auditor")

    done = run("change", "a", "--rotate-secret", "--rotate-api-key")

    assert done.exit_code == 2
    assert "alone" in done.stderr


def test_a_name_says_nothing_to_the_terminal(folder: Path) -> None:
    """Whoever has an API key names its devices: an escape sequence of theirs is printed as what it is, nothing."""
    run("add", "a\x1b[2Jb\nc\u202ed", "--role", "auditor")

    (line,) = run("list").stdout.splitlines()

    assert line.endswith("a?[2Jb?c?d")


@pytest.mark.parametrize("command", ["add", "list", "change", "suspend", "resume", "revoke"])
def test_every_command_has_help(command: str) -> None:
    """DESIGN: every command has --help."""
    assert "Usage:" in run(command, "--help").output
