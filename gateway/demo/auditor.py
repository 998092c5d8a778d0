"""The auditor's part: fetch the log as a bundle, check it offline, and see a forgery found."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit.entry import Entry, parse_entry
from audit.verifier.opening import CHECKPOINT, ENTRIES, VKEY
from audit.verifier.verdict import Verdict
from audit.verify import verify_bundle
from gateway.demo.api import Api, Json, wait_for
from gateway.demo.silo import Sent

SEQUENCED_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Auditor:
    """Somebody outside the house: may read the log, and trusts the public key alone."""

    api: Api
    token: str = field(repr=False)

    def fetch_bundle(self, path: Path) -> Path:
        """Write the gateway's audit bundle there."""
        path.write_bytes(self.api.get("/api/v1/audit/bundle", self.token).content)
        return path

    def receipt_keys(self) -> str:
        """The public keys of receipts, a JWKS that anybody may read."""
        return self.api.get("/.well-known/jwks.json", self.token).text

    def budget_spent(self, model_id: str) -> float:
        """The epsilon that the gateway's ledger says was spent on this model."""
        lines = self.api.get_json("/api/v1/privacy/budget", self.token)["data"]
        return float(next(line["epsilon_spent"] for line in lines if line["model_id"] == model_id))

    def privacy_report(self, version: str) -> Json:
        """What the gateway claims about a model's privacy."""
        return self.api.get_json(f"/api/v1/privacy/report/{version}", self.token)


def wait_until_sequenced(api: Api, token: str, sent: Sent) -> str:
    """The proof (C2SP tlog-proof) that the update's entry is in the log, once it is."""

    def look() -> str | None:
        answer = api.get(f"/api/v1/updates/{sent.update_id}/receipt", token, expect=(200, 202))
        return answer.text if answer.status_code == 200 else None

    return wait_for("The entry of an acknowledged update", look, timeout_s=SEQUENCED_TIMEOUT_S)


def read_entries(bundle: Path) -> list[Entry]:
    """The entries of a bundle, in order; nothing is verified."""
    with zipfile.ZipFile(bundle) as archive:
        return [parse_entry(line) for line in archive.read(ENTRIES).splitlines()]


def read_checkpoint(bundle: Path) -> str:
    """The signed note of a bundle."""
    return _read_text(bundle, CHECKPOINT)


def read_vkey(bundle: Path) -> str:
    """The log's public key, as the bundle states it."""
    return _read_text(bundle, VKEY).strip()


def forge(bundle: Path, copy: Path, seq: int) -> Path:
    """Copy a bundle with one byte changed: the last digit of the time of the entry at `seq`."""
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            body = source.read(name)
            target.writestr(name, _changed(body, seq) if name == ENTRIES else body)
    return copy


def verify(
    bundle: Path,
    *,
    vkey: str | None = None,
    since: str | None = None,
    receipts: Sequence[str] = (),
    jwks: str | None = None,
) -> Verdict:
    """Check a bundle as `fl-gateway audit verify` does: with the standard library and public keys."""
    return verify_bundle(bundle, vkey=vkey, since=since, receipts=receipts, jwks=jwks)


def _read_text(bundle: Path, name: str) -> str:
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name).decode("utf-8")


def _changed(entries: bytes, seq: int) -> bytes:
    lines = entries.splitlines(keepends=True)
    line = bytearray(lines[seq])
    position = line.index(b'Z"', line.index(b'"time":"')) - 1
    line[position] ^= 1  # a digit stays a digit: the entry still looks as it should
    lines[seq] = bytes(line)
    return b"".join(lines)
