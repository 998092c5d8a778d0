"""Every resource of the HTTP API, for the application to register."""

from __future__ import annotations

from flask import Blueprint

from gateway.api.audit import audit
from gateway.api.authorization import authorization
from gateway.api.clients import clients
from gateway.api.erasures import erasures
from gateway.api.evidence import evidence
from gateway.api.health import health
from gateway.api.holds import holds
from gateway.api.invitations import invitations
from gateway.api.metrics import metrics
from gateway.api.models import models
from gateway.api.oauth import oauth, well_known
from gateway.api.packages import links, packages
from gateway.api.privacy import privacy
from gateway.api.restrictions import restrictions
from gateway.api.revealing import revealing
from gateway.api.round_control import round_control
from gateway.api.rounds import rounds
from gateway.api.stream import stream
from gateway.api.tlog import tlog
from gateway.api.updates import updates

BLUEPRINTS: tuple[Blueprint, ...] = (
    audit,
    authorization,
    clients,
    erasures,
    evidence,
    health,
    holds,
    invitations,
    links,
    metrics,
    models,
    oauth,
    packages,
    privacy,
    revealing,
    restrictions,
    round_control,
    rounds,
    stream,
    tlog,
    updates,
    well_known,
)
