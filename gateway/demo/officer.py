"""The data-protection officer's part: answer one silo's access request, then erase it, and prove both."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.entry import Entry, Sealed
from audit.errors import KeyDestroyed
from gateway.config import load_config
from gateway.demo.api import Api, Json, wait_for
from gateway.demo.errors import ClaimFailed
from gateway.demo.process import Home
from gateway.services import open_services

REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Officer:
    """Who answers for the data subjects' rights."""

    api: Api
    token: str = field(repr=False)

    def answer(self, kind: str, client_id: str) -> Json:
        """Open a request about a client, have it carried out, and wait until it is done.

        Raises:
            ClaimFailed: it ended otherwise.
            NotInTime: it took too long.
        """
        wish = {"type": kind, "subject": {"client_id": client_id}}
        case = self.api.post_json("/api/v1/privacy/requests", self.token, wish)
        path = f"/api/v1/privacy/requests/{case['id']}"
        if case["status"] == "received":  # a role that may not approve alone only opened it
            self.api.post_json(f"{path}/approve", self.token)

        def look() -> Json | None:
            found = self.api.get_json(path, self.token)
            if found["status"] in ("refused", "withdrawn"):
                raise ClaimFailed(f"the {kind} request ended as {found['status']}")
            return found if found["status"] == "completed" else None

        return wait_for(f"The {kind} request", look, timeout_s=REQUEST_TIMEOUT_S)

    def fetch(self, case: Json, part: str, path: Path) -> Path:
        """Write the `package` or the `receipt` of a request there."""
        path.write_bytes(self.api.get(f"/api/v1/privacy/requests/{case['id']}/{part}", self.token).content)
        return path


@dataclass(frozen=True, slots=True)
class Field:
    """A personal field of the log, as somebody with the gateway's key store and master key sees it."""

    seq: int
    event_type: str
    name: str
    value: Any = None
    is_readable: bool = False


def keys_of_entries(entries: Sequence[Entry], entry_ids: Collection[str]) -> frozenset[str]:
    """The ids of the keys under which the actors of these entries are sealed."""
    actors = (Sealed.read(entry.members["actor"]) for entry in entries if entry.id in entry_ids)
    return frozenset(actor.key for actor in actors if actor is not None)


def read_fields(home: Home, entries: Sequence[Entry], key_ids: Collection[str]) -> list[Field]:
    """Try to decrypt every field sealed under these keys, with all that the gateway's operator has."""
    environ = {"FLG_MASTER_KEY_FILE": str(home.master_key_path)}
    config = load_config(environ, home.settings_path)
    with closing(open_services(config, part="console")) as services:
        found = []
        for entry in entries:
            for name, sealed in _sealed_fields(entry):
                if sealed.key not in key_ids:
                    continue
                try:
                    value = services.sealer.open(sealed, f"{entry.id}.{name}")
                except KeyDestroyed:
                    found.append(Field(entry.seq, entry.event_type, name))
                else:
                    found.append(Field(entry.seq, entry.event_type, name, value, is_readable=True))
        return found


def entry_id_of_receipt(receipt: str) -> str:
    """The entry that an update's receipt names (`audit verify` checks the signature)."""
    return str(payload_of(receipt)["entry_id"])


def payload_of(token: str) -> Json:
    """The JSON inside a compact JWS, unverified."""
    payload = token.strip().split(".")[1]
    found: Json = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


def package_files(package: Path) -> list[Json]:
    """What an export package says it holds: path, rows, size and the article of the GDPR."""
    with zipfile.ZipFile(package) as archive:
        files: list[Json] = json.loads(archive.read("manifest.json"))["files"]
    return files


def _sealed_fields(entry: Entry) -> Iterator[tuple[str, Sealed]]:
    values = {"actor": entry.members["actor"], "ip_address": entry.members["ip_address"]}
    values |= {f"details.{name}": value for name, value in entry.details.items()}
    for name, value in values.items():
        if (sealed := Sealed.read(value)) is not None:
            yield name, sealed
