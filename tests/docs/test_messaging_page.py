"""docs/messaging.md tells the truth: its snippet knows a genuine post; settings, log lines and bodies are ours."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from services.checkout import ROOT
from services.clock import FixedClock
from services.pages import blocks
from services.webhook import receiving

from gateway.config import Config
from gateway.messaging.broker_url import parameters_of
from gateway.messaging.link import _words_for
from gateway.messaging.outbox import QueueName
from gateway.messaging.topology import DELIVERY_LIMIT
from gateway.messaging.webhook import Webhook

PAGE = ROOT / "docs" / "messaging.md"
SECRET = "a secret of the webhook"


@pytest.fixture
def is_genuine() -> Callable[..., bool]:
    """The snippet of the page."""
    (snippet,) = blocks("messaging.md", "python")
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102 - the page's own program is what is tested
    found: Callable[..., bool] = names["is_genuine"]
    return found


def test_the_snippet_knows_a_genuine_post(is_genuine: Callable[..., bool], clock: FixedClock) -> None:
    """What the gateway sends passes; another body, secret, time or header does not."""
    with receiving() as receiver:
        webhook = Webhook(receiver.url, SECRET, clock)
        assert webhook.post({"round_number": 7}, key="key")
        webhook.close()
    (posted,) = receiver.posted
    header, now = posted.headers["X-FL-Signature"], clock().timestamp()

    assert is_genuine(SECRET, header, posted.body, now=now + 200)
    assert not is_genuine(SECRET, header, posted.body, now=now + 400)
    assert not is_genuine("another secret of somebody", header, posted.body, now=now)
    assert not is_genuine(SECRET, header, posted.body + b" ", now=now)
    for forged in (
        "",
        "t=1",
        "v1=,t=x",
        f"t={int(now)},v1=ä",
        "t=²,v1=0",
        f"t={'9' * 5000},v1=0",
        header.replace("v1", "v0"),
    ):
        assert not is_genuine(SECRET, forged, posted.body, now=now)


def test_the_settings_shown_are_settings(tmp_path: Path) -> None:
    """Each TOML block names settings that exist, and an URL that can be read."""
    shown = {
        name: value
        for block in blocks("messaging.md", "toml")
        for name, value in tomllib.loads(block).items()
    }

    assert set(shown) == {"queue_url", "webhook_url", "webhook_secret"}
    assert set(shown) <= {one.name for one in fields(Config)}
    parameters = parameters_of(shown["queue_url"].partition("?")[0])
    assert (parameters.host, parameters.virtual_host) == ("rabbit.example", "federation")


def test_queues_limits_and_log_lines_are_those_of_the_code() -> None:
    """What an operator would search for is there, word by word."""
    page = PAGE.read_text("utf-8")

    for queue in QueueName:
        assert f"`{queue}`" in page
        assert f"`{queue.dead}`" in page
    assert DELIVERY_LIMIT == 10
    assert "more than ten times" in page
    assert _words_for(None).partition("(")[0] in page
    told = Path(str(parameters_of.__code__.co_filename)).with_name("link.py").read_text("utf-8")
    for line in re.findall(r'return "(RabbitMQ [^"]+)"', told):
        assert line in page


def test_the_body_shown_has_the_members_that_are_sent() -> None:
    """The JSON block is a body of the webhook."""
    (block,) = blocks("messaging.md", "json")

    assert list(json.loads(block)) == [
        "invitation_id",
        "round_number",
        "client_id",
        "status",
        "policy_hash",
        "deadline",
        "url",
    ]
    assert replace(Config(), public_url="https://fl.example.com").public_url in block
