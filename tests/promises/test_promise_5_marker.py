"""Promise 5: a word that a person put into everything it could say is readable nowhere once the person is erased."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from living.driver import BUDGET, await_that
from living.end_state import receipt_of
from living.home import Home
from living.kept import stores_with
from living.marked import (
    Marked,
    ask_everything,
    be_refused,
    fail_to_enter,
    leave_an_upload,
    subject_of,
    take_part,
)
from living.readable import Opened, everything_opened
from living.restores import back_up, back_up_keys
from living.threads import LocalGateway, local_gateway_in
from sqlalchemy import select

from audit.reading import reading
from compliance.keyring.tables import pseudonyms, subject_keys

OURS = ("gateway", "audit", "compliance", "aggregation")


@pytest.fixture
def log_file(home: Home) -> Iterator[Path]:
    """A log file of all that the gateway's own loggers say, down to the smallest."""
    path = home.directory / "gateway.log"
    handler = logging.FileHandler(path)
    before = {name: logging.getLogger(name).level for name in OURS}
    for name in OURS:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield path
    for name, level in before.items():
        logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).setLevel(level)
    handler.close()


def test_a_word_in_everything_a_client_can_say_is_readable_nowhere_after_its_erasure(
    home: Home, log_file: Path, tmp_path: Path
) -> None:
    """Files, dumps, blobs, queue, cache, log files, the SIEM's copy, backups: neither in clear nor by any key left."""
    word, public = uuid4().hex, f"control{uuid4().hex}"
    with local_gateway_in(home) as gateway:
        marked, subject, pseudonym = _live(gateway, word, public)
    back_up(home, home.directory / "before.zip")
    kept_keys = _keys_of(home, subject)
    assert stores_with(home, [public])  # the search does find what is there in clear
    assert _words_in(home, word)  # and the word could be read
    never_in_clear = stores_with(home, [word])

    with local_gateway_in(home) as gateway:
        case_id = gateway.erase(marked.person)["id"]
        late = gateway.http.get("/api/v1/rounds", headers=marked.person.headers)
        (last,) = await_that("the log tells", lambda: gateway.entries("privacy.erased"))
        await_that("the SIEM knows all", lambda: last["id"] in (home.directory / "siem.jsonl").read_text())
        verdict = home.verify_log()
    back_up(home, home.directory / "after.zip")
    back_up_keys(home, home.directory / "after-keys.zip")

    assert never_in_clear == []
    assert stores_with(home, [word]) == []
    assert late.status_code == 401
    assert verdict.ok, verdict.text()
    assert {opened.retention for opened in _words_in(home, word)} <= {"accountability"}
    assert _entries_kept(home, case_id) == len(_entries_of(home, subject)) > 0
    (home.directory / "siem.jsonl").unlink()
    assert stores_with(home, [pseudonym]) == []
    assert [name for name in stores_with(home, kept_keys) if "before" not in name] == []
    assert log_file.stat().st_size > 0


def _live(gateway: LocalGateway, word: str, public: str) -> tuple[Marked, str, str]:
    """A life full of the word; the person behind it, and the name under which the SIEM knows that person."""
    gateway.add_model(budget=BUDGET)
    marked = take_part(gateway, word, gateway.register(), public=public)
    subject = subject_of(gateway.home, marked.person)
    be_refused(gateway, marked)
    gateway.export(marked.person)
    leave_an_upload(gateway.home, marked)
    fail_to_enter(gateway, word)
    assert ask_everything(gateway, marked) > 60
    return marked, subject, await_that("the SIEM's name of it", lambda: _pseudonym(gateway.home, subject))


def _words_in(home: Home, word: str) -> list[Opened]:
    """What can be read of the word with the keys that are left."""
    return [opened for opened in everything_opened(home) if word in opened.value]


def _entries_kept(home: Home, case_id: str) -> int:
    """How many entries stay readable, as the receipt tells it."""
    with home.stores() as services:
        return int(receipt_of(services, case_id)["exceptions"][0]["count"])


def _entries_of(home: Home, subject: str) -> set[str]:
    """The entries with a field of the person's that still opens."""
    opened = [one.place.split() for one in everything_opened(home) if one.subject == subject]
    return {place[1] for place in opened if place[0] == "entry"}


def _pseudonym(home: Home, subject: str) -> str | None:
    query = select(pseudonyms.c.pseudonym).where(pseudonyms.c.subject == subject)
    with home.stores() as services, reading(services.keystore_engine) as conn:
        return conn.execute(query).scalar_one_or_none()


def _keys_of(home: Home, subject: str) -> list[bytes]:
    """The wrapped keys of what the person did as a participant."""
    query = select(subject_keys.c.wrapped).where(
        subject_keys.c.subject == subject, subject_keys.c.retention == "participation"
    )
    with home.stores() as services, reading(services.keystore_engine) as conn:
        return list(conn.execute(query).scalars())
