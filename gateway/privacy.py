"""The privacy desk on the gateway's own stores: what it can erase, what it cannot take back, what Art. 15 owes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, select

import audit.tables
import compliance.tables
from audit.reading import reading
from audit.siem.cursor import read_cursor
from audit.siem.dead_letters import read_dead_letters
from audit.siem.sinks import parse_sinks
from audit.store import entry_by_id
from compliance.datamap import digest
from compliance.erasures.receipt import Method
from compliance.gdpr import GDPRCompliantFL
from compliance.keyring.tables import metadata as keyring_metadata
from compliance.parts import DeskAlarm, DeskParts, Disclosure, Fading, ReceiptTerms, Telling
from compliance.requests.cases import RequestType
from compliance.requests.desk import PrivacyDesk
from gateway import tables
from gateway.auth.people.place import PeoplePlace
from gateway.desk_settings import approvals_of, calendar_of
from gateway.exporting.losses import privacy_losses
from gateway.exporting.notice import article_15
from gateway.influence import influence_of
from gateway.notices import file_notice, notice_of_alarm
from gateway.participation import participation_of
from gateway.places import LEADS, ClientBook, ClientsPlace, MessagesPlace, UpdatesPlace
from gateway.rectifying import Rectifying
from gateway.restricting import GROUNDS, Restricting
from gateway.services import Services
from gateway.tables import clients, invitations
from gateway.trail import Trail, system_origin


def privacy_desk(services: Services) -> PrivacyDesk:
    """The desk with every place of personal data that the gateway has."""
    return PrivacyDesk(desk_parts(services))


def desk_parts(services: Services) -> DeskParts:
    """What the desk, its holds and the schedule of retention work with."""
    worker = Trail(services.engine, services.sealer, services.clock, lambda: system_origin("privacy desk"))
    return DeskParts(
        engine=services.engine,
        keystore=services.keystore,
        sealer=services.sealer,
        journal=services.trail,
        worker_journal=worker,
        clock=services.clock,
        blobs=services.blobs,
        places=(
            MessagesPlace(services),
            UpdatesPlace(services),
            ClientsPlace(services),
            PeoplePlace(services),
        ),
        leads=LEADS,
        settle=UpdatesPlace(services).settle,
        disclose=lambda subject: _disclosed(services, subject),
        notice=lambda _subject: article_15(services.config, processing_notice(services)),
        evidence=lambda subject: privacy_losses(services, subject),
        told=lambda entry_id: _told(services, entry_id),
        fading=_fading(services),
        terms=_terms(services),
        notify=lambda conn, alarm: _notify(services, conn, alarm),
        participation=lambda subject: participation_of(services, subject),
        calendar=calendar_of(services.config),
        erasure_approvals=approvals_of(services.config),
        carriers={
            **{kind: Restricting(services, ground) for kind, ground in GROUNDS.items()},
            RequestType.RECTIFICATION: Rectifying(services, worker),
        },
    )


def gdpr(services: Services) -> GDPRCompliantFL:
    """The specification's two calls (section 7.1) on this gateway."""
    return GDPRCompliantFL(privacy_desk(services), ClientBook(services), services.clock)


def _notify(services: Services, conn: Connection, alarm: DeskAlarm) -> None:
    """The desk's alarms become notices, in the transaction that raises them."""
    file_notice(conn, services, notice_of_alarm(alarm))


def _disclosed(services: Services, subject: str) -> Disclosure:
    """What bounds the subject's influence on models, sinks that get entries, and a webhook that got invitations."""
    with reading(services.engine) as conn:
        is_told = conn.execute(_delivered(subject)).first() is not None
    sinks = tuple(sink.name for sink in parse_sinks(services.config.siem_sinks))
    return Disclosure(influence_of(services, subject), (*sinks, "webhook") if is_told else sinks)


def _told(services: Services, entry_id: str) -> dict[str, Telling]:
    """How far each sink is with an entry."""
    names = [sink.name for sink in parse_sinks(services.config.siem_sinks)]
    with reading(services.engine) as conn:
        entry = entry_by_id(conn, entry_id)
        if entry is None:
            return dict.fromkeys(names, Telling.WAITING)
        return {name: _telling(conn, name, entry.seq) for name in names}


def _telling(conn: Connection, sink: str, seq: int) -> Telling:
    if read_cursor(conn, sink).seq < seq:
        return Telling.WAITING
    letters = read_dead_letters(conn, sink, after=seq - 1, limit=1)
    return Telling.REFUSED if letters and letters[0].seq == seq else Telling.TOLD


def _fading(services: Services) -> tuple[Fading, ...]:
    """Traces that bear nobody's name: what a cut-off upload left is sealed, and swept; hints and windows run out."""
    config = services.config
    return (
        Fading("unfinished_uploads", Method.KEY_DESTROYED),
        *([Fading("message_broker", Method.EXPIRES)] if config.queue_url else []),
        *([Fading("rate_limit_windows", Method.EXPIRES)] if config.cache_url else []),
    )


def _terms(services: Services) -> ReceiptTerms:
    config = services.config
    return ReceiptTerms(
        origin=services.origin,
        max_delay_s=config.receipt_max_delay_s,
        data_map=_data_map(),
        backup_days=config.backup_days,
    )


@cache
def _data_map() -> str:
    return digest((audit.tables.metadata, compliance.tables.metadata, tables.metadata, keyring_metadata))


def _delivered(subject: str) -> Select[tuple[str]]:
    """An invitation of the person that the operator's webhook took."""
    return (
        select(invitations.c.invitation_id)
        .join(clients, clients.c.client_id == invitations.c.client_id)
        .where(clients.c.subject_id == subject, invitations.c.delivered_at.is_not(None))
        .limit(1)
    )


def processing_notice(services: Services) -> Mapping[str, Any]:
    """The facts of Art. 15(1) that are the same for everybody."""
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
