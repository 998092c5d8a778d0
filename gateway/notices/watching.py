"""Causes that no transaction has: a budget that nears its end, a sink that lags, a certificate that nobody renewed.

Each look asks anew, so a crash loses nothing; that each cause is told once is the filing's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain

from cryptography import x509
from sqlalchemy import Connection, select

from audit.events import Severity
from audit.reading import reading
from audit.siem import parse_sinks
from audit.siem.cursor import lag_entries, read_cursor
from audit.tables import audit_log
from gateway.certificates import CertificateSettings
from gateway.notices.filing import file_notice
from gateway.notices.notice import Notice, NoticeKind, shown
from gateway.rounds.ledger import read_lines, spent_epsilon
from gateway.rounds.lineage import Lineage, lineages
from gateway.services import Services

BUDGET_SHARE = Decimal("0.8")
DAYS_LEFT = (30.0, 14.0, 7.0)
_A_DAY = timedelta(days=1)
_Ledger = tuple[int, str]


class Watch:
    """Looks for such causes, and files a notice of each."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sinks: tuple[str, ...] = ()
        for named in parse_sinks(services.config.siem_sinks):
            self._sinks += (named.name,)
            named.sink.close()
        self._told: set[str] = set()
        self._known: dict[str, _Ledger] = {}

    def look(self) -> int:
        """Look at everything once; says how many notices were filed."""
        with reading(self._services.engine) as conn:
            found = list(chain(self._budgets(conn), self._lags(conn), self._certificates()))
        new = [notice for notice in found if notice.dedupe_key not in self._told]
        filed = 0
        for notice in new:
            with self._services.engine.begin() as conn:
                filed += file_notice(conn, self._services, notice)
            self._told.add(notice.dedupe_key)
        return filed

    def _budgets(self, conn: Connection) -> Iterator[Notice]:
        for lineage in lineages(conn):
            if lineage.epsilon_budget is None or _budget_key(lineage) in self._told:
                continue
            ledger = (lineage.ledger_version, lineage.epsilon_budget)
            if self._known.get(lineage.model_id) == ledger:
                continue  # the accountant is not asked again for what it has answered
            spent = spent_epsilon(lineage, read_lines(conn, lineage.model_id))
            if Decimal(spent) >= BUDGET_SHARE * Decimal(lineage.epsilon_budget):
                yield budget_notice(lineage, spent)
            else:
                self._known[lineage.model_id] = ledger

    def _lags(self, conn: Connection) -> Iterator[Notice]:
        now = self._services.clock()
        limit = timedelta(seconds=self._services.config.notices_siem_lag_s)
        for sink in self._sinks:
            behind = audit_log.c.seq > read_cursor(conn, sink).seq
            oldest = conn.scalar(select(audit_log.c.time).where(behind).order_by(audit_log.c.seq).limit(1))
            if oldest is not None and now - oldest > limit:
                yield lag_notice(sink, lag_entries(conn, sink), oldest, now)

    def _certificates(self) -> Iterator[Notice]:
        settings, now = CertificateSettings.from_config(self._services.config), self._services.clock()
        for name in settings.names():
            try:
                pem = settings.live(name).read_bytes()
                certificate = x509.load_pem_x509_certificate(pem)
            except (OSError, ValueError):
                continue  # it was never issued: the one who asked for it was told
            days = _days_reached(certificate, now)
            if days is not None:
                yield certificate_notice(name, certificate, days)


def budget_notice(lineage: Lineage, spent: float) -> Notice:
    """A lineage has used most of its privacy budget."""
    return Notice(
        kind=NoticeKind.BUDGET,
        severity=Severity.MEDIUM,
        subject_line=f"A privacy budget is used up by {int(BUDGET_SHARE * 100)} % or more",
        text=(
            f"The model {lineage.model_id} has spent epsilon {spent:.4g} of {lineage.epsilon_budget} (reserved "
            "rounds included). Plan the rounds that are left, use a larger noise multiplier, or register a new model."
        ),
        dedupe_key=_budget_key(lineage),
    )


def lag_notice(sink: str, entries: int, oldest: datetime, now: datetime) -> Notice:
    """A SIEM sink has not got what is in the log; told once a day as long as it lasts."""
    return Notice(
        kind=NoticeKind.SIEM_LAG,
        severity=Severity.HIGH,
        subject_line="A SIEM sink lags behind the log",
        text=(
            f"The sink {sink} is {entries} entries behind; the next one for it is of {shown(oldest)}. "
            "See `fl-gateway siem status`."
        ),
        dedupe_key=f"siem_lag|{sink}|{now.date()}",
    )


def certificate_notice(name: str, certificate: x509.Certificate, days: float) -> Notice:
    """A TLS certificate nears its end, and its renewal has not come."""
    ends = certificate.not_valid_after_utc
    return Notice(
        kind=NoticeKind.CERTIFICATE,
        severity=Severity.HIGH if days <= DAYS_LEFT[-1] else Severity.MEDIUM,
        subject_line=f"The certificate of {name} ends on {ends.date()}",
        text=f"The certificate of {name} ends on {shown(ends)}, and was not renewed. See `fl-gateway certs renew`.",
        dedupe_key=f"certificate|{certificate.serial_number:x}|{days:g}",
    )


def _budget_key(lineage: Lineage) -> str:
    return f"budget|{lineage.model_id}|{lineage.epsilon_budget}"


def _days_reached(certificate: x509.Certificate, now: datetime) -> float | None:
    """The last of the warning days that has come; None while its renewal is not late.

    A certificate is renewed in the last third of its life; one of a short life is told of in the last sixth.
    """
    left = certificate.not_valid_after_utc - now
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    days = [day for day in DAYS_LEFT if timedelta(days=day) <= (life + _A_DAY) / 3]
    late = [day for day in days or [life / _A_DAY / 6] if left <= day * _A_DAY - _grace(day)]
    return min(late) if late else None


def _grace(day: float) -> timedelta:
    """certbot renews at 30 days, and is given a day for it."""
    return _A_DAY if day == DAYS_LEFT[0] else timedelta()
