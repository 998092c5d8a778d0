"""`fl-gateway witness`: the witness of another's log, the same as `python -m audit.witness`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from audit.witness.command import main


@click.command()
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default="witness",
    show_default=True,
    help="Folder of key and memory; made at the first start, never restored.",
)
@click.option("--name", help="A URL without the scheme, witness.example.com/w1; at the first start.")
@click.option(
    "--log", "logs", multiple=True, metavar="VKEY|FILE", help="A log's key, or a file with it; repeat it."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 takes a free one."
)
@click.option("--vkey", is_flag=True, help="Print this witness's key, and end.")
@click.option("--refused", is_flag=True, help="Print the checkpoints that were refused as forks, and end.")
def witness(
    *,
    state: Path,
    name: str | None,
    logs: tuple[str, ...],
    host: str,
    port: int,
    vkey: bool,
    refused: bool,
) -> None:
    """Cosign another's log as long as it only grows; prints its key and `ready http://…`.

    The same as `python -m audit.witness`, which needs nothing else of the gateway. Whoever runs a witness should not
    be whoever runs the log.
    """
    words = ["--state", str(state), "--host", host, "--port", str(port)]
    words += ["--name", name] if name is not None else []
    words += [word for log in logs for word in ("--log", log)]
    words += [*(["--vkey"] if vkey else []), *(["--refused"] if refused else [])]
    sys.exit(main(words, prog="fl-gateway witness"))
