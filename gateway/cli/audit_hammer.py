"""`fl-gateway audit hammer`: proofs are checked against one checkpoint, without a pause, while the log grows."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
import httpx

from audit.checkpoint import NoteVerifier
from audit.errors import BadProof, NoCheckpoint
from audit.events import EventType
from audit.hammer import Blows, DatabaseReader, Hammer, LogReader
from gateway.cli.opening import open_console
from gateway.log_key import log_keys
from gateway.services import Services

_TIMEOUT_S = 30


class HttpReader:
    """Reads the log from a gateway, with a token of the scope `audit:read`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def checkpoint(self) -> str:
        """The newest checkpoint."""
        return self._get("/checkpoint").text

    def entry(self, seq: int) -> bytes:
        """The canonical bytes of an entry."""
        return self._get(f"/entries/{seq}").content

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """The path from an entry to the root of the first `size`."""
        return self._hashes("/proof/inclusion", {"seq": seq, "size": size})

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that one tree is the beginning of another."""
        return self._hashes("/proof/consistency", {"from": old, "to": new})

    def _hashes(self, path: str, query: dict[str, int]) -> list[bytes]:
        try:
            return [base64.b64decode(one, validate=True) for one in self._get(path, query).json()["hashes"]]
        except (ValueError, KeyError, TypeError):
            raise BadProof(f"{path} answers something else than a proof") from None

    def _get(self, path: str, query: dict[str, int] | None = None) -> httpx.Response:
        answer = self._client.get(f"/api/v1/audit{path}", params=query)
        if answer.status_code == httpx.codes.NOT_FOUND and path == "/checkpoint":
            raise NoCheckpoint("nothing was signed yet: does the sequencer run?")
        if answer.status_code != httpx.codes.OK:
            raise click.ClickException(f"{path} answers {answer.status_code}: look at --token and --url")
        return answer


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1), default=60.0, show_default=True, help="How long.")
@click.option(
    "--readers", type=click.IntRange(1, 64), default=4, show_default=True, help="How many check proofs."
)
@click.option(
    "--writers",
    type=click.IntRange(0, 64),
    help="How many write entries (`audit.tried`) into the database of these settings; default: 2, with --url none.",
)
@click.option(
    "--pause",
    type=click.FloatRange(0, 60),
    default=0.0,
    show_default=True,
    help="Seconds that each of them waits after a proof or an entry.",
)
@click.option("--url", help="Read over HTTP from the gateway at this URL; default: from the database.")
@click.option("--token", envvar="FLG_TOKEN", help="With --url: a token with audit:read.")
@click.option(
    "--vkey",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The log's key, from a source you trust; default: that of these settings.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def hammer(
    *,
    seconds: float,
    readers: int,
    writers: int | None,
    pause: float,
    url: str | None,
    token: str | None,
    vkey: Path | None,
    as_json: bool,
) -> None:
    """Check proofs against one checkpoint, without a pause, while writers write; a gateway must be running.

    Exit 1 at the first proof that does not verify, 2 if the log could not be read or did not grow.
    """
    wanted = (0 if url else 2) if writers is None else writers
    with ExitStack() as stack:
        services = None if url and vkey and not wanted else stack.enter_context(open_console())
        log = _reader(stack, services, url, token)
        verifier = NoteVerifier.parse(vkey.read_text("utf-8") if vkey else _own_vkey(services))
        ends = time.monotonic() + seconds
        work = [_writer(services) for _ in range(wanted)] if services else []
        blows = _hit(
            Hammer(log, verifier, readers, work, lambda: time.monotonic() >= ends, SystemRandom(), pause)
        )
    _conclude(blows, as_json=as_json)


def _reader(stack: ExitStack, services: Services | None, url: str | None, token: str | None) -> LogReader:
    if url is None:
        assert services is not None  # noqa: S101 - it is left away with --url alone
        return DatabaseReader(services.engine)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    trusted = ssl.create_default_context()  # also what SSL_CERT_FILE names
    client = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False, verify=trusted)
    return HttpReader(stack.enter_context(client))


def _own_vkey(services: Services | None) -> str:
    assert services is not None  # noqa: S101 - it is left away with --vkey alone
    return log_keys(services).vkey


def _writer(services: Services) -> Callable[[], None]:
    numbers = count(1)
    return lambda: services.trail.note(EventType.AUDIT_TRIED, count=next(numbers))


def _hit(hammer_of: Hammer) -> Blows:
    try:
        return hammer_of.run()
    except httpx.HTTPError as error:
        raise click.UsageError(
            f"the gateway does not answer ({type(error).__name__}): look at --url"
        ) from None
    except click.ClickException as error:
        raise click.UsageError(error.message) from None


def _conclude(blows: Blows, *, as_json: bool) -> None:
    grew = blows.last_size > blows.first_size
    told: dict[str, Any] = {**asdict(blows), "ok": not blows.failure}
    click.echo(json.dumps(told) if as_json else _said(blows))
    if blows.failure:
        sys.exit(1)
    if blows.written and not grew:
        click.echo("the log did not grow: does a sequencer run?", err=True)
        sys.exit(2)


def _said(blows: Blows) -> str:
    counts = (
        f"{blows.inclusions} inclusion and {blows.consistencies} consistency proofs verified against "
        f"{blows.checkpoints} checkpoints, while {blows.written} entries were written and the log grew from "
        f"{blows.first_size} to {blows.last_size}"
    )
    return f"{counts}\nFAILED: {blows.failure}" if blows.failure else counts
