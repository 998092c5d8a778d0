"""Scopes that are in no role's bundle: given to one person by name, told by the log, gone with another role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from consent import Tool, add_tool, opens, sign_in, tokens_for
from flask.testing import FlaskClient
from living.home import home_in
from staff import AddMember

from gateway.auth.people.accounts import Proofs, change_person
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.person import person_of
from gateway.auth.scopes import Role, Scope
from gateway.cli import main
from gateway.services import Services

REVEAL = "audit:read audit:reveal"
Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def tool(services: Services) -> Tool:
    """A log viewer that may ask for the scope."""
    return add_tool(services, extra=["audit:reveal"])


def test_the_log_tells_to_whom_it_was_given(
    services: Services, member: AddMember, passwords: Passwords, entries: Entries
) -> None:
    """`user.added` and `user.changed` name the scopes."""
    ada = member("Ada", role="auditor", extra=["audit:reveal"])

    change_person(services, ada.user_id, Proofs(), passwords=passwords, extra=[])

    assert entries("user.added")[0]["details"]["extra_scopes"] == ["audit:reveal"]
    (changed,) = entries("user.changed")
    assert (changed["details"]["changed"], changed["details"]["extra_scopes"]) == (["scopes"], [])


def test_it_ends_with_another_role_and_not_with_another_password(
    services: Services, member: AddMember, passwords: Passwords
) -> None:
    """Whoever becomes an operator keeps nothing of what an auditor was given."""
    ada = member("Ada", role="auditor", extra=["audit:reveal"])
    found = []

    for role, extra in ((None, None), (Role.OPERATOR, None), (Role.DPO, ["audit:reveal"])):
        proofs = Proofs("another horse of that colour") if role is None else Proofs()
        change_person(services, ada.user_id, proofs, role=role, passwords=passwords, extra=extra)
        person = person_of(services, ada.user_id)
        assert person is not None
        found.append(Scope.AUDIT_REVEAL in person.scopes)

    assert found == [True, False, True]


def test_a_tool_gets_it_if_it_asks_by_name_and_tool_and_person_have_it(
    services: Services, http: FlaskClient, member: AddMember, tool: Tool
) -> None:
    """Nobody allows a tool more than they may do themselves, and no tool comes by it in passing."""
    granted = {}

    for name, extra in (("Ada", ["audit:reveal"]), ("Eve", [])):
        sign_in(http, services, member(name, role="auditor", has_totp=False, extra=extra))
        granted[name] = [tokens_for(http, tool, scope=scope)["scope"] for scope in (REVEAL, None)]

    assert granted == {"Ada": [REVEAL, "audit:read"], "Eve": ["audit:read", "audit:read"]}


def test_taking_it_back_ends_what_tools_have(
    services: Services, http: FlaskClient, member: AddMember, tool: Tool, passwords: Passwords
) -> None:
    """As every change of a person does: tokens end with the commit."""
    ada = member("Ada", role="auditor", has_totp=False, extra=["audit:reveal"])
    sign_in(http, services, ada)
    token = tokens_for(http, tool, scope=REVEAL)["access_token"]
    before = opens(http, token)

    change_person(services, ada.user_id, Proofs(), passwords=passwords, extra=[])

    assert (before, opens(http, token)) == (True, False)


def test_the_command_line_gives_takes_and_refuses_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`--scope` at `user add`, `user change` and `client add`; `--no-scopes`; a scope that is not for the role."""
    with home_in(tmp_path_factory.mktemp("scopes")) as home:
        secret = home.directory / "password.txt"
        secret.write_text("a horse of another colour\n")

        def give(*words: str) -> Result:
            return CliRunner().invoke(main, [*words], env=home.environment())

        proof = ("--password-file", str(secret), "--no-totp")
        added = give("user", "add", "Ada", "--role", "auditor", *proof, "--scope", "audit:reveal")
        taken = give("user", "change", "Ada", "--no-scopes")
        both = give("user", "change", "Ada", "--no-scopes", "--scope", "audit:reveal")
        wrong = give("user", "add", "Olga", "--role", "operator", *proof, "--scope", "audit:reveal")
        tool = give("client", "add", "viewer", "--role", "auditor", "--scope", "audit:reveal")
        siem = give("client", "add", "siem", "--role", "siem", "--scope", "audit:reveal")

    assert "audit:read audit:reveal" in added.output
    assert taken.exit_code == 0
    assert "audit:read audit:reveal" in tool.output
    for refused in (both, wrong, siem):
        assert refused.exit_code == 2, refused.output
    assert "dpo may get audit:read, audit:reveal" in wrong.output
