"""A storm: twenty clients submit a round of small updates while one part is killed, or stands still for a while.

What must hold afterwards (promises 1, 3 and 4): every acknowledged update is counted once, or its round failed, or
its erasure was recorded, each with an entry that says so; epsilon is spent once; no round hangs.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Protocol
from uuid import uuid4

import httpx
from living.driver import NOISED, Driver, Json, Person, await_that, tensors
from sqlalchemy import select

from audit.reading import reading
from audit.tables import audit_log
from gateway.rounds.ledger import LineStatus
from gateway.rounds.record import RoundStatus, UpdateStatus
from gateway.services import Services
from gateway.tables import client_updates, model_versions, privacy_ledger, rounds

CLIENTS = 20
LEAST = 10
DEADLINE_S = 12.0
GRACE_S = 10.0  # a round ends within its deadline plus the outage plus this
_SUBMITTED_WITHIN_S = 1.5
_FAULT_WITHIN_S = 2.5  # so that it also hits the freeze and the release
_ERASURE_CHANCE = 0.25
_DOWN_S = 0.5
_AGAIN_S = 0.2


class Fault(StrEnum):
    """What happens to a part."""

    KILL = "SIGKILL"
    STOP = "SIGSTOP"


class Part(Protocol):
    """What can be killed, and started again, or halted, and woken again."""

    name: str

    def kill(self) -> None:
        """SIGKILL, with all that belongs to it."""

    def start(self) -> None:
        """Start again what was killed; returns once it answers."""

    def freeze(self) -> None:
        """SIGSTOP, with all that belongs to it."""

    def thaw(self) -> None:
        """SIGCONT."""


@dataclass(slots=True)
class Tally:
    """What happened in storms, all together."""

    runs: int = 0
    acknowledged: int = 0
    counted: int = 0
    in_failed_rounds: int = 0
    erased: int = 0
    rounds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    longest_over_deadline_s: float = 0.0

    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.runs} runs, {self.acknowledged} acknowledged = {self.counted} counted + "
            f"{self.in_failed_rounds} in failed rounds + {self.erased} erased; rounds {dict(self.rounds)}; "
            f"answers {dict(self.answers)}; latest end {self.longest_over_deadline_s:.1f} s after its deadline"
        )


@dataclass(slots=True)
class Round:
    """One round in a storm, and what the clients were told."""

    number: int
    deadline: datetime
    outage_s: float
    acknowledged: dict[str, str] = field(default_factory=dict)  # by client, its update
    answers: Counter[str] = field(default_factory=Counter)
    erased: dict[str, str] = field(default_factory=dict)  # by client, the erasure's case


class Storm:
    """Storms over one running gateway; `run` one after the other, then look at the tally."""

    def __init__(self, gateway: Driver, chance: random.Random) -> None:
        self._gateway = gateway
        self._chance = chance
        self.tally = Tally()
        gateway.add_model(budget={"epsilon": 100_000.0, "delta": 1e-5})
        self._people = [gateway.register(device_id=f"device-{number}") for number in range(CLIENTS)]
        self._staff = {role: gateway.as_role(role) for role in ("operator", "dpo")}

    def run(self, part: Part, fault: Fault, *, outage_s: float) -> Round:
        """One round in which the fault comes at a random moment; returns once everything was checked.

        Raises:
            AssertionError: a promise was broken.
        """
        made = self._open(outage_s)
        submits_s = [self._within(_SUBMITTED_WITHIN_S) for _ in self._people]
        moment_s = self._within(_FAULT_WITHIN_S)
        erased = self._people[0] if self._chance.random() < _ERASURE_CHANCE else None
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            works = [
                pool.submit(self._take_part, made, who, wait_s)
                for who, wait_s in zip(self._people, submits_s, strict=True)
            ]
            if erased:
                works.append(pool.submit(self._erase, made, erased, self._within(_FAULT_WITHIN_S)))
            time.sleep(moment_s)
            inflict(part, fault, outage_s)
        for work in works:
            work.result()
        self._await_end(made)
        with self._gateway.home.stores() as services:
            await_that("the log has caught up", lambda: _ended(services, made))
            self._check(services, made)
        if erased:
            self._people[0] = self._register()
        return made

    def _open(self, outage_s: float) -> Round:
        deadline = datetime.now(UTC) + timedelta(seconds=DEADLINE_S)
        wish = {
            "planned_clients": CLIENTS,
            "min_clients": LEAST,
            "privacy": NOISED,
            "deadline": deadline.isoformat(),
        }
        told = self._insist("operator", "POST", "/api/v1/rounds", wish)
        return Round(int(told["round_number"]), deadline, outage_s)

    def _register(self) -> Person:
        told = self._insist("operator", "POST", "/api/v1/clients/register", {"device_id": "device-next"})
        return Person(told["client_id"], told["registration_token"])

    def _within(self, longest_s: float) -> float:
        return self._chance.uniform(0.0, longest_s)

    def _take_part(self, made: Round, who: Person, wait_s: float) -> None:
        """Send an update until an answer is final, as a good client does."""
        body, key = tensors(made.number), str(uuid4())
        headers = who.headers | {"X-Update-Checksum": sha256(body).hexdigest(), "Idempotency-Key": key}
        url = f"/api/v1/rounds/{made.number}/updates"
        give_up = made.deadline + timedelta(seconds=made.outage_s + GRACE_S)
        time.sleep(wait_s)
        with self._client() as http:
            while datetime.now(UTC) < give_up:
                answer = _tried(lambda: http.post(url, content=body, headers=headers))
                made.answers[_said(answer)] += 1
                if answer is not None and answer.status_code < 500:
                    if answer.status_code == 202:
                        made.acknowledged[who.client_id] = answer.json()["update_id"]
                    return
                time.sleep(_AGAIN_S)

    def _erase(self, made: Round, who: Person, wait_s: float) -> None:
        time.sleep(wait_s)
        wish = {"type": "erasure", "subject": {"client_id": who.client_id}}
        case = self._insist("dpo", "POST", "/api/v1/privacy/requests", wish)
        made.erased[who.client_id] = case["id"]

    def _await_end(self, made: Round) -> None:
        path = f"/api/v1/rounds/{made.number}"
        await_that(
            f"the end of round {made.number}",
            lambda: self._insist("operator", "GET", path)["status"] in ("completed", "failed"),
            patience_s=DEADLINE_S + made.outage_s + 2 * GRACE_S,
        )
        for case in made.erased.values():
            self._await_erasure(case)

    def _await_erasure(self, case: str) -> None:
        path = f"/api/v1/privacy/requests/{case}"
        await_that("the erasure", lambda: self._insist("dpo", "GET", path)["status"] == "completed")

    def _insist(self, role: str, method: str, path: str, body: Json | None = None) -> Json:
        """The answer of staff, who ask again, with the same key, while the gateway is away."""
        headers = self._staff[role] | {"Idempotency-Key": str(uuid4())}
        with self._client() as http:

            def look() -> Json | None:
                answer = _tried(lambda: http.request(method, path, json=body, headers=headers))
                if answer is not None and answer.status_code == 401:  # a storm of soaks outlives a token
                    self._renew(role)
                    headers.update(self._staff[role])
                if answer is None or answer.status_code >= 500 or answer.status_code == 401:
                    time.sleep(_AGAIN_S)
                    return None
                assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
                told: Json = answer.json()
                return told

            return await_that(f"an answer to {method} {path}", look)

    def _renew(self, role: str) -> None:
        self._gateway._tokens.pop(role, None)
        self._staff[role] = self._gateway.as_role(role)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._gateway.http.base_url, timeout=8.0, trust_env=False)

    def _check(self, services: Services, made: Round) -> None:
        tally = self.tally
        with reading(services.engine) as conn:
            found = conn.execute(select(rounds).where(rounds.c.round_number == made.number)).one()
            query = select(client_updates.c.update_id, client_updates.c.status)
            rows = conn.execute(query.where(client_updates.c.round_id == found.round_id)).all()
            versions = conn.execute(
                select(model_versions.c.version).where(model_versions.c.round_number == made.number)
            ).all()
            lines = conn.execute(
                select(privacy_ledger.c.status).where(privacy_ledger.c.round_number == made.number)
            ).scalars()
            spent = list(lines)
            entries = _entries_of(conn, made.number)
        statuses = {row.update_id: row.status for row in rows}
        assert len(statuses) == len(rows)
        late_s = (found.completed_at - made.deadline).total_seconds()
        assert late_s <= made.outage_s + GRACE_S, (
            f"round {made.number} ended {late_s:.1f} s after its deadline"
        )
        spends = [one for one in services.state.spends() if one.round_number == made.number]
        for client_id, update_id in made.acknowledged.items():
            tally.acknowledged += 1
            if update_id not in statuses:
                assert client_id in made.erased, f"update {update_id} is gone, and nobody erased it"
                tally.erased += 1
            elif found.status == RoundStatus.COMPLETED:
                assert statuses[update_id] == UpdateStatus.COUNTED, update_id
                assert found.cohort.count(update_id) == 1
                tally.counted += 1
            else:
                assert statuses[update_id] == UpdateStatus.DROPPED
                tally.in_failed_rounds += 1
        if found.status == RoundStatus.COMPLETED:
            assert len(versions) == 1
            assert spent == [LineStatus.SPENT.value]
            assert len(spends) == 1
            assert set(statuses) <= set(found.cohort)
            assert len(set(found.cohort) - set(statuses)) <= len(made.erased)
            assert entries["round.completed"] == 1
            assert entries["round.failed"] == 0
        else:
            assert found.status == RoundStatus.FAILED
            assert not versions
            assert entries["round.failed"] == 1
            assert entries["round.completed"] == 0
        assert entries["update.accepted"] >= len(statuses)
        tally.runs += 1
        tally.rounds[found.failure or found.status] += 1
        tally.answers.update(made.answers)
        tally.longest_over_deadline_s = max(tally.longest_over_deadline_s, late_s)


def inflict(part: Part, fault: Fault, outage_s: float) -> None:
    """Let the fault happen, and end."""
    if fault is Fault.KILL:
        part.kill()
        time.sleep(_DOWN_S)
        part.start()
    else:
        part.freeze()
        try:
            time.sleep(outage_s)
        finally:
            part.thaw()


def _tried(ask: Callable[[], httpx.Response]) -> httpx.Response | None:
    try:
        return ask()
    except httpx.TransportError:
        return None


def _said(answer: httpx.Response | None) -> str:
    if answer is None:
        return "no answer"
    return "202" if answer.status_code == 202 else f"{answer.status_code} {answer.json().get('code', '')}"


def _ended(services: Services, made: Round) -> bool:
    with reading(services.engine) as conn:
        counted = _entries_of(conn, made.number)
    return bool(counted["round.completed"] + counted["round.failed"])


def _entries_of(conn, number: int) -> Counter[str]:  # type: ignore[no-untyped-def]
    """How many entries of each type the log has about a round."""
    resource = f'%"resource":"round/{number}"%'
    query = select(audit_log.c.event_type).where(audit_log.c.canonical.like(resource))
    return Counter(conn.execute(query).scalars())
