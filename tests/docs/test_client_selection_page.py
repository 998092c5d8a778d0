"""docs/client-selection.md: the rounds it shows are opened as they stand there, and the commands run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from living.driver import good
from living.home import home_in
from living.processes import Gateway, gateway_in
from services.checkout import ROOT
from services.pages import blocks, run_shown


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A running gateway on the embedded defaults."""
    with home_in(tmp_path / "home") as home, gateway_in(home) as running:
        yield running


def test_the_page_s_rounds_and_commands_work(gateway: Gateway, tmp_path: Path) -> None:
    """The random round is posted by the shown commands, the Poisson round as its JSON stands."""
    random_round, poisson_round = blocks("client-selection.md", "json")
    (script,) = blocks("client-selection.md", "console")
    operator = gateway.client_add("operator")
    gateway.add_model()
    (tmp_path / "round.json").write_text(random_round, "utf-8")
    shown = re.sub(r"^\$ ", "", script, flags=re.MULTILINE)
    shown = shown.replace("http://127.0.0.1:8080", str(gateway.http.base_url).rstrip("/"))
    environ = {"CLIENT_ID": operator.client_id, "CLIENT_SECRET": operator.client_secret}

    done = run_shown(shown, tmp_path, dict(os.environ) | environ)
    gateway.add_model()
    sampled = gateway.http.post(
        "/api/v1/rounds", json=json.loads(poisson_round), headers=gateway.as_role("operator")
    )

    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    assert (opened["selection"]["strategy"], opened["selection"]["reserves"]) == ("random", 10)
    assert good(sampled, 201)["selection"]["sampling_rate"] == "0.01"


def test_the_page_s_rates_are_those_of_the_policy() -> None:
    """The bounds of the sampling rate."""
    from aggregation.policy import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE

    page = (ROOT / "docs" / "client-selection.md").read_text("utf-8")

    assert f"between {MIN_SAMPLING_RATE:.5f} and {MAX_SAMPLING_RATE}" in page
