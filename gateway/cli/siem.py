"""`fl-gateway siem`: how the sinks stand, whether they take an event, what they refused; and `forward --from`."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import click

from audit.events import EventType
from audit.ids import new_id
from audit.reading import reading
from audit.siem import NamedSink, SinkDown, count_dead_letters, parse_sinks, read_dead_letters, read_standing
from audit.siem.forwarder import deliver
from audit.siem.replay import Batch, replay, retry_dead_letters, trial_event
from audit.store import tree_size
from gateway.cli.opening import open_console
from gateway.parts.forwarding import pseudonyms
from gateway.services import Services

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_SHOWN = 1000


@click.group()
def siem() -> None:
    """The SIEM sinks: where the log's events go."""


@siem.command()
@_AS_JSON
def status(*, as_json: bool) -> None:
    """Show each sink: up or down and since when, why, how far it is, what it refused.

    `open` is a sink that failed five times in a row: it is tried with single events.
    """
    with open_console() as services:
        told = [_standing(services, named) for named in sinks_of(services)]
    if as_json:
        click.echo(json.dumps(told))
        return
    for one in told:
        since = f" since {one['down_since']}" if one["down_since"] else ""
        why = f" ({one['problem']})" if one["problem"] else ""
        click.echo(f"{one['sink']}: {one['state']}{since}{why}")
        click.echo(
            f"  at entry {one['seq']}, {one['lag_entries']} behind, {one['dead_letters']} refused for good"
        )
        click.echo(f"  format {one['format']}; its word: {one['answer'] or 'none yet'}")


@siem.command()
@click.argument("sink", required=False)
@_AS_JSON
def test(*, sink: str | None, as_json: bool) -> None:
    """Send one event that is not in the log to SINK (to each if none is named), and say what it answered."""
    with open_console() as services:
        told = [_tried(services, named) for named in _chosen(services, sink)]
    if as_json:
        click.echo(json.dumps(told))
    for one in () if as_json else told:
        click.echo(f"{one['sink']}: {'taken' if one['ok'] else 'NOT taken'}: {one['answer']}")
    sys.exit(0 if all(one["ok"] for one in told) else 1)


@siem.command("dead-letters")
@click.argument("sink", required=False)
@click.option("--retry", is_flag=True, help="Deliver them once more; what is taken now is forgotten here.")
@_AS_JSON
def dead_letters(*, sink: str | None, retry: bool, as_json: bool) -> None:
    """List what SINK (or each of them) refused for good, or deliver it once more; exit 1 if some is left."""
    with open_console() as services:
        chosen = _chosen(services, sink)
        reached = [
            _report(
                services,
                named,
                retry_dead_letters(*_stores(services, named), services.clock()),
                "dead_letters",
            )
            for named in (chosen if retry else ())
        ]
        with reading(services.engine) as conn:
            told = [_letters(conn, named.name) for named in chosen]
    if as_json:
        click.echo(json.dumps(told))
    for one in () if as_json else told:
        click.echo(f"{one['sink']}: {one['count']} refused for good")
        for letter in one["dead_letters"]:
            click.echo(f"  entry {letter['seq']}: {letter['reason']} ({letter['created_at']})")
    sys.exit(1 if any(one["count"] for one in told) or not all(reached) else 0)


def replay_once(first: int, last: int | None, sink: str | None) -> None:
    """Deliver a stretch of the log once more, to one sink or to all."""
    with open_console() as services:
        reached = [
            _report(
                services, named, replay(*_stores(services, named), first, last, services.clock()), "entries"
            )
            for named in _chosen(services, sink)
        ]
    sys.exit(0 if all(reached) else 1)


def sinks_of(services: Services) -> list[NamedSink]:
    """The sinks of the settings."""
    return parse_sinks(services.config.siem_sinks, hostname=socket.gethostname())


def _stores(services: Services, named: NamedSink) -> tuple[Any, NamedSink, Any]:
    return services.engine, named, pseudonyms(services)


def _chosen(services: Services, name: str | None) -> list[NamedSink]:
    sinks = sinks_of(services)
    chosen = [named for named in sinks if name in (None, named.name)]
    if name and not chosen:
        raise click.UsageError(
            f"there is no such sink; these there are: {', '.join(one.name for one in sinks)}"
        )
    return chosen


def _standing(services: Services, named: NamedSink) -> dict[str, Any]:
    with reading(services.engine) as conn:
        standing = read_standing(conn, named.name)
        size, refused = tree_size(conn), count_dead_letters(conn, named.name)
    down, updated = standing.down_since, standing.updated_at
    return {
        "sink": named.name,
        "state": standing.state,
        "down_since": down.isoformat() if down else None,
        "failures": standing.failures,
        "problem": "" if standing.state == "up" else standing.problem,
        "seq": standing.cursor.seq,
        "lag_entries": max(0, size - 1 - standing.cursor.seq),
        "dead_letters": refused,
        "format": named.format,
        "answer": standing.answer,
        "updated_at": updated.isoformat() if updated else None,
    }


def _tried(services: Services, named: NamedSink) -> dict[str, Any]:
    now = services.clock()
    try:
        delivery = deliver(named.sink, named.name, [trial_event(UUID(new_id(now)), now)])
    except SinkDown as down:
        return {"sink": named.name, "ok": False, "answer": down.why}
    finally:
        named.sink.close()
    reasons = [refusal.reason for refusal in delivery.refused]
    return {"sink": named.name, "ok": not reasons, "answer": reasons[0] if reasons else delivery.answer}


def _letters(conn: Any, sink: str) -> dict[str, Any]:
    shown = [
        {"seq": letter.seq, "reason": letter.reason, "created_at": letter.created_at.isoformat()}
        for letter in read_dead_letters(conn, sink, limit=_SHOWN)
    ]
    return {"sink": sink, "count": count_dead_letters(conn, sink), "dead_letters": shown}


def _report(services: Services, named: NamedSink, batches: Iterator[Batch], kind: str) -> bool:
    """Deliver the batches, note it in the log, and say it; False where the sink went away meanwhile."""
    done: list[Batch] = []
    problem = ""
    try:
        for batch in batches:  # what was done before it went away counts
            done.append(batch)  # noqa: PERF402
    except SinkDown as down:
        problem = down.why
    finally:
        named.sink.close()
    taken, refused = _sums(done)
    if done:
        services.trail.note(
            EventType.SIEM_REPLAYED,
            sink=named.name,
            count=taken,
            refused=refused,
            seq=done[0].first,
            last_seq=done[-1].last,
            kind=kind,
        )
    click.echo(f"{named.name}: {taken} delivered once more, {refused} refused", err=True)
    if problem:
        click.echo(f"{named.name}: away behind entry {done[-1].last if done else '-'}: {problem}", err=True)
    return not problem


def _sums(batches: Sequence[Batch]) -> tuple[int, int]:
    return sum(batch.taken for batch in batches), sum(batch.refused for batch in batches)
