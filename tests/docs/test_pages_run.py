"""What the pages show is run as it stands there, against a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from living.home import clean_environment, home_in
from living.processes import Gateway, gateway_in
from services.pages import blocks, run_shown


@pytest.fixture
def gateway(tmp_path: Path) -> object:
    """A running gateway on the embedded defaults."""
    with home_in(tmp_path / "home") as home, gateway_in(home) as running:
        yield running


def test_the_client_page_s_program_takes_part_in_a_round(gateway: Gateway, tmp_path: Path) -> None:
    """docs/client.md: the whole way, from registration to the proof."""
    participant = gateway.client_add("participant")
    gateway.add_model()
    gateway.ask_round({"mechanism": "none"}, planned_clients=1, min_clients=1)
    (program,) = blocks("client.md", "python")
    environ = {"GATEWAY_URL": str(gateway.http.base_url), "API_KEY": str(participant.api_key)}

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment() | environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "c2sp.org/tlog-proof@v1" in done.stdout
    assert gateway.await_end(1)["num_updates"] == 1


def test_the_operator_page_s_round_is_opened(gateway: Gateway, tmp_path: Path) -> None:
    """docs/operator.md: get a token and open a round with curl, as shown."""
    operator = gateway.client_add("operator")
    gateway.add_model()
    (block,) = [one for one in blocks("operator.md", "console") if "/oauth/token" in one]
    script = block.replace("$ TOKEN", "TOKEN").replace("$ curl", "curl")
    script = script.replace("http://127.0.0.1:8080", str(gateway.http.base_url).rstrip("/"))
    environ = {"CLIENT_ID": operator.client_id, "CLIENT_SECRET": operator.client_secret}

    done = run_shown(script, tmp_path, dict(os.environ) | environ)

    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    assert (opened["status"], opened["privacy"]["mechanism"]) == ("active", "gaussian")
