"""The verifier: checks an audit bundle offline, with the log's public key alone.

It needs the standard library and `cryptography`: `python -m audit.verify BUNDLE.zip` exits 0 if the log is
sound, 1 if it is not (naming the first bad seq), 2 on wrong usage. docs/audit-log.md says what it proves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from audit.checkpoint import NoteVerifier
from audit.errors import BadBundle, BadKey, BadReceipt, Refuted
from audit.receipt import ReceiptKeys
from audit.verifier.judging import Judge
from audit.verifier.opening import OpenBundle, open_bundle
from audit.verifier.progress import Progress, on_terminal
from audit.verifier.quorum import Quorum
from audit.verifier.verdict import Verdict

_OWN_KEY = (
    "the key was taken from the bundle itself, and so chosen by whoever made the bundle: "
    "get the log's key from elsewhere and give it with --vkey"
)


def verify_bundle(
    path: Path | str,
    *,
    vkey: str | None = None,
    since: str | None = None,
    receipts: Sequence[str] = (),
    jwks: str | None = None,
    witnesses: Sequence[str] = (),
    quorum: int | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Check a bundle. All arguments but the path are texts, not file names.

    Args:
        path: the bundle.
        vkey: the log's verifier key, got from elsewhere; without it the bundle's own is used, and said.
        since: an older checkpoint (signed note): its tree must be the beginning of this one.
        receipts: receipts (compact JWS) or proof files (C2SP tlog-proof) whose entries must be here.
        jwks: the receipt keys, a JWKS or PEM; without them receipts are believed, and that is said.
        witnesses: the verifier keys of witnesses who must have cosigned a beginning of this log.
        quorum: how many of them must; all of them if None.
        now: the time at which receipts are judged due; the present if None.
        progress: hears (done, total) now and then.

    Raises:
        BadKey: `vkey`, `jwks`, `witnesses` or `quorum` cannot be used.
        OSError: the file cannot be read.
    """
    verifier = NoteVerifier.parse(vkey) if vkey is not None else None
    keys = ReceiptKeys.parse(jwks) if jwks is not None else None
    asked = Quorum.of(witnesses, quorum)
    try:
        with open_bundle(Path(path)) as bundle:
            judge = Judge(bundle, verifier or _own_verifier(bundle), progress)
            if verifier is None:
                judge.remarks.append(_OWN_KEY)
            return judge.judge(since, receipts, keys, asked, now or datetime.now(UTC))
    except BadBundle as error:
        return Verdict(ok=False, checks=(), problem=str(error))
    except Refuted as refuted:
        return Verdict(ok=False, checks=(), problem=refuted.problem)


def _own_verifier(bundle: OpenBundle) -> NoteVerifier:
    if bundle.vkey is None:
        raise BadBundle("the bundle's member 'keys/log.vkey' is missing: give the key with --vkey")
    try:
        return NoteVerifier.parse(bundle.vkey)
    except BadKey as error:
        raise BadBundle(f"the bundle's own key: {error}") from None


def read_receipt(given: str) -> str:
    """A receipt from a file (a compact JWS, a proof file, or the JSON answer that bore it), or itself."""
    text = given if _is_receipt(given) else Path(given).read_text("utf-8")
    if not text.lstrip().startswith("{"):
        return text
    try:
        answer = json.loads(text)
    except RecursionError:
        raise BadReceipt(f"{given} is nested too deep to be an answer that bears a receipt") from None
    if not isinstance(answer.get("receipt"), str):
        raise BadReceipt(f"{given} bears no receipt")
    return str(answer["receipt"])


def read_witnesses(given: str) -> list[str]:
    """The witness keys that an option names: one key, or a file with one on each line.

    Raises:
        BadKey: the file holds none; without a word, nobody would be asked for.
    """
    if given.count("+") >= 2 and not Path(given).is_file():
        return [given]
    keys = Path(given).read_text("utf-8").split()
    if not keys:
        raise BadKey(f"{given} names no witness: one key on each line")
    return keys


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m audit.verify`; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        verdict = verify_bundle(
            options.bundle,
            vkey=_read(options.vkey),
            since=_read(options.since),
            receipts=[read_receipt(given) for given in options.receipt],
            jwks=_read(options.jwks),
            witnesses=[key for given in options.witness for key in read_witnesses(given)],
            quorum=options.quorum,
            progress=on_terminal(),
        )
    except (OSError, ValueError, BadKey, BadReceipt) as error:
        print(f"audit.verify: {error}", file=sys.stderr)
        return 2
    print(json.dumps(verdict.public(), indent=2) if options.json else _shown(verdict.text()))
    return 0 if verdict.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("audit.verify", description="Check an audit bundle, offline.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle (ZIP)")
    parser.add_argument("--vkey", type=Path, metavar="FILE", help="the log's key, from a source you trust")
    parser.add_argument(
        "--since", type=Path, metavar="FILE", help="an older checkpoint that this log continues"
    )
    parser.add_argument(
        "--receipt", action="append", default=[], metavar="R", help="a receipt or proof file; repeatable"
    )
    parser.add_argument("--jwks", type=Path, metavar="FILE", help="the receipt keys: a JWKS, or one in PEM")
    parser.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="VKEY|FILE",
        help="the key of a witness who must have cosigned the log, or a file of such keys; repeatable",
    )
    parser.add_argument("--quorum", type=int, metavar="N", help="how many witnesses must; default: all given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _read(path: Path | None) -> str | None:
    return path.read_text("utf-8") if path is not None else None


def _shown(text: str) -> str:
    """The text with a question mark for each letter that this terminal does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _is_receipt(text: str) -> bool:
    return text.startswith("eyJ") and text.count(".") == 2 and "/" not in text


if __name__ == "__main__":
    sys.exit(main())
