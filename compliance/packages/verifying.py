"""Checks an export package offline, with public keys alone."""

from __future__ import annotations

import base64
import binascii
import json
import zipfile
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from compliance.errors import BadPackage
from compliance.packages.manifest import MANIFEST, SIGNATURE, Manifest, PackedFile

_BLOCK_BYTES = 1 << 16
_LONGEST_MANIFEST = 1 << 24


def verify_package(path: Path, public_key: bytes | Mapping[str, bytes]) -> Manifest:
    """Check a package against its signed manifest.

    Args:
        path: the ZIP file.
        public_key: the raw key that signed it, or several by their `kid`.

    Raises:
        BadPackage: it was changed, cut, or signed by another key.
    """
    try:
        with zipfile.ZipFile(path) as package:
            manifest = _signed_manifest(package, public_key)
            _check_names(package, manifest)
            for file in manifest.files:
                _check_file(package, file)
            return manifest
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadPackage(path.name, "this is not a whole ZIP file") from error


def _signed_manifest(package: zipfile.ZipFile, known: bytes | Mapping[str, bytes]) -> Manifest:
    try:
        for name in (MANIFEST, SIGNATURE):  # nobody has signed anything yet
            if package.getinfo(name).file_size > _LONGEST_MANIFEST:
                raise BadPackage(name, "it is longer than any manifest of ours")
        encoded = package.read(MANIFEST)
        signature = base64.b64decode(package.read(SIGNATURE), validate=True)
        facts = json.loads(encoded)
        kid = facts["kid"]
        public = known if isinstance(known, bytes) else known.get(kid)
        if public is None:
            raise BadPackage(SIGNATURE, "the manifest is signed by a key that is not among those given")
        Ed25519PublicKey.from_public_bytes(public).verify(signature, encoded)
        return Manifest(kid, tuple(PackedFile(**file) for file in facts["files"]))
    except InvalidSignature as error:
        raise BadPackage(SIGNATURE, "the manifest is not signed by this key") from error
    except (KeyError, TypeError, ValueError, RecursionError, binascii.Error) as error:
        raise BadPackage(MANIFEST, "the manifest or its signature is missing or malformed") from error


def _check_names(package: zipfile.ZipFile, manifest: Manifest) -> None:
    here = sorted(package.namelist())
    told = sorted([*(file.path for file in manifest.files), MANIFEST, SIGNATURE])
    if here != told or len(set(here)) != len(here):
        odd = next(iter(set(here) ^ set(told)), MANIFEST)
        raise BadPackage(odd, "the package and its manifest do not name the same files")


def _check_file(package: zipfile.ZipFile, file: PackedFile) -> None:
    digest, size = sha256(), 0
    with package.open(file.path) as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    if (size, digest.hexdigest()) != (file.bytes, file.sha256):
        raise BadPackage(file.path, "the file is not what the manifest says")
