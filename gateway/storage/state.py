"""The state (RULES 1): facts that only grow and are never restored, each fsynced before it counts.

One directory: the last signed checkpoint, the ids of erased keys, the spends whose seed was opened, the log's
origin, and the epoch that clears caches. Writers take one advisory lock; readers need none.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.checkpoint import SignedTree
from audit.errors import StateConflict
from gateway.errors import ConfigError
from gateway.storage.durable import replace_file, sync_directory
from gateway.storage.epochs import Endings

_EPOCH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Spend:
    """A release whose seed was opened: its mechanism counts for ever, whatever a restored database says."""

    ledger_id: str
    model_id: str
    round_number: int
    mechanism: dict[str, Any]


class FileState:
    """The state in a directory; safe for several processes of one machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._epoch_map = _map_epoch(directory / "epoch")
        self._erased: tuple[int, frozenset[str]] = (0, frozenset())
        self.endings = Endings(directory / "endings")

    def last_checkpoint(self) -> SignedTree | None:
        """The largest tree that was ever signed under the origin in force, or None before the first."""
        path = self._directory / "checkpoint.json"
        if not path.exists():
            return None
        last = _tree(json.loads(path.read_bytes()))
        return None if last.origin in {old.origin for old in self.predecessors()} else last

    def predecessors(self) -> list[SignedTree]:
        """The logs that ended before this one, each with its last tree, the oldest first (RULES 20)."""
        return [_tree(json.loads(line)) for line in self._lines("predecessors.jsonl")]

    def predecessor(self) -> SignedTree | None:
        """The last tree of the log that this one succeeds, or None if it is the first."""
        return next(reversed(self.predecessors()), None)

    def succeed(self, old: SignedTree, origin: str) -> None:
        """End the log in force at this tree, for ever, and begin another: one appended line does both.

        Raises:
            StateConflict: another tree was signed meanwhile, or the new origin was a log's name before.
        """
        with self._locked():
            known = self.predecessors()
            if known and known[-1] == old and self._origin() == origin:
                return  # a repetition after a crash
            last = self.last_checkpoint()
            if (last and last != old) or origin in {old.origin, *(tree.origin for tree in known)}:
                raise StateConflict("the last signed checkpoint is another one, or the new origin is not new")
            told = {"origin": old.origin, "size": old.size, "root": old.root.hex(), "successor": origin}
            self._append_unlocked("predecessors.jsonl", [json.dumps(told, sort_keys=True)])

    def advance_checkpoint(self, expected: SignedTree | None, new: SignedTree) -> None:
        """Remember a larger tree, if the last one is still the expected one.

        Raises:
            StateConflict: another signer was here, or the new tree is smaller.
        """
        with self._locked():
            if self.last_checkpoint() != expected or (expected and new.size < expected.size):
                raise StateConflict("the last signed checkpoint is another one")
            told = {"origin": new.origin, "size": new.size, "root": new.root.hex()}
            replace_file(self._directory / "checkpoint.json", json.dumps(told).encode())

    def erased_keys(self) -> frozenset[str]:
        """The ids of every subject key that an erasure destroyed."""
        read_bytes, known = self._erased
        path = self._directory / "erased-keys.log"
        size_bytes = path.stat().st_size if path.exists() else 0
        if size_bytes != read_bytes:  # whole lines never change: only what was added is read
            with path.open("rb") as file:
                file.seek(read_bytes)
                added = file.read()
            whole = added[: added.rfind(b"\n") + 1]  # a torn last line was never acknowledged
            known |= frozenset(whole.decode("ascii").splitlines())
            self._erased = (read_bytes + len(whole), known)
        return known

    def add_erased_keys(self, key_ids: Iterable[str]) -> None:
        """Write down, for ever, that these keys are to be destroyed; one that is there already is not again."""
        with self._locked():
            known = self.erased_keys()
            new = [key_id for key_id in dict.fromkeys(key_ids) if key_id not in known]
            if new:
                self._append_unlocked("erased-keys.log", new)

    def spends(self) -> list[Spend]:
        """Every release whose seed was opened, in order."""
        return [Spend(**json.loads(line)) for line in self._lines("spends.jsonl")]

    def add_spend(self, spend: Spend) -> None:
        """Write down that a release's noise is about to be drawn; the same release twice counts once."""
        told = {
            "ledger_id": spend.ledger_id,
            "model_id": spend.model_id,
            "round_number": spend.round_number,
            "mechanism": spend.mechanism,
        }
        with self._locked():
            if all(known.ledger_id != spend.ledger_id for known in self.spends()):
                self._append_unlocked("spends.jsonl", [json.dumps(told, sort_keys=True)])

    def origin(self, wished: str) -> str:
        """The log's origin: fixed at the first start, and the same until a restore has to begin another log.

        Raises:
            ConfigError: the configuration wishes another origin than the log has, or had at first.
        """
        path = self._directory / "origin"
        with self._locked():
            if not path.exists():
                replace_file(path, (wished or f"fl-gateway/{os.urandom(4).hex()}").encode())
        kept = self._origin()
        if wished and wished not in (kept, path.read_text("utf-8")):
            raise ConfigError(f"FLG_LOG_ORIGIN is {wished}, but this log's origin is {kept} for ever")
        return kept

    def epoch(self) -> int:
        """The revocation epoch; a changed value says that cached keys and tokens are to be dropped."""
        return int(_EPOCH.unpack_from(self._epoch_map)[0])

    def token_epoch(self, key: str) -> int:
        """A number that moves when the token, client or person under a key may have ended, or the epoch moves."""
        return self.epoch() + self.endings.of(key)

    def bump_epoch(self) -> int:
        """Make every process drop its caches."""
        with self._locked():
            value = self.epoch() + 1
            _EPOCH.pack_into(self._epoch_map, 0, value)
            self._epoch_map.flush()
        return value

    def _origin(self) -> str:
        lines = self._lines("predecessors.jsonl")
        return str(json.loads(lines[-1])["successor"]) if lines else (self._directory / "origin").read_text()

    def _lines(self, name: str) -> list[str]:
        path = self._directory / name
        if not path.exists():
            return []
        text = path.read_text("utf-8")
        return text[: text.rfind("\n") + 1].splitlines()  # a torn last line was never acknowledged

    def _append_unlocked(self, name: str, lines: list[str]) -> None:
        path = self._directory / name
        kept = self._lines(name)
        whole = len("".join(f"{line}\n" for line in kept).encode())
        with path.open("ab") as file:
            file.truncate(whole)
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self._directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _tree(told: Mapping[str, Any]) -> SignedTree:
    return SignedTree(told["origin"], told["size"], bytes.fromhex(told["root"]))


def _map_epoch(path: Path) -> mmap.mmap:
    with path.open("ab") as file:
        if file.tell() < _EPOCH.size:
            file.write(bytes(_EPOCH.size - file.tell()))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _EPOCH.size)


def open_state(url: str) -> FileState:
    """The state that `FLG_STATE_URL` names.

    Raises:
        ConfigError: it is not of the form `file:DIR`.
    """
    scheme, _, path = url.partition(":")
    if scheme != "file" or not path:
        raise ConfigError("FLG_STATE_URL must have the form file:DIR")
    return FileState(Path(path))
