"""The master key: from the configuration, or made once at the first start, readable by its owner alone."""

from __future__ import annotations

import secrets
from pathlib import Path

from gateway.errors import ConfigError
from gateway.storage.durable import replace_file

KEY_BYTES = 32
KEY_FILE = Path("keys/master.key")


def load_master_key(configured: str, path: Path = KEY_FILE) -> bytes:
    """The 32 bytes that wrap every subject key, seed and signing key.

    Args:
        configured: `FLG_MASTER_KEY`, 64 hex digits; empty to use (and first make) the file.
        path: the embedded default's file.

    Raises:
        ConfigError: the key is not 64 hex digits, or others can read its file.
    """
    if configured:
        return _parse(configured, "FLG_MASTER_KEY")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_once(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} can be read by others: chmod 600 it")
    return _parse(path.read_text("ascii").strip(), str(path))


def _make_once(path: Path) -> None:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    replace_file(aside, secrets.token_hex(KEY_BYTES).encode())
    try:
        path.hardlink_to(aside)  # fails where another process was first: its key is the one
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def _parse(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{where} must hold {2 * KEY_BYTES} hex digits")
    return key
