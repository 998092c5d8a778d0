"""A small house for the privacy desk: real stores in a temporary folder, and one place that holds notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from services.clock import FixedClock
from sqlalchemy import JSON, Column, Engine, MetaData, String, Table, Uuid, delete, func, insert, select, text

from audit import Personal
from audit.checkpoint import NoteSigner
from audit.events import EventType, Retention
from audit.reading import reading
from audit.sequencer import Sequencer
from audit.tables import metadata as audit_metadata
from audit.triggers import statements as trigger_statements
from compliance import (
    DeskParts,
    Disclosure,
    ErasedCount,
    ExportTable,
    KeyStore,
    NotNow,
    PrivacyDesk,
    SigningUse,
    SubjectSealer,
)
from compliance.erasures.receipt import ModelLine
from compliance.keeping.hold import Hold
from compliance.keyring.tables import metadata as keystore_metadata
from compliance.packages.columns import ExportColumn, Form
from compliance.requests.reasons import Exemption
from compliance.subjects import new_subject
from compliance.tables import metadata as compliance_metadata
from gateway.storage.blobs import FileBlobs
from gateway.storage.database import open_engine
from gateway.storage.state import FileState
from gateway.trail import Trail, system_origin

MASTER_KEY = bytes(range(32))
OFFICER = "dpo"
MODEL = ModelLine("m", "1.0.1", "1.0.1", 1, None, None, "no bound holds", "1.0.0")

_notes_metadata = MetaData()
notes = Table(
    "notes",
    _notes_metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("subject_id", String(36), nullable=False),
    Column("text", JSON, nullable=False),
)


@dataclass
class NotesPlace:
    """A place like those of the gateway: rows with a sealed column, which may be in a frozen cohort."""

    engine: Engine
    sealer: SubjectSealer
    is_frozen: bool = False
    crash: Callable[[], None] = field(default=lambda: None)
    name: str = "notes"

    def export(self, subject: str) -> Iterator[ExportTable]:
        columns = (
            ExportColumn("id", Form.ID, "names the note"),
            ExportColumn("text", Form.TEXT, "what it says", is_portable=True),
        )
        yield ExportTable("notes", "Art. 15, Art. 20", "Notes", columns, self._rows(subject))

    def erase(self, subject: str) -> ErasedCount:
        if self.is_frozen:
            raise NotNow
        with self.engine.begin() as conn:
            gone = conn.execute(delete(notes).where(notes.c.subject_id == subject)).rowcount
        self.crash()
        return ErasedCount(rows=gone)

    def count(self, subject: str) -> int:
        with reading(self.engine) as conn:
            return conn.scalar(select(func.count()).where(notes.c.subject_id == subject)) or 0

    def _rows(self, subject: str) -> Iterator[dict[str, object]]:
        with reading(self.engine) as conn:
            rows = conn.execute(select(notes).where(notes.c.subject_id == subject)).all()
        for row in rows:
            yield {"id": row.id, "text": self.sealer.open_column(row.text, "notes", "text", row.id)}


@dataclass
class House:
    """Everything a privacy desk needs, with the desk."""

    folder: Path
    clock: FixedClock
    engine: Engine
    keystore_engine: Engine
    state: FileState
    keystore: KeyStore
    sealer: SubjectSealer
    trail: Trail
    blobs: FileBlobs
    place: NotesPlace
    desk: PrivacyDesk
    officer: Personal

    def person(self, name: str = "Ada") -> str:
        """A subject of that name, with one note and one audit entry."""
        subject = str(uuid4())
        entry_of = Personal(subject, name)
        seal = self.sealer.seal_column
        note_id = str(uuid4())
        sealed = seal(subject, Retention.PARTICIPATION, "notes", "text", note_id, name, self.clock())
        told = {"role": "participant", "signs": False, "client_id": name, "device": name}
        entry = self.trail.draft(EventType.CLIENT_REGISTERED, details=told, actor=entry_of)
        with self.engine.begin() as conn:
            new_subject(conn, subject, self.clock())
            conn.execute(insert(notes).values(id=note_id, subject_id=subject, text=sealed))
            self.trail.write(conn, entry)
        return subject

    def hold(self, subject: str, *scope: str, matter: str = "court case") -> Hold:
        """A legal hold of a year on the subject's data."""
        return self.desk.holds.place(
            subject,
            matter=matter,
            scope=scope or ("*",),
            basis=Exemption.LEGAL_CLAIMS,
            review_at=self.clock() + timedelta(days=365),
            by=self.officer,
        )

    def lift(self, hold: Hold) -> Hold:
        """The hold, ended by the officer and a second person."""
        second = Personal(self.person("second officer"), "second officer")
        self.desk.holds.ask_release(hold.id, by=self.officer)
        return self.desk.holds.release(hold.id, by=second)

    def sequence(self) -> int:
        """Move staged entries into the log."""
        signer = NoteSigner("test.example/log", self.keystore.signing_key(SigningUse.LOG).private)
        return Sequencer(self.engine, signer=signer, state=self.state, clock=self.clock).run_once()

    def event_types(self) -> list[str]:
        """The types of all entries, in order."""
        self.sequence()
        with reading(self.engine) as conn:
            return list(conn.execute(text("SELECT event_type FROM audit_log ORDER BY seq")).scalars())

    def every_byte(self) -> bytes:
        """What lies in every file of the house."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())

    def public_keys(self) -> dict[str, bytes]:
        """Every public key by its name."""
        return {row.kid: row.public for row in self.keystore.public_keys()}


@pytest.fixture
def house(tmp_path: Path, clock: FixedClock) -> Iterator[House]:
    """The house on SQLite."""
    urls = (f"sqlite:///{tmp_path / 'main.db'}", f"sqlite:///{tmp_path / 'keys.db'}")
    with _built(tmp_path, clock, *urls) as built:
        yield built


@pytest.fixture
def postgresql_house(tmp_path: Path, clock: FixedClock, postgresql_url: str) -> Iterator[House]:
    """The house on PostgreSQL."""
    with _built(tmp_path, clock, postgresql_url, postgresql_url) as built:
        yield built


@contextmanager
def _built(folder: Path, clock: FixedClock, url: str, keystore_url: str) -> Iterator[House]:
    engine = open_engine(url)
    keystore_engine = open_engine(keystore_url, secure_delete=True)
    _create_tables(engine, keystore_engine)
    state = FileState(folder / "state")
    keystore = KeyStore(keystore_engine, MASTER_KEY, state=state, clock=clock)
    sealer = SubjectSealer(keystore)
    trail = Trail(engine, sealer, clock, lambda: system_origin("test"))
    blobs = FileBlobs(folder / "blobs")
    place = NotesPlace(engine, sealer)
    parts = DeskParts(
        engine=engine,
        keystore=keystore,
        sealer=sealer,
        journal=trail,
        worker_journal=trail,
        clock=clock,
        blobs=blobs,
        places=(place,),
        disclose=lambda _subject: Disclosure(models=(MODEL,), sinks=("siem.example",)),
        notice=lambda _subject: {"controller": "Example Hospital"},
        package_lifetime=timedelta(days=7),
    )
    officer = Personal(str(uuid4()), OFFICER)
    with engine.begin() as conn:
        new_subject(conn, officer.subject, clock())
    desk = PrivacyDesk(parts)
    yield House(
        folder=folder,
        clock=clock,
        engine=engine,
        keystore_engine=keystore_engine,
        state=state,
        keystore=keystore,
        sealer=sealer,
        trail=trail,
        blobs=blobs,
        place=place,
        desk=desk,
        officer=officer,
    )
    engine.dispose()
    keystore_engine.dispose()


def _create_tables(engine: Engine, keystore_engine: Engine) -> None:
    statements = trigger_statements(engine.dialect.name)
    with engine.begin() as conn:
        for metadata in (audit_metadata, compliance_metadata, _notes_metadata):
            metadata.create_all(conn)
        for statement in statements:
            conn.exec_driver_sql(statement)
    with keystore_engine.begin() as conn:
        keystore_metadata.create_all(conn)
