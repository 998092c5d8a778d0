"""The verifier as one file: the modules that `audit.verify` imports, unchanged, as a ZIP that Python runs.

Equal sources give equal bytes, so that two people can compare what they got from two places.
"""

from __future__ import annotations

import ast
import io
from importlib.resources import files
from zipfile import ZIP_STORED, ZipFile, ZipInfo

_PACKAGE = "audit"
_FIRST = "audit.verify"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = '''\
"""fl-gateway's verifier of audit bundles, as one file: python verify.pyz BUNDLE.zip --vkey KEY_FROM_ELSEWHERE"""

import sys

if sys.version_info < (3, 11):
    sys.exit("verify.pyz: needs Python 3.11 or later")
try:
    import cryptography  # noqa: F401
except ModuleNotFoundError:
    sys.exit("verify.pyz: needs the package cryptography: pip install cryptography")

from audit.verify import main

sys.exit(main())
'''


def verifier_file() -> bytes:
    """The file: `python verify.pyz` is `python -m audit.verify` for who has Python and `cryptography`."""
    made = io.BytesIO(_SHEBANG)
    made.seek(0, io.SEEK_END)
    with ZipFile(made, "w", ZIP_STORED) as archive:  # what compression gives differs between versions of zlib
        archive.writestr(_member("__main__.py"), _MAIN)
        for name, source in verifier_sources().items():
            archive.writestr(_member(name), source)
    return made.getvalue()


def verifier_sources() -> dict[str, bytes]:
    """The verifier's modules by path, in order: `audit.verify` and what is imported from this package."""
    found: dict[str, bytes] = {}
    waiting = [_FIRST]
    while waiting:
        path, source = _source(waiting.pop())
        if path not in found:
            found[path] = source
            waiting += _imported(source)
    return dict(sorted(found.items()))


def _imported(source: bytes) -> list[str]:
    """The modules of this package that a module imports as it loads, with the packages that they are in."""
    names = [
        statement.module
        for statement in ast.parse(source).body
        if isinstance(statement, ast.ImportFrom) and statement.module is not None
    ]
    ours = [name.split(".") for name in names if name.split(".")[0] == _PACKAGE]
    return [".".join(parts[: end + 1]) for parts in ours for end in range(len(parts))]


def _source(module: str) -> tuple[str, bytes]:
    """The path of a module within the ZIP, and its text."""
    parts = module.split(".")
    folder = files(_PACKAGE).joinpath(*parts[1:])
    if folder.is_dir():
        return "/".join([*parts, "__init__.py"]), folder.joinpath("__init__.py").read_bytes()
    within = files(_PACKAGE).joinpath(*parts[1:-1])
    return f"{'/'.join(parts)}.py", within.joinpath(f"{parts[-1]}.py").read_bytes()


def _member(name: str) -> ZipInfo:
    member = ZipInfo(name, _EPOCH)
    member.external_attr = 0o644 << 16
    return member
