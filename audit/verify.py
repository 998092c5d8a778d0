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

from audit.chain import ChainBroken, walk
from audit.checkpoint import NoteVerifier, SignedTree
from audit.errors import AuditError, BadBundle, BadKey, BadReceipt
from audit.examination import PROGRESS_EACH, Examination, Progress, Refuted
from audit.opening import OpenBundle, open_bundle
from audit.receipt import ReceiptKeys
from audit.verdict import ReceiptFinding, ReceiptVerdict, Verdict

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
        now: the time at which receipts are judged due; the present if None.
        progress: hears (done, total) now and then.

    Raises:
        BadKey: `vkey` or `jwks` is malformed.
        OSError: the file cannot be read.
    """
    verifier = NoteVerifier.parse(vkey) if vkey is not None else None
    keys = ReceiptKeys.parse(jwks) if jwks is not None else None
    try:
        with open_bundle(Path(path)) as bundle:
            trusted = verifier or _own_verifier(bundle)
            judge = _Judge(bundle, trusted, _signed_tree(bundle, trusted), progress)
            if verifier is None:
                judge.remarks.append(_OWN_KEY)
            return judge.judge(since, receipts, keys, now or datetime.now(UTC))
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


def _signed_tree(bundle: OpenBundle, verifier: NoteVerifier) -> SignedTree:
    try:
        return verifier.open(bundle.checkpoint)
    except AuditError as error:
        raise Refuted(f"the checkpoint: {error}") from None


class _Judge:
    """Checks one bundle whose checkpoint is genuine, and writes down what was checked."""

    def __init__(
        self, bundle: OpenBundle, verifier: NoteVerifier, signed: SignedTree, progress: Progress | None
    ) -> None:
        self._bundle = bundle
        self._verifier = verifier
        self._signed = signed
        self._examination = Examination(signed, progress)
        key = verifier.vkey.rsplit("+", 1)[0]
        self._checks = [f"the checkpoint of {signed.size} entries is signed by {key}"]
        self._findings: list[ReceiptFinding] = []
        self.remarks: list[str] = []

    def judge(
        self, since: str | None, receipts: Sequence[str], keys: ReceiptKeys | None, now: datetime
    ) -> Verdict:
        try:
            if since is not None:
                self._examination.take_old(self._verifier, since)
            self._examination.take_receipts(receipts, self._verifier, keys)
            self._walk()
            self._judge_receipts(keys, now)
        except Refuted as refuted:
            return self._verdict(refuted)
        return self._verdict(None)

    def _walk(self) -> None:
        try:
            walk(self._bundle.lines(), self._signed, self._examination.visit)
        except ChainBroken as broken:
            raise Refuted(broken.problem, broken.seq) from None
        self._checks.append("every entry is canonical, in order, and bears the hash of the one before")
        self._checks.append("the Merkle root of the entries is the signed one")
        for old in self._examination.olds:
            self._checks.append(f"the first {old.size} entries are those of the older checkpoint")
        self._checks += self._examination.succession()
        self._examination.judge_strangers()
        self.remarks += self._examination.remarks()

    def _judge_receipts(self, keys: ReceiptKeys | None, now: datetime) -> None:
        self._findings = self._examination.judge_receipts(now, is_checked=keys is not None)
        for finding in self._findings:
            if finding.verdict is ReceiptVerdict.OVERDUE_MISSING:
                raise Refuted(
                    f"the entry {finding.entry_id} was promised and is not in the log, though its time is up "
                    "(if the bundle is old, take a new one)"
                )

    def _verdict(self, refuted: Refuted | None) -> Verdict:
        return Verdict(
            ok=refuted is None,
            checks=tuple(self._checks),
            first_bad_seq=refuted.seq if refuted else None,
            problem=refuted.problem if refuted else None,
            origin=self._signed.origin,
            size=self._signed.size,
            root=self._signed.root.hex(),
            receipts=tuple(self._findings),
            remarks=tuple(self.remarks),
        )


def read_receipt(given: str) -> str:
    """A receipt from a file (a compact JWS, a proof file, or the JSON answer that bore it), or itself."""
    text = given if _is_receipt(given) else Path(given).read_text("utf-8")
    if not text.lstrip().startswith("{"):
        return text
    answer = json.loads(text)
    if not isinstance(answer.get("receipt"), str):
        raise BadReceipt(f"{given} bears no receipt")
    return str(answer["receipt"])


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
            progress=_show_progress if sys.stderr.isatty() else None,
        )
    except (OSError, ValueError, BadKey, BadReceipt) as error:
        print(f"audit.verify: {error}", file=sys.stderr)
        return 2
    print(json.dumps(verdict.public(), indent=2) if options.json else verdict.text())
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
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _read(path: Path | None) -> str | None:
    return path.read_text("utf-8") if path is not None else None


def _is_receipt(text: str) -> bool:
    return text.startswith("eyJ") and text.count(".") == 2 and "/" not in text


def _show_progress(done: int, total: int) -> None:
    end = "\n" if done + PROGRESS_EACH > total else ""
    print(f"\r{done} of {total} entries", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
