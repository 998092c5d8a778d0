"""The operator's evaluation hook: its figures count, its failures cost a round nothing but the figures (RULES 13)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from federation import Federation, file_of, tensors
from flask import Flask
from living.driver import await_that
from services.checkout import ROOT

from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.rounds.evaluation import Evaluation, evaluate
from gateway.services import Services

HOOKS = """
import os, subprocess, sys, time

def good(path):
    with open(path, "rb") as file:
        return {"accuracy": 0.875, "loss": len(file.read()) / 1000}

def talks(path):
    print("a line of the operator's own")
    return {"accuracy": 0.5}

def raises(path):
    raise ValueError(path)

def leaves(path):
    sys.exit(3)

def hangs(path):
    time.sleep(60)

def starts(path):
    child = subprocess.Popen(["sleep", "60"])
    with open(os.path.join(os.path.dirname(path), "pids"), "w") as file:
        print(os.getpid(), child.pid, file=file)
    time.sleep(60)

def nan(path):
    return {"accuracy": float("nan"), "loss": True}

def no_object(path):
    return [0.9]

def secrets(path):
    return {"accuracy": 1.0 * sum(name.startswith("FLG_") for name in os.environ)}
"""


@pytest.fixture(autouse=True)
def _hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the operator's, beside which the gateway was started."""
    (tmp_path / "our_hooks.py").write_text(HOOKS, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FLG_MASTER_KEY", "5a" * 32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(tensors()))
    return path


def test_the_hook_is_given_the_model(model: Path) -> None:
    """Its figures are those it returns; what it prints besides does not disturb."""
    assert evaluate("our_hooks:good", model, timeout_s=30) == Evaluation(0.875, model.stat().st_size / 1000)
    assert evaluate("our_hooks:talks", model, timeout_s=30) == Evaluation(0.5, None)


@pytest.mark.parametrize("hook", ["raises", "leaves", "nan", "no_object", "is_missing"])
def test_a_hook_that_fails_gives_no_figures(model: Path, hook: str) -> None:
    """No exception, no half figure, no NaN in a table."""
    assert evaluate(f"our_hooks:{hook}", model, timeout_s=30) == Evaluation(None, None)


def test_a_hook_that_hangs_is_ended(model: Path) -> None:
    """The round goes on after the time limit."""
    assert evaluate("our_hooks:hangs", model, timeout_s=0.5) == Evaluation(None, None)


def test_a_hook_ends_with_its_gateway(model: Path, tmp_path: Path) -> None:
    """A killed worker leaves no evaluation behind, and nothing that the evaluation started."""
    call = f"from gateway.rounds.evaluation import evaluate; evaluate('our_hooks:starts', {str(model)!r}, timeout_s=60)"
    gateway = subprocess.Popen([sys.executable, "-c", call], cwd=ROOT)
    noted = tmp_path / "pids"
    await_that("the hook is at work", lambda: noted.exists() and noted.read_text().endswith("\n"))
    ends = [os.pidfd_open(int(pid)) for pid in noted.read_text().split()]

    gateway.kill()
    gateway.wait(10)

    for end in ends:
        assert select.select([end], [], [], 10)[0], "a process of the hook goes on"
        os.close(end)


def test_a_hook_sees_none_of_our_secrets(model: Path) -> None:
    """Least privilege: the child's environment has no setting of the gateway."""
    assert evaluate("our_hooks:secrets", model, timeout_s=30) == Evaluation(0.0, None)


def test_no_hook_is_no_evaluation(model: Path) -> None:
    """Evaluation is the operator's choice."""
    assert evaluate("", model, timeout_s=30) == Evaluation(None, None)


def test_a_published_model_bears_the_hook_s_figures(services: Services) -> None:
    """Required: the operator's evaluation hook, within the release."""
    evaluating = replace(services, config=replace(services.config, evaluate="our_hooks:good"))
    app: Flask = create_app(evaluating)
    federation = Federation(evaluating, app.test_client())
    federation.add_model()
    federation.open_round(planned_clients=1)
    federation.submit(federation.register(), file_of(tensors(0.5)))

    federation.work()
    listed = federation.http.get("/api/v1/models", headers=federation.operator).json["data"][0]
    close_refusals(app)

    assert (listed["version"], listed["accuracy"]) == ("1.1.0", 0.875)
