"""The stores of one gateway under test: a directory, and a database in it or on a PostgreSQL server.

What a test looks at it reads through `stores()`: the gateway's own code on the same files and database.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import psycopg
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from services.postgresql import PostgreSQL
from sqlalchemy import make_url, select

from audit.bundle import export_bundle
from audit.reading import reading
from audit.verifier.verdict import Verdict
from audit.verify import verify_bundle
from compliance.keyring.keys import SigningUse
from gateway.api.audit import log_vkey
from gateway.config import load_config
from gateway.services import Services, open_services, utc_now
from gateway.storage.database import open_engine
from gateway.storage.migrating import Which, upgrade
from gateway.tables import client_updates, model_versions

ROOT = Path(__file__).resolve().parents[2]
_MANY = "models=60000/minute;updates=60000/minute;rounds=60000/minute;register=60000/minute;auth_failures=30/minute"


@dataclass(frozen=True, slots=True)
class Home:
    """The stores of one gateway: a directory, and a database in it or on a PostgreSQL server."""

    directory: Path
    database_url: str
    server: PostgreSQL | None = None
    settings: dict[str, str] = field(default_factory=dict)
    kept_elsewhere: Callable[[], list[bytes]] = list
    """What servers beside the database keep; nothing on the embedded defaults."""

    @property
    def _keystore_url(self) -> str:
        return self.settings.get("keystore_url", f"sqlite:///{self.directory}/keys/subjects.db")

    def environment(self) -> dict[str, str]:
        """The settings of this home as `FLG_*` variables."""
        wanted = {
            "database_url": self.database_url,
            "blob_url": f"file:{self.directory}/blobs",
            "keystore_url": self._keystore_url,
            "state_url": f"file:{self.directory}/keys/state",
            "master_key": "5a" * 32,
            "siem_sinks": f"file:{self.directory}/siem.jsonl",
            "rate_limits": _MANY,
            "worker_interval_s": "0.05",
            **self.settings,
        }
        return {f"FLG_{name.upper()}": value for name, value in wanted.items()}

    @contextmanager
    def stores(self, *, clock: Callable[[], datetime] = utc_now) -> Iterator[Services]:
        """The stores, opened in this process; safe beside a running gateway."""
        services = open_services(load_config(self.environment()), part="console", clock=clock)
        try:
            yield services
        finally:
            services.close()

    def settle(self) -> Home:
        """Make the databases, as `fl-gateway db upgrade` does: where there is none yet, a copy of what it made once."""
        if self.server is None:
            self._copy_new_databases()
        with self.stores() as services:
            upgrade(services.engine, "main")
            upgrade(services.keystore_engine, "keystore")
        return self

    def _copy_new_databases(self) -> None:
        for url, made in zip((self.database_url, self._keystore_url), _new_databases(), strict=True):
            path = Path(str(make_url(url).database))
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.write_bytes(made)

    def copy(self, to: Path) -> Home:
        """The same stores once more, of a gateway that does not run: both go on from here on their own."""
        shutil.copytree(self.directory, to)
        if self.server is None:
            url = self.database_url.replace(str(self.directory), str(to))
        else:
            name = make_url(self.database_url).database
            url = self.server.url(self.server.create_database(template=str(name)))
        return replace(self, directory=to, database_url=url, settings=self._settings_of_copy(to.name))

    def restore(self, parts: tuple[str, ...], copy: Home) -> None:
        """Put parts of the directory (`fl-gateway.db`, `keys/subjects.db`, …) back as an older copy has them."""
        for part in parts:
            for suffix in ("", "-wal", "-shm"):
                (self.directory / f"{part}{suffix}").unlink(missing_ok=True)
                if (old := copy.directory / f"{part}{suffix}").exists():
                    shutil.copy2(old, self.directory / f"{part}{suffix}")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `fl-gateway` on this home."""
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words],
            cwd=self.directory,
            env=clean_environment() | self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def every_byte_kept(self) -> bytes:
        """All files below the directory; on PostgreSQL also its data directory with the WAL, and each table as text."""
        files = [path for path in self.directory.rglob("*") if path.is_file()]
        if self.server is not None:
            files += [path for path in (self.server.directory / "data").rglob("*") if path.is_file()]
        return b"\n".join([*map(_bytes_of, files), *self.tables_as_text(), *self.kept_elsewhere()])

    def blob_names(self) -> set[str]:
        """Every blob of the store, in a directory those still being written included."""
        folder = self.directory / "blobs"
        if folder.is_dir():
            return {path.name for path in folder.rglob("*") if path.is_file()}
        with self.stores() as services:
            return set(services.blobs.names())

    def blob(self, blob_id: str) -> bytes | None:
        """A blob as it is stored, if it is there."""
        with self.stores() as services:
            try:
                with services.blobs.as_file(blob_id) as path:
                    return path.read_bytes()
            except FileNotFoundError:
                return None

    def bundle(self, target: Path) -> Path:
        """The log as an auditor gets it."""
        with self.stores() as services:
            export_bundle(services.engine, target, log_vkey(services), patience_s=20)
        return target

    def verify_log(self, *, since: str | None = None, receipts: tuple[str, ...] = ()) -> Verdict:
        """What the offline verifier says of the log, with the keys from the key store."""
        with self.stores() as services:
            vkey = log_vkey(services)
            receipt_key = services.keystore.signing_key(SigningUse.RECEIPT)
            pem = _pem(receipt_key.private.public_key())
        target = self.bundle(self.directory / f"bundle-{time.monotonic_ns()}.zip")
        verdict = verify_bundle(target, vkey=vkey, since=since, receipts=receipts, jwks=pem)
        target.unlink()
        return verdict

    def orphan_blobs(self) -> set[str]:
        """Blobs that no row names; not counted is a model's first copy, which stays a while beside the named one."""
        with self.stores() as services, reading(services.engine) as conn:
            named = set(conn.execute(select(client_updates.c.blob_id)).scalars())
            models = conn.execute(select(model_versions.c.model_blob_url, model_versions.c.checksum)).all()
        named |= {url.removeprefix("blob:") for url, _ in models}
        published = {checksum for _, checksum in models}
        return {name for name in self.blob_names() - named if self._checksum(name) not in published}

    def _checksum(self, blob_id: str) -> str:
        return sha256(self.blob(blob_id) or b"").hexdigest()

    def spoil(self, blob_id: str) -> None:
        """Put zeros in the place of a blob's bytes, as a disk that lies does."""
        with self.stores() as services, services.blobs.incoming(blob_id) as blob:
            blob.write(bytes(services.blobs.size(blob_id)))
            blob.keep()

    def _settings_of_copy(self, prefix: str) -> dict[str, str]:
        """Blobs under a prefix of their own; a copy shares neither broker nor cache."""
        if "s3_endpoint_url" not in self.settings:
            return self.settings
        copied = f"{self.settings['blob_url']}-{prefix}"
        _copy_objects(self.settings, copied)
        return {**self.settings, "blob_url": copied, "queue_url": "", "cache_url": ""}

    def tables_as_text(self) -> list[bytes]:
        """Each table of the database on a PostgreSQL server, after a checkpoint; nothing on SQLite."""
        if self.server is None:
            return []
        plain = self.database_url.replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(plain) as conn:
            conn.execute("CHECKPOINT")
            names = [
                row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname='public'")
            ]
            return [_copied(conn, name) for name in names]


@contextmanager
def home_in(
    directory: Path,
    server: PostgreSQL | None = None,
    *,
    kept_elsewhere: Callable[[], list[bytes]] = list,
    **settings: str,
) -> Iterator[Home]:
    """An empty home: on SQLite, or with its database on a PostgreSQL server."""
    directory.mkdir(parents=True, exist_ok=True)
    name = server.create_database(template=server.template("home", _upgrade)) if server else None
    url = server.url(name) if server and name else f"sqlite:///{directory}/fl-gateway.db"
    try:
        yield Home(directory, url, server, settings, kept_elsewhere).settle()
    finally:
        if server and name:
            server.drop_database(name)


def _upgrade(url: str, which: Which = "main") -> None:
    engine = open_engine(url)
    upgrade(engine, which)
    engine.dispose()


@cache
def _new_databases() -> tuple[bytes, bytes]:
    """The files of a main database and of a key store that were just made; the migrations take half a second."""
    with TemporaryDirectory(prefix="flg-new-") as folder:
        main, keystore = Path(folder) / "main.db", Path(folder) / "keystore.db"
        _upgrade(f"sqlite:///{main}")
        _upgrade(f"sqlite:///{keystore}", "keystore")
        return main.read_bytes(), keystore.read_bytes()


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of a gateway."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLG_")}
    return kept | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def _copy_objects(settings: dict[str, str], to_url: str) -> None:
    """Copy every object below the home's S3 prefix."""
    s3 = boto3.client(
        "s3",
        endpoint_url=settings["s3_endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id=settings["s3_access_key_id"],
        aws_secret_access_key=settings["s3_secret_access_key"],
    )
    bucket, _, old = settings["blob_url"].removeprefix("s3://").partition("/")
    new = to_url.removeprefix(f"s3://{bucket}/")
    for found in s3.list_objects_v2(Bucket=bucket, Prefix=f"{old}/").get("Contents", []):
        key = f"{new}/{found['Key'].removeprefix(f'{old}/')}"
        s3.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": found["Key"]})


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a server removed it meanwhile
        return b""


def _copied(conn: psycopg.Connection[Any], table: str) -> bytes:
    with conn.cursor().copy(f'COPY "{table}" TO STDOUT') as lines:  # type: ignore[arg-type]
        return b"".join(bytes(line) for line in lines)


def _pem(key: Any) -> str:
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())
