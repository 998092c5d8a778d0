"""Art. 19 with a real sink: the SIEM hears of the erasure under the name it knows, and that name then leads nowhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import Federation
from flask.testing import FlaskClient

from audit.draft import Personal
from audit.siem.sinks import parse_sinks
from compliance.jws import verify_compact
from compliance.requests.cases import Status
from gateway.config import Config
from gateway.parts.forwarding import forwarder_of, pseudonyms
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import Services

OFFICER = Personal("system", "officer")


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """With a SIEM that reads a file."""
    return replace(config, siem_sinks=f"file:{tmp_path / 'siem.jsonl'}")


def _forward(services: Services, federation: Federation) -> list[dict[str, Any]]:
    """What the SIEM has, once the log and the forwarder have caught up."""
    federation.sequence()
    (sink,) = parse_sinks(services.config.siem_sinks)
    forwarder = forwarder_of(services, sink)
    while forwarder.run_once():
        pass
    sink.sink.close()
    path = Path(services.config.siem_sinks.removeprefix("file:"))
    return [json.loads(line)["entry"] for line in path.read_text().splitlines()]


def test_a_siem_can_erase_its_copies_and_then_the_name_is_gone(services: Services, http: FlaskClient) -> None:
    """RULES 28: the same pseudonym in its copies and in the news; afterwards no entry of the person has one."""
    federation = Federation(services, http)
    silo = federation.register()
    subject = ClientBook(services).subject_of(silo.client_id)
    assert subject is not None
    known = _forward(services, federation)
    desk = privacy_desk(services)
    case = desk.open("erasure", subject, requested_by=OFFICER)

    waiting = desk.run(desk.approve(case.id, by=OFFICER).id)
    told = [entry for entry in _forward(services, federation) if entry["event_type"] == "privacy.told"]
    done = desk.run(case.id)

    assert (waiting.status, waiting.last_error) == (Status.RUNNING, "RECIPIENTS_NOT_TOLD")
    name = told[0]["details"]["subject"]["pseudonym"]
    assert name is not None
    assert any(name in json.dumps(entry) for entry in known)
    assert done.status is Status.COMPLETED
    keys = {row.kid: row.public for row in services.keystore.public_keys()}
    (line,) = verify_compact(str(done.receipt), "fl-erasure+jwt", keys)["recipients"]
    assert line["name"] == "file"  # where it lies on this machine is not told
    assert line["told"] is not None
    look = pseudonyms(services)
    assert [look(row.key_id) for row in services.keystore.keys_of(subject)] == [None]
    assert name not in json.dumps(_forward(services, federation)[-1])
