"""What is measured: one cheap query each, whatever the size of the tables, and no label that names a person."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import timedelta

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from audit.reading import reading
from audit.siem import parse_sinks
from audit.siem.cursor import lag_entries
from audit.store import oldest_pending, tree_size
from gateway.auth.scopes import Role
from gateway.rounds.ledger import has_bare_release, read_lines, spent_epsilon
from gateway.rounds.lineage import Lineage, lineages
from gateway.services import Services
from gateway.tables import clients, rounds

ACTIVE_WITHIN = timedelta(hours=1)
_SPEND_GOOD_FOR_S = 60.0
_Spend = tuple[int, float, float]


class Measures(Collector):
    """Answers a scrape; what the accountant said is kept until the ledger moves."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._spends: dict[str, _Spend] = {}
        self._sinks: tuple[str, ...] = ()
        for named in parse_sinks(services.config.siem_sinks):
            self._sinks += (named.name,)
            named.sink.close()

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: whoever registers it asks the database no question."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Every measure, of one moment on SQLite."""
        with reading(self._services.engine) as conn:
            found = [*self._of_log(conn), *self._of_training(conn), *self._of_budgets(conn)]
        yield from found

    def _of_log(self, conn: Connection) -> Iterator[Metric]:
        oldest = oldest_pending(conn)
        lag_s = 0.0 if oldest is None else (self._services.clock() - oldest).total_seconds()
        yield CounterMetricFamily("fl_audit_entries", "Entries in the log.", tree_size(conn))
        yield GaugeMetricFamily(
            "fl_audit_sequencer_lag_seconds",
            "How long the oldest entry waits for its place.",
            max(0.0, lag_s),
        )
        lag = GaugeMetricFamily(
            "fl_siem_lag_entries", "Entries that a SIEM sink has not passed yet.", labels=["sink"]
        )
        for sink in self._sinks:
            lag.add_metric([sink], lag_entries(conn, sink))
        yield lag

    def _of_training(self, conn: Connection) -> Iterator[Metric]:
        newest = conn.scalar(select(func.max(rounds.c.round_number)))
        yield CounterMetricFamily("fl_rounds", "Rounds that were opened.", newest or 0)
        seen = select(func.count()).where(
            clients.c.status == "active",
            clients.c.role.in_([Role.PARTICIPANT.value, Role.EDGE.value]),
            clients.c.last_seen_at > self._services.clock() - ACTIVE_WITHIN,
        )
        told = "Participants and edges that were here within the last hour."
        yield GaugeMetricFamily("fl_active_clients", told, conn.scalar(seen) or 0)

    def _of_budgets(self, conn: Connection) -> Iterator[Metric]:
        spent = GaugeMetricFamily(
            "fl_privacy_epsilon_spent",
            "Epsilon spent and reserved; +Inf: no claim holds.",
            labels=["model_id"],
        )
        budget = GaugeMetricFamily("fl_privacy_epsilon_budget", "The model's budget.", labels=["model_id"])
        for lineage in lineages(conn):
            spent.add_metric([lineage.model_id], self._spent(conn, lineage))
            if lineage.epsilon_budget is not None:
                budget.add_metric([lineage.model_id], float(lineage.epsilon_budget))
        yield from (spent, budget)

    def _spent(self, conn: Connection, lineage: Lineage) -> float:
        """Asked anew when the ledger has moved, or a minute later: a release without noise moves no ledger."""
        known = self._spends.get(lineage.model_id)
        if known and known[0] == lineage.ledger_version and time.monotonic() < known[1]:
            return known[2]
        is_bare = has_bare_release(self._services, conn, lineage.model_id)
        found = math.inf if is_bare else spent_epsilon(lineage, read_lines(conn, lineage.model_id))
        self._spends[lineage.model_id] = (lineage.ledger_version, time.monotonic() + _SPEND_GOOD_FOR_S, found)
        return found
