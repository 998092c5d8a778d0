"""Carries an erasure out to its end, without threads: the desk's part, the log's and the SIEM's in turns."""

from __future__ import annotations

from living.home import Home

from audit.siem.sinks import parse_sinks
from compliance.requests.cases import Case, Status
from gateway.parts.forwarding import forwarder_of
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover
from gateway.privacy import privacy_desk
from gateway.services import Services

_TURNS = 5  # it waits once for the recipients, and that is all


def carry_out(services: Services, case_id: str) -> Case:
    """Run an approved or begun request until it is completed; everything that it waits for happens in between."""
    desk = privacy_desk(services)
    for _ in range(_TURNS):
        case = desk.run(case_id)
        if case.status is Status.COMPLETED:
            return case
        deliver(services)
    raise AssertionError(f"{case.status}: {case.last_error}")


def deliver(services: Services) -> None:
    """Order and sign what was staged, and tell every SIEM."""
    sequencer = sequencer_of(services)
    while sequencer.run_once():
        continue
    for sink in parse_sinks(services.config.siem_sinks):
        forwarder = forwarder_of(services, sink)
        while forwarder.run_once():
            continue


def carry_on(home: Home, case_id: str) -> Case:
    """What the next start does: put the stores in agreement, and go on with what was under way."""
    with home.stores() as services:
        recover(services)
        privacy_desk(services).resume_open()
        return carry_out(services, case_id)
