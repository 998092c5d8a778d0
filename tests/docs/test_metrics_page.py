"""docs/metrics.md: every metric is on the page and the other way round; promtool takes its configuration and rules."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from services.checkout import ROOT
from services.pages import blocks

from gateway.cli.opening import prepared_services
from gateway.config import Config
from gateway.metrics import Measures

PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")


def test_the_page_lists_exactly_the_metrics_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STYLE: a metric without a word fails; so does a word without a metric. Types and labels are right."""
    monkeypatch.chdir(tmp_path)
    services = prepared_services(Config(), part="web")
    registry = CollectorRegistry()
    registry.register(Measures(services))

    there = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in registry.collect()
    }
    services.close()

    assert dict(re.findall(r"^\| `(fl_\w+)(?:\{\w+\})?` \| (\w+) \|", PAGE, re.MULTILINE)) == there


def test_promtool_takes_the_page_s_configuration_and_rules(tmp_path: Path) -> None:
    """Both blocks, as they stand there."""
    scrape, rules = blocks("metrics.md", "yaml")
    (tmp_path / "prometheus.yml").write_text(scrape)
    (tmp_path / "rules.yml").write_text(rules)

    for words in (("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml")):
        done = subprocess.run(["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
