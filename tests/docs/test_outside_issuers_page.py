"""docs/outside-issuers.md: each setting can be read, and each token shown there is worth what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from services.checkout import ROOT
from services.clock import FixedClock
from services.issuer import OutsideIssuer, issuing, new_key, sign
from services.pages import blocks

from gateway.auth.issuers import Provider, parse_issuers
from gateway.auth.issuers.judging import judge_jwt
from gateway.auth.issuers.settings import Introspecting, Issuer
from gateway.auth.jose import Fault, read_jwt
from gateway.auth.jwk import OUTSIDE_ALGORITHMS
from gateway.cli import main

SHOWN = [json.loads(block) for block in blocks("outside-issuers.md", "json")]
SETTINGS = [block for block in SHOWN if isinstance(block, list)]
TOKENS = [block for block in SHOWN if isinstance(block, dict)]
PAGE = (ROOT / "docs" / "outside-issuers.md").read_text("utf-8")


@pytest.fixture(scope="module")
def issuer() -> Iterator[OutsideIssuer]:
    """Signs as the vendors do by default."""
    with issuing(keys=[new_key("vendor", "RS256")]) as running:
        yield running


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting[0]["issuer"])
def test_each_setting_can_be_read(setting: list[dict[str, Any]]) -> None:
    """As it stands there."""
    assert parse_issuers(json.dumps(setting))


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token["claims"]["iss"])
def test_each_token_is_worth_what_the_page_says(
    issuer: OutsideIssuer, clock: FixedClock, token: dict[str, Any]
) -> None:
    """Signed with another key, and otherwise as shown, judged by the recipe above it."""
    (setting,) = (one for (one,) in SETTINGS if one["issuer"] == token["claims"]["iss"])
    (trust,) = parse_issuers(json.dumps([setting]))
    now_s = int(clock().timestamp())
    header = {"typ": None} | token["header"]
    text = sign(issuer.keys[0], token["claims"] | {"iat": now_s, "exp": now_s + 300}, "RS256", **header)
    provider = Provider(trust.issuer, f"{issuer.url}/jwks", algorithms=trust.algorithms)

    judged = judge_jwt(trust, provider, read_jwt(text, OUTSIDE_ALGORITHMS), clock())

    assert {"role": judged.role, "scopes": sorted(judged.scopes)} == token["worth"]
    assert replace(judged).subject == token["claims"][trust.subject_claim]


def test_there_are_three_recipes() -> None:
    """And the page says plainly that they were not run against the vendors' software."""
    assert len(TOKENS) == 3
    assert "not with the vendors' software" in PAGE


def test_every_member_and_every_reason_is_told() -> None:
    """A member of the setting that the page does not name, nobody finds."""
    table = PAGE[PAGE.index("| member |") : PAGE.index("A token never gets")]
    told = set(re.findall(r"`(\w+)`", table))
    reasons = {fault.value for fault in Fault} - {"malformed", "header"}  # such texts never come so far

    assert {field.name for field in fields(Issuer)} <= told
    assert all(f'"{field.name}"' in PAGE for field in fields(Introspecting))
    assert all(f"`{reason}`" in PAGE for reason in reasons)


def test_the_doctor_s_line_is_as_the_page_says(
    issuer: OutsideIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fl-gateway doctor` with the setting in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLG_TRUSTED_ISSUERS", issuer.trusted(algorithms=["RS256"]))

    said = CliRunner().invoke(main, ["doctor"]).output

    (line,) = [line for line in said.splitlines() if "trusted issuers" in line]
    assert "1 of them, with keys or answers" in line
