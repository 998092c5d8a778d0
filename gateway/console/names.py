"""What states, roles and kinds are called on pages, and how good they are; a test sees that each has its word."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from audit.events import Outcome
from gateway.auth.roster import ClientStatus
from gateway.auth.scopes import Role
from gateway.rounds.record import RoundStatus
from gateway.translations import say


class Tone(StrEnum):
    """How a state is to be taken; also the class of its badge."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    CALM = "calm"


@dataclass(frozen=True, slots=True)
class Named:
    """A state's word, and its tone."""

    name: str
    tone: Tone = Tone.CALM


ROLES = {
    Role.PARTICIPANT: say("Participant"),
    Role.EDGE: say("Edge"),
    Role.OPERATOR: say("Operator"),
    Role.DPO: say("Data-protection officer"),
    Role.AUDITOR: say("Auditor"),
    Role.SIEM: say("SIEM"),
}
ROUNDS = {
    RoundStatus.INITIALIZED: Named(say("Initialized")),
    RoundStatus.SELECTING: Named(say("Drawing its clients")),
    RoundStatus.ACTIVE: Named(say("Takes updates"), Tone.GOOD),
    RoundStatus.AGGREGATING: Named(say("Aggregating"), Tone.WARN),
    RoundStatus.COMPLETED: Named(say("Completed")),
    RoundStatus.FAILED: Named(say("Failed"), Tone.BAD),
}
PAUSED = Named(say("Paused"), Tone.WARN)
CLIENTS = {
    ClientStatus.ACTIVE: Named(say("Active"), Tone.GOOD),
    ClientStatus.SUSPENDED: Named(say("Suspended"), Tone.WARN),
    ClientStatus.REVOKED: Named(say("Revoked"), Tone.BAD),
}
OUTCOMES = {
    Outcome.SUCCESS: Named(say("Success"), Tone.GOOD),
    Outcome.DENIED: Named(say("Denied"), Tone.WARN),
    Outcome.FAILURE: Named(say("Failure"), Tone.BAD),
}
SINKS = {
    "up": Named(say("Up"), Tone.GOOD),
    "down": Named(say("Down"), Tone.BAD),
    "open": Named(say("Away, tried with single events"), Tone.BAD),
}
STATES = {
    "healthy": Named(say("Healthy"), Tone.GOOD),
    "degraded": Named(say("Slower than usual"), Tone.WARN),
    "behind": Named(say("Behind"), Tone.WARN),
    "unhealthy": Named(say("Does not answer"), Tone.BAD),
}
STORES = {
    "database": say("Database"),
    "keystore": say("Key store"),
    "blobs": say("Blob store"),
    "cache": say("Model cache"),
    "queue": say("Message queue"),
    "log": say("Order of the log"),
}


def role_name(role: Role) -> str:
    """What a role is called, in English; templates translate it."""
    return ROLES[role]
