"""The witness as a command: `python -m audit.witness`, and `fl-gateway witness`, which passes its words on here."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from audit.checkpoint import NoteVerifier
from audit.errors import AuditError, BadKey
from audit.witness.identity import open_identity
from audit.witness.judging import Witness
from audit.witness.memory import Memory
from audit.witness.serving import WitnessServer

_USAGE_EXIT = 2
_END_PATIENCE_S = 5.0
_ABOUT = """\
Cosign the checkpoints of logs as long as each continues the one before (C2SP tlog-witness). Whoever runs a witness
should not be whoever runs the log. The first start makes the key and the memory in the folder; keep that folder on
this machine, give its backups to nobody, and never restore it: the memory is what the witness is worth.
"""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m audit.witness") -> int:
    """Run the command; returns its exit status."""
    asked = _parser(prog).parse_args(words)
    try:
        signer, memory = open_identity(asked.state, asked.name)
        if asked.vkey:
            print(signer.vkey)
            return 0
        if asked.refused:
            _print_refused(memory)
            return 0
        witness = Witness(signer, _logs(asked.log), memory, lambda: datetime.now(UTC))
        server = WitnessServer(asked.host, asked.port, witness)
    except (AuditError, OSError) as error:
        told = f"{error.filename or asked.host}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"{prog}: {told}", file=sys.stderr)
        return _USAGE_EXIT
    _serve(server, signer.vkey)
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=_ABOUT)
    parser.add_argument("--state", type=Path, default=Path("witness"), help="folder of key and memory")
    parser.add_argument("--name", help="a URL without the scheme, witness.example.com/w1; at the first start")
    parser.add_argument(
        "--log", action="append", default=[], metavar="VKEY", help="a log's key, or a file with it; repeat it"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=8090, help="port to listen on; 0 takes a free one")
    parser.add_argument("--vkey", action="store_true", help="print this witness's key, and end")
    parser.add_argument(
        "--refused", action="store_true", help="print the checkpoints that were refused as forks, and end"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number up to 65535")
    return int(text)


def _logs(texts: Sequence[str]) -> list[NoteVerifier]:
    if not texts:
        raise BadKey("a witness follows at least one log (--log VKEY)")
    return [NoteVerifier.parse(_text_of(text)) for text in texts]


def _text_of(text: str) -> str:
    """The key itself, or what the file of that name holds."""
    return text if "+" in text else Path(text).read_text("utf-8", "replace")


def _print_refused(memory: Memory) -> None:
    for found in memory.refused():
        told = {"origin": found.origin, "why": found.why, "at": found.at.isoformat()}
        print(json.dumps({**told, "cosigned": found.cosigned, "refused": found.refused}))


def _serve(server: WitnessServer, vkey: str) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    print(f"vkey {vkey}\nready {server.url}", flush=True)
    stop.wait()
    server.finish(_END_PATIENCE_S)
