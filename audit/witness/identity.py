"""Who a witness is: its folder with the key (made at the first start, readable by its user alone) and the memory."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from audit.cosignature import CosignatureSigner
from audit.errors import BadKey
from audit.witness.errors import WrongIdentity
from audit.witness.memory import Memory

KEY_FILE = "witness.key"
MEMORY_FILE = "witness.db"


def open_identity(folder: Path, name: str | None) -> tuple[CosignatureSigner, Memory]:
    """The witness of a folder, which is made at the first start.

    The memory is made before the key: a key without its memory was not lost in a crash, and is refused.

    Args:
        folder: its state.
        name: its name, a URL without the scheme; needed at the first start, and the same ever after.

    Raises:
        WrongIdentity: the name or the key file cannot be used.
        MemoryLost, MemoryUnusable: it is not known what this witness cosigned.
    """
    key_path, memory_path = folder / KEY_FILE, folder / MEMORY_FILE
    if not key_path.exists():
        _begin(folder, name)
    memory = Memory(memory_path)
    if name is not None and name != memory.name:
        raise WrongIdentity(f"this witness is {memory.name}: a key must not cosign under two names")
    return CosignatureSigner(memory.name, _read_key(key_path)), memory


def _begin(folder: Path, name: str | None) -> None:
    if name is None:
        raise WrongIdentity("a new witness needs a name, such as witness.example.com/w1 (--name)")
    made = Ed25519PrivateKey.generate()
    try:
        CosignatureSigner(name, made)
    except BadKey as error:
        raise WrongIdentity(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / MEMORY_FILE).exists():
        Memory.create(folder / MEMORY_FILE, name)
    _write_key(folder / KEY_FILE, made)


def _write_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Whole or not there; of two first starts at the same time one key stays."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        path.hardlink_to(aside)
    aside.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)


def _read_key(path: Path) -> Ed25519PrivateKey:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise WrongIdentity(f"{path.name} can be read by others: chmod 600")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise WrongIdentity(f"{path.name} is not an Ed25519 key in PEM (PKCS 8)")
    return key
