"""The demo's story, chapter by chapter: open, register, train, audit, forge, export, erase, report."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gateway.demo.api import Api
from gateway.demo.auditor import (
    Auditor,
    forge,
    read_checkpoint,
    read_entries,
    read_vkey,
    verify,
    wait_until_sequenced,
)
from gateway.demo.data import deal, load_split
from gateway.demo.errors import ClaimFailed
from gateway.demo.officer import (
    Officer,
    entry_id_of_receipt,
    keys_of_entries,
    package_files,
    payload_of,
    read_fields,
)
from gateway.demo.operator import Operator
from gateway.demo.outcome import Audit, DemoOutcome, Erasure, RoundOutcome, Training
from gateway.demo.plan import Plan, Unit
from gateway.demo.process import GatewayProcess, Home
from gateway.demo.report import write_report
from gateway.demo.screen import Screen
from gateway.demo.silo import Silo

SILO_THREADS = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """Everybody who plays a part, and where their papers go."""

    plan: Plan
    home: Home
    folder: Path
    screen: Screen
    operator: Operator
    officer: Officer
    auditor: Auditor
    silos: tuple[Silo, ...]


def run_demo(plan: Plan, screen: Screen, *, keep: Path | None = None) -> DemoOutcome:
    """Play the whole story; with `keep`, in that directory, and the gateway's stores stay there.

    Raises:
        DemoError: something did not go as the gateway promises.
    """
    began = time.monotonic()
    folder = (keep or Path(tempfile.mkdtemp(prefix="fl-gateway-demo-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # an export of personal data will lie in it
    home = Home(folder / "gateway")
    home.settle()
    try:
        screen.chapter("1  The gateway opens")
        with GatewayProcess(home) as process, closing(Api(process.wait_until_ready())) as api:
            screen.say(f"{api.base_url} answers, from a process of its own")
            stage = set_the_stage(plan, home, folder, api, screen)
            training = train(stage)
            audit = check_the_log(stage)
            erasure = export_and_erase(stage, audit)
    finally:
        if keep is None:
            shutil.rmtree(home.path, ignore_errors=True)
    outcome = DemoOutcome(
        plan=plan,
        silos=tuple((silo.name, len(silo.records)) for silo in stage.silos),
        training=training,
        audit=audit,
        erasure=erasure,
        report=folder / "report.html",
        duration_s=time.monotonic() - began,
    )
    write_report(outcome)
    return outcome


def set_the_stage(plan: Plan, home: Home, folder: Path, api: Api, screen: Screen) -> Stage:
    """Give the staff credentials at the console, and register the silos over HTTP."""
    roles = ("operator", "dpo", "auditor")
    with ThreadPoolExecutor(len(roles)) as pool:
        made = list(pool.map(lambda role: home.add_client(f"demo-{role}", role), roles))
    tokens = [api.token(client["client_id"], client["client_secret"]) for client in made]
    screen.say("an operator, a data-protection officer and an auditor have OAuth credentials")
    screen.chapter(f"2  {plan.clients} silos register")
    shares = deal(load_split()[0], plan.clients)
    silos = tuple(
        Silo.register(api, tokens[0], f"silo-{number:02d}", records)
        for number, records in enumerate(shares, start=1)
    )
    sizes = [len(silo.records) for silo in silos]
    screen.say(f"{sum(sizes)} records of digits, {min(sizes)} to {max(sizes)} a silo, skewed by label")
    return Stage(
        plan,
        home,
        folder,
        screen,
        Operator(api, tokens[0]),
        Officer(api, tokens[1]),
        Auditor(api, tokens[2]),
        silos,
    )


def train(stage: Stage) -> Training:
    """Run every round through the gateway, and evaluate each model on held-out data."""
    stage.screen.chapter(f"3  Training, {_protection(stage.plan)}")
    model_id = stage.operator.publish_model(stage.plan)
    outcomes: list[RoundOutcome] = []
    with stage.screen.rounds(stage.plan) as view, ThreadPoolExecutor(SILO_THREADS) as pool:
        for index in range(stage.plan.rounds):
            outcome, version = _run_round(stage, pool, model_id, index)
            outcomes.append(outcome)
            view.add(outcome)
    is_noised = stage.plan.unit is not Unit.NONE
    claim = stage.auditor.privacy_report(version) if is_noised else {}
    return Training(model_id, version, tuple(outcomes), claim)


def check_the_log(stage: Stage) -> Audit:
    """Fetch the log, verify it offline with every receipt, then change one byte of a copy."""
    stage.screen.chapter("4  The auditor checks the log")
    for silo in stage.silos:
        wait_until_sequenced(silo.api, silo.token, silo.sent[-1])
    bundle = stage.auditor.fetch_bundle(stage.folder / "audit-bundle.zip")
    receipts = [sent.receipt for silo in stage.silos for sent in silo.sent]
    verdict = verify(bundle, receipts=receipts, jwks=stage.auditor.receipt_keys())
    entries = read_entries(bundle)
    stage.screen.say(
        f"{len(entries)} entries, {len(receipts)} receipts: {_good(verdict.ok)} (offline, public keys alone)"
    )
    target = next(entry for entry in reversed(entries) if entry.event_type == "round.completed")
    forged = forge(bundle, stage.folder / "audit-bundle-forged.zip", target.seq)
    found = verify(forged)
    stage.screen.say(
        f"one byte of entry {target.seq} ({target.event_type}) changed in a copy: "
        + ("NOT found" if found.ok else f"found at entry {found.first_bad_seq}, {found.problem}")
    )
    return Audit(
        bundle=bundle,
        entries=len(entries),
        is_verified=verdict.ok,
        receipts=len(receipts),
        checkpoint=read_checkpoint(bundle),
        vkey=read_vkey(bundle),
        forged=forged,
        forged_seq=target.seq,
        forged_event=target.event_type,
        found_at_seq=None if found.ok else found.first_bad_seq,
        problem="" if found.ok else str(found.problem),
    )


def export_and_erase(stage: Stage, audit: Audit) -> Erasure:
    """Answer one silo's access request, erase it, and show what is left of it in the log."""
    silo = stage.silos[min(3, len(stage.silos) - 1)]
    stage.screen.chapter(f"5  {silo.name} asks for its data, then to be erased")
    case = stage.officer.answer("access", silo.client_id)
    package = stage.officer.fetch(case, "package", stage.folder / f"{silo.name}-package.zip")
    files = package_files(package)
    stage.screen.say(f"exported: {len(files)} files, {package.stat().st_size:,} bytes, signed")

    entries = read_entries(audit.bundle)
    keys = keys_of_entries(entries, {entry_id_of_receipt(sent.receipt) for sent in silo.sent})
    before = read_fields(stage.home, entries, keys)
    case = stage.officer.answer("erasure", silo.client_id)
    receipt = stage.officer.fetch(case, "receipt", stage.folder / f"{silo.name}-erasure-receipt.jwt")
    after = read_fields(stage.home, entries, keys)
    readable = [sum(field.is_readable for field in fields) for fields in (before, after)]
    stage.screen.say(
        f"erased: of its {len(before)} fields in the log {readable[0]} could be read, now {readable[1]}"
    )

    bundle = stage.auditor.fetch_bundle(stage.folder / "audit-bundle-after-erasure.zip")
    verdict = verify(bundle, vkey=audit.vkey, since=audit.checkpoint)
    count = len(read_entries(bundle))
    stage.screen.say(
        f"the log, now {count} entries: {_good(verdict.ok)}, and it extends the earlier checkpoint"
    )
    return Erasure(
        silo=silo.name,
        client_id=silo.client_id,
        package=package,
        files=tuple(files),
        before=tuple(before),
        after=tuple(after),
        receipt=receipt,
        receipt_payload=payload_of(receipt.read_text("ascii")),
        token_status=silo.knock(),
        bundle=bundle,
        entries=count,
        is_verified=verdict.ok,
    )


def insist(outcome: DemoOutcome) -> None:
    """Check that the demo showed what it set out to show.

    Raises:
        ClaimFailed: it did not; every reason is named.
    """
    audit, erasure = outcome.audit, outcome.erasure
    spent, planned = outcome.training.final.epsilon_spent, outcome.plan.epsilon
    wrong = [
        *_unless(audit.is_verified, "the log does not verify"),
        *_unless(audit.found_at_seq == audit.forged_seq, "the changed byte was not found where it is"),
        *_unless(erasure.is_verified, "the log does not verify after the erasure"),
        *_unless(erasure.readable_before > 0, "no field of the silo could be read before the erasure"),
        *_unless(erasure.readable_after == 0, "fields of the erased silo can still be read"),
        *_unless(erasure.token_status == 401, "the erased silo's token still opens the door"),
        *_unless(
            planned is None or (spent is not None and spent <= planned), "more epsilon was spent than planned"
        ),
    ]
    if wrong:
        raise ClaimFailed("The demo failed: " + "; ".join(wrong))


def _run_round(stage: Stage, pool: ThreadPoolExecutor, model_id: str, index: int) -> tuple[RoundOutcome, str]:
    began = time.monotonic()
    number = stage.operator.open_round(stage.plan, index)
    sent = list(pool.map(lambda silo: silo.take_part(stage.plan), stage.silos))
    version = str(stage.operator.wait_for_model(number)["result_model"]["version"])
    found = stage.operator.evaluate(version)
    spent = stage.auditor.budget_spent(model_id) if stage.plan.unit is not Unit.NONE else None
    duration_s = time.monotonic() - began
    return RoundOutcome(number, len(sent), found.accuracy, found.loss, spent, duration_s), version


def _protection(plan: Plan) -> str:
    if plan.epsilon is None:
        return "without differential privacy"
    return f"differential privacy per {plan.unit.value}: epsilon {plan.epsilon:g}, delta {plan.delta:g}"


def _good(ok: bool) -> str:
    return "verified" if ok else "NOT verified"


def _unless(holds: bool, wrong: str) -> Sequence[str]:
    return () if holds else (wrong,)
