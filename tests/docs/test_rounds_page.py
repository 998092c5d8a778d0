"""docs/rounds.md: its commands run in their order and print what it shows; its rounds, routes and reasons exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from living.driver import good
from living.home import clean_environment, home_in
from living.processes import Gateway, gateway_in
from services.checkout import ROOT
from services.pages import blocks, run_shown

from gateway.rounds.acceptance import Rejection
from gateway.rounds.coordinator import Failure
from gateway.rounds.record import RoundStatus

_PAGE = (ROOT / "docs" / "rounds.md").read_text("utf-8")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A running gateway with an evaluation hook (of which the acceptance test of no round is asked here)."""
    with home_in(tmp_path / "home", evaluate="json:loads") as home, gateway_in(home) as running:
        yield running


def _run(gateway: Gateway, block: str) -> list[str]:
    """Run a console block; the lines that it shows as output, and that the commands did not print."""
    commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    shown = [line for line in block.splitlines() if not line.startswith("$ ")]
    environ = clean_environment() | gateway.home.environment()
    done = run_shown("\n".join(commands), gateway.home.directory, environ, timeout_s=120)
    assert done.returncode == 0, done.stderr
    return [line for line in shown if line not in done.stdout]


def test_the_page_s_commands_run_in_their_order(gateway: Gateway) -> None:
    """Open, pause, resume, put off, close; the switch; the roll-back."""
    gateway.add_model()
    opened, tested = blocks("rounds.md", "json")
    opening, ordering, switching, rolling_back = blocks("rounds.md", "console")
    (gateway.home.directory / "round.json").write_text(opened, "utf-8")

    unprinted = _run(gateway, opening) + _run(gateway, ordering)
    ended = gateway.await_end(1)
    unprinted += _run(gateway, switching) + _run(gateway, rolling_back)
    with_test = gateway.http.post(
        "/api/v1/rounds", json=json.loads(tested), headers=gateway.as_role("operator")
    )

    assert unprinted == []
    assert (ended["status"], ended["failure"]) == ("failed", "TOO_FEW_UPDATES")
    assert good(with_test, 201)["acceptance"]["max_worsening"] == 0.02


def test_the_page_s_routes_exist(gateway: Gateway) -> None:
    """Each route of the table is in the OpenAPI document."""
    shown = set(re.findall(r"\| `(GET|POST) (/api/v1/[^`]*)`", _PAGE))

    paths = gateway.http.get("/api/v1/openapi.json").json()["paths"]

    assert len(shown) == 7
    assert {(method, path) for method, path in shown if method.lower() not in paths.get(path, {})} == set()


def test_the_page_names_every_state_and_every_reason() -> None:
    """What a round may be, and why it may have failed."""
    missing = [name for name in (*RoundStatus, *Failure, *Rejection) if f"`{name.value}`" not in _PAGE]

    assert missing == []
