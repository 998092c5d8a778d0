"""Where the master key is kept: in the configuration, in a file of its owner's alone, or in an envelope of AWS KMS.

There is one master key, and two while it is rotated: the first wraps, the others still open (decision 0108).
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.storage.durable import replace_file

if TYPE_CHECKING:
    from gateway.storage.kms import Kms

KEY_BYTES = 32
KEY_FILE = Path("keys/master.key")
KMS_FILE = Path("keys/master.kms")
KMS_SCHEME = "aws-kms:"
_FILE_SCHEME = "file:"


class MasterKeys:
    """The master keys that the configuration names, the one that wraps first.

    Args:
        config: `master_key`: places, parted by commas: 64 hex digits, `file:PATH`, or `aws-kms:KEY_ID`; empty is
            the file of the embedded default, which is made at the first start.
        file: that file.
        kms_file: where the envelopes of a KMS key are.
    """

    def __init__(self, config: Config, *, file: Path = KEY_FILE, kms_file: Path = KMS_FILE) -> None:
        named = [text.strip() for text in config.master_key.split(",")] if config.master_key else [""]
        self._places = [_place(config, text, file, kms_file) for text in named]

    def load(self) -> list[bytes]:
        """Every key that is known now; the first is made if its place is empty.

        Raises:
            ConfigError: a place is of no known form, or others can read its file.
            KmsAway: KMS does not open an envelope.
        """
        keys = [key for place in self._places for key in place.load()]
        return list(dict.fromkeys(keys))

    @property
    def is_there(self) -> bool:
        """Whether the first place has a key already."""
        return self._places[0].is_there

    @property
    def are_lost(self) -> bool:
        """Whether no place has a key: `load` would make the first one."""
        return not any(place.is_there for place in self._places)

    def add(self) -> None:
        """Put a new key before the others, durably; running processes read it when the epoch moves.

        Raises:
            ConfigError: the gateway cannot write where the key is kept.
        """
        self._places[0].add()

    def drop(self) -> None:
        """Keep the first key of the first place alone."""
        self._places[0].drop()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else rotates meanwhile.

        Raises:
            ConfigError: somebody does.
        """
        with self._places[0].alone():
            yield


class _Given:
    """A key that stands in the configuration itself."""

    is_there = True

    def __init__(self, text: str) -> None:
        self._key = _parse(text, "FLG_MASTER_KEY")

    def load(self) -> list[bytes]:
        return [self._key]

    def add(self) -> None:
        raise ConfigError(
            "FLG_MASTER_KEY holds the master key itself: put a new one before it (NEW,OLD), restart every process, "
            "and give the command again (docs/keys.md)"
        )

    def drop(self) -> None:
        """The operator takes the old one out of the configuration."""

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()  # no key is made: two commands at once do the same work


class _InFile:
    """Keys in a file, one a line, each in a form that `read` understands and `make` gives."""

    def __init__(self, path: Path, make: Callable[[], str], read: Callable[[str], bytes]) -> None:
        self._path, self._make, self._read = path, make, read
        self._known: list[bytes] = []

    @property
    def is_there(self) -> bool:
        return self._path.exists()

    def load(self) -> list[bytes]:
        if not self._path.exists():
            if self._known:  # taken away while this runs: what a new key wrapped, the old file would not open
                return self._known
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_once()
        if self._path.stat().st_mode & 0o077:
            raise ConfigError(f"{self._path} can be read by others: chmod 600 it")
        self._known = [self._read(line) for line in self._lines()]
        return self._known

    def add(self) -> None:
        self._write([self._make(), *self._lines()])

    def drop(self) -> None:
        self._write(self._lines()[:1])

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError("another command rotates the master key now: wait for it") from None
            yield

    def _open_lock(self) -> BinaryIO:
        try:
            return self._path.with_name(f"{self._path.name}.lock").open("wb")
        except OSError as error:
            raise self._unwritable(error) from None

    def _write(self, lines: list[str]) -> None:
        try:
            replace_file(self._path, "\n".join(lines).encode())
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"{self._path} cannot be written ({error.strerror}): the keys in it stay as they are"
        )

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text("ascii").split() or [""]
        except UnicodeDecodeError:
            return [""]  # no key: `read` says so

    def _make_once(self) -> None:
        aside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        replace_file(aside, self._make().encode())
        try:
            self._path.hardlink_to(aside)  # fails where another process was first: its key is the one
        except FileExistsError:
            pass
        finally:
            aside.unlink()


_Place = _Given | _InFile


def _place(config: Config, text: str, file: Path, kms_file: Path) -> _Place:
    if text.startswith(KMS_SCHEME):
        return _in_kms(config, text.removeprefix(KMS_SCHEME), kms_file)
    if text and not text.startswith(_FILE_SCHEME):
        return _Given(text)
    path = Path(text.removeprefix(_FILE_SCHEME)) if text else file
    return _InFile(path, lambda: secrets.token_hex(KEY_BYTES), lambda line: _parse(line, str(path)))


def _in_kms(config: Config, key_id: str, path: Path) -> _InFile:
    """Envelopes in a file; each is opened once a process, so that nothing later depends on KMS."""
    opened: dict[str, bytes] = {}
    kms: list[Kms] = []

    def service() -> Kms:
        from gateway.storage.kms import Kms  # boto3 takes its time to load

        if not kms:
            kms.append(Kms(config))
        return kms[0]

    def make() -> str:
        key, envelope = service().new_data_key(key_id)
        line = base64.b64encode(envelope).decode()
        opened[line] = key
        return line

    def read(line: str) -> bytes:
        if line not in opened:
            try:
                envelope = base64.b64decode(line, validate=True)
            except (binascii.Error, ValueError):
                raise ConfigError(f"{path} must hold envelopes of KMS in base64, one a line") from None
            opened[line] = service().opened(key_id, envelope)
        return opened[line]

    return _InFile(path, make, read)


def _parse(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{where} must hold {2 * KEY_BYTES} hex digits"
            + (", or say file:PATH or aws-kms:KEY_ID" if where.startswith("FLG_") else "")
        )
    return key
