"""The CI workflow: section 5.1 of the specification, with today's care."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from services.checkout import ROOT

Mapping = dict[str, Any]

_DEPLOYMENT = "kubectl set image deployment/fl-orchestrator orchestrator="


@pytest.fixture(scope="module")
def workflow() -> Mapping:
    parsed: Mapping = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    return parsed


def _steps(workflow: Mapping) -> list[Mapping]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def _commands(job: Mapping) -> str:
    return " ".join(" ".join(step.get("run", "") for step in job["steps"]).replace("\\\n", " ").split())


def test_the_jobs_follow_one_another(workflow: Mapping) -> None:
    """Nothing untested is built, nothing unbuilt is deployed (5.1)."""
    jobs = workflow["jobs"]

    assert workflow["name"] == "FL Platform CI/CD"
    assert list(jobs) == ["test", "coverage", "build", "deploy"]
    assert jobs["coverage"]["needs"] == jobs["build"]["needs"] == "test"
    assert jobs["deploy"]["needs"] == "build"


def test_the_jobs_do_what_the_specification_says(workflow: Mapping) -> None:
    """5.1: run the tests; build and push `fl-platform:SHA`; set the image of `fl-orchestrator`."""
    test, build, deploy = (_commands(workflow["jobs"][name]) for name in ("test", "build", "deploy"))

    assert ".ci/run" in test
    assert "docker build -f deploy/Dockerfile -t fl-platform:${{ github.sha }} ." in build
    assert "docker push" in build
    assert _DEPLOYMENT in deploy
    assert "kubectl rollout status deployment/fl-orchestrator" in deploy


def test_every_action_is_pinned_by_commit(workflow: Mapping) -> None:
    """A tag can be moved by whoever takes over an action's repository; a commit cannot."""
    used = [step["uses"] for step in _steps(workflow) if "uses" in step]

    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40}", action) for action in used)


def test_no_job_may_do_more_than_it_needs(workflow: Mapping) -> None:
    """The token may read the repository where it is checked out, and nothing else."""
    permissions = [job["permissions"] for job in workflow["jobs"].values()]

    assert workflow["permissions"] == {}
    assert all(granted in ({}, {"contents": "read"}) for granted in permissions)


def test_the_checkout_keeps_no_credentials(workflow: Mapping) -> None:
    """What the tests run cannot find the token in `.git/config`."""
    checkouts = [step for step in _steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]

    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("secret", ["REGISTRY_TOKEN", "KUBECONFIG"])
def test_secrets_are_used_only_for_pushes_to_main(workflow: Mapping, secret: str) -> None:
    """A pull request neither pushes an image nor reaches the cluster."""
    jobs = workflow["jobs"].values()
    users = [
        (job.get("if", "") + step.get("if", ""))
        for job in jobs
        for step in job["steps"]
        if f"secrets.{secret}" in str(step)
    ]

    assert users
    assert all("github.ref == 'refs/heads/main'" in condition for condition in users)
    assert all("github.event_name == 'push'" in condition for condition in users)


def test_no_expression_stands_inside_a_script(workflow: Mapping) -> None:
    """Text from outside reaches scripts through the environment and is never run (a commit id is none)."""
    scripts = " ".join(step.get("run", "") for step in _steps(workflow))

    expressions = set(re.findall(r"\$\{\{\s*(.*?)\s*\}\}", scripts))

    assert expressions <= {"github.sha"}
