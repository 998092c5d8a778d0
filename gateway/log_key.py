"""The keys that sign the log: in the key store, in a PEM file, or in AWS KMS; during a rotation there are several.

What signs is what the key store lists, so that no change of a setting changes the log's key unannounced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from audit.checkpoint import NoteKey, NoteSigner, NoteVerifier
from audit.errors import NoCheckpoint
from audit.reading import reading
from audit.store import entry_by_id
from compliance.keyring.keys import SigningKeyRow, SigningUse
from compliance.keyring.signing_keys import SigningKeys
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.services import Services

if TYPE_CHECKING:
    from gateway.storage.kms import Kms

log = logging.getLogger(__name__)
USE = SigningUse.LOG
_FILE_SCHEME, _KMS_SCHEME = "file:", "aws-kms:"


class LogKeys:
    """Signs checkpoints with every key that is in force; an `audit.checkpoint.LogSigner`.

    A key that another process begins or retires is taken up at the next signature, without a restart.

    Args:
        origin: the log's name.
        signing: the key store's signing keys.
        config: `log_key` names the first key, if it is not to be made in the key store.
        is_within: whether an entry, by its id, is within the first so many of the log.
    """

    def __init__(
        self, origin: str, signing: SigningKeys, config: Config, is_within: Callable[[str, int], bool]
    ) -> None:
        self.origin = origin
        self._is_within = is_within
        self._signing = signing
        self._config = config
        self._places = Places(config)
        self._opened: dict[str, NoteKey] = {}
        self._remarked = ""

    @property
    def vkey(self) -> str:
        """The verifier key of the newest key."""
        return self.vkeys[0]

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The verifier keys of all keys that sign now, the newest first; no private key is needed for it.

        Raises:
            NoCheckpoint: the log has no key yet.
        """
        rows = self._signing.in_force(USE)
        if not rows:
            raise NoCheckpoint("the log has no key yet: run the sequencer (fl-gateway sequence) first")
        return tuple(NoteVerifier.of(self.origin, row.public).vkey for row in rows)

    def sign(self, size: int, root: bytes) -> str:
        """The checkpoint of a tree, with a signature line of each key, the newest first.

        A key that is announced signs from the first tree on that holds its announcement; so does the one before it.

        Raises:
            KmsAway: a key is in KMS, which does not answer.
            ConfigError: a key's file cannot be used.
        """
        next_one, rows = self._signing.standing(USE)
        rows = rows or [self.first()]
        if next_one is not None and self._is_within(next_one.awaits or "", size):
            rows = [next_one, *rows]
        self._remark_other(rows[0])
        return NoteSigner(self.origin, *(self.open(row) for row in rows)).sign(size, root)

    def first(self) -> SigningKeyRow:
        """The log's first key: the one that `FLG_LOG_KEY` names, or one made in the key store."""
        place = self._config.log_key
        if not place:
            return self._signing.newest(USE) or self._signing.add_first(USE, self._signing.draw())
        public = self._places.at(place).public_key().public_bytes_raw()
        return self._signing.add_first(USE, public=public, held_at=place)

    def open(self, row: SigningKeyRow) -> NoteKey:
        """The private key of a row, wherever it is."""
        if row.kid not in self._opened:
            self._opened[row.kid] = self._places.held(row) if row.held_at else self._signing.private(row)
        return self._opened[row.kid]

    def _remark_other(self, newest: SigningKeyRow) -> None:
        wished, told = self._config.log_key, ""
        if wished and wished != (newest.held_at or ""):
            told = f"FLG_LOG_KEY names {wished.partition(':')[0]}: …, and the log is signed by the key {newest.kid}"
        if told and told != self._remarked:
            log.warning("%s: announce the change with `fl-gateway keys rotate log`", told)
        self._remarked = told


class Places:
    """Opens keys that are held outside of the key store.

    Args:
        config: where KMS is.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._kms: Kms | None = None

    def at(self, place: str) -> NoteKey:
        """The key at a place that `FLG_LOG_KEY` names."""
        if place.startswith(_FILE_SCHEME):
            return _in_file(Path(place.removeprefix(_FILE_SCHEME)))
        key_id = place.removeprefix(_KMS_SCHEME)
        if not place.startswith(_KMS_SCHEME) or not key_id:
            raise ConfigError("FLG_LOG_KEY must have the form file:PEM or aws-kms:KEY_ID")
        return self._in_kms(key_id)

    def held(self, row: SigningKeyRow) -> NoteKey:
        """The key of a row that is held outside of the key store."""
        place = row.held_at or ""
        if place.startswith(_KMS_SCHEME):
            public = Ed25519PublicKey.from_public_bytes(row.public)
            return self._in_kms(place.removeprefix(_KMS_SCHEME), public)
        key = self.at(place)
        if key.public_key().public_bytes_raw() != row.public:
            raise ConfigError(
                f"the key in {place.removeprefix(_FILE_SCHEME)} is not the log's any more: put that one back, and "
                "change keys with `fl-gateway keys rotate log`"
            )
        return key

    def _in_kms(self, key_id: str, public: Ed25519PublicKey | None = None) -> NoteKey:
        from gateway.storage.kms import Kms, KmsNoteKey  # boto3 takes its time to load

        if self._kms is None:
            self._kms = Kms(self._config)
        return KmsNoteKey(self._kms, key_id, public or self._kms.public_key(key_id))


def log_keys(services: Services) -> LogKeys:
    """What signs the log of these services."""

    def is_within(entry_id: str, size: int) -> bool:
        with reading(services.engine) as conn:
            entry = entry_by_id(conn, entry_id)
        return entry is not None and entry.seq < size

    return LogKeys(services.origin, services.keystore.signing, services.config, is_within)


def _in_file(path: Path) -> Ed25519PrivateKey:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600 it")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"FLG_LOG_KEY: {path} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"FLG_LOG_KEY: {path} must hold an Ed25519 key in PEM (PKCS #8), without a password"
        )
    return key
