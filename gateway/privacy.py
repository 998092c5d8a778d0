"""The privacy desk on the gateway's own stores: what it can erase, what it cannot take back, what Art. 15 owes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select

from audit.reading import reading
from compliance.gdpr import GDPRCompliantFL
from compliance.parts import DeskParts, Disclosure
from compliance.requests.desk import PrivacyDesk
from gateway.auth.people.place import PeoplePlace
from gateway.places import ClientBook, ClientsPlace, UpdatesPlace
from gateway.services import Services
from gateway.tables import client_updates, clients, invitations, rounds
from gateway.trail import Trail, system_origin


def privacy_desk(services: Services) -> PrivacyDesk:
    """The desk with every place of personal data that the gateway has."""
    worker = Trail(services.engine, services.sealer, services.clock, lambda: system_origin("privacy desk"))
    return PrivacyDesk(
        DeskParts(
            engine=services.engine,
            keystore=services.keystore,
            sealer=services.sealer,
            journal=services.trail,
            worker_journal=worker,
            clock=services.clock,
            blobs=services.blobs,
            places=(UpdatesPlace(services), ClientsPlace(services), PeoplePlace(services)),
            disclose=lambda subject: _disclosed(services, subject),
            notice=lambda _subject: _notice(services),
        )
    )


def gdpr(services: Services) -> GDPRCompliantFL:
    """The specification's two calls (section 7.1) on this gateway."""
    return GDPRCompliantFL(privacy_desk(services), ClientBook(services), services.clock)


def _disclosed(services: Services, subject: str) -> Disclosure:
    """Models that the subject's updates went into, sinks that got entries, and a webhook that got invitations."""
    query = (
        select(rounds.c.result_version)
        .join(client_updates, client_updates.c.round_id == rounds.c.round_id)
        .join(clients, clients.c.client_id == client_updates.c.client_id)
        .where(clients.c.subject_id == subject, rounds.c.result_version.is_not(None))
        .distinct()
        .order_by(rounds.c.result_version)
    )
    with reading(services.engine) as conn:
        models = tuple(str(version) for version in conn.execute(query).scalars())
        told = conn.execute(_delivered(subject)).first() is not None
    sinks = tuple(sink.strip().partition(":")[0] for sink in services.config.siem_sinks.split(",") if sink)
    return Disclosure(models, (*sinks, "webhook") if told else sinks)


def _delivered(subject: str) -> Select[tuple[str]]:
    """An invitation of the person that the operator's webhook took."""
    return (
        select(invitations.c.invitation_id)
        .join(clients, clients.c.client_id == invitations.c.client_id)
        .where(clients.c.subject_id == subject, invitations.c.delivered_at.is_not(None))
        .limit(1)
    )


def _notice(services: Services) -> Mapping[str, Any]:
    return {
        "controller": services.config.controller,
        "purposes": [
            "training a shared model without collecting the data it learns from",
            "proof of who did what",
        ],
        "recipients": [
            "the federation's operator",
            "its auditors, who see ciphertext",
            "its SIEM, under a pseudonym",
            *(
                ["the operator's webhook, which is told the client and the round of each invitation"]
                if services.config.webhook_url
                else []
            ),
        ],
        "retention": {"participation": "until erasure", "accountability": "two years (Art. 17(3)(b, e))"},
        "rights": ["Art. 15", "Art. 16", "Art. 17", "Art. 18", "Art. 20", "Art. 21", "Art. 77"],
        "automated_decisions": "none (Art. 22)",
    }
