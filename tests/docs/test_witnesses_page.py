"""docs/witnesses.md is run as it stands there: a witness is made, followed, asked, and finds the fork."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from living.driver import await_that
from living.home import Home, clean_environment, home_in
from services.checkout import ROOT

from audit.cosignature import CosignatureVerifier
from audit.events import EventType
from audit.reading import reading
from audit.store import newest_checkpoint
from gateway.config import Config
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover
from gateway.services import Services
from gateway.witnessing import Asker, Standing, witnesses_of

PAGE = (ROOT / "docs" / "witnesses.md").read_text("utf-8")
_SHOWN = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
MAKE, RUN, ALONE, REFUSED = (line.replace("8090", "0") for line in _SHOWN)


def _words(line: str) -> list[str]:
    """The command line as this test can start it."""
    words = shlex.split(line.partition(" > ")[0])
    module = {"fl-gateway": ["-m", "gateway.cli"], "python": []}[words[0]]
    return [sys.executable, *module, *words[1:]]


def _printed(line: str, folder: Path) -> str:
    done = subprocess.run(
        _words(line),
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _following(line: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The witness of a shown line: its key and its address, as it prints them."""
    with (folder / "out").open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", "--", *_words(line)],
            cwd=folder,
            env=clean_environment(),
            stdout=output,
        )
    try:
        pattern = re.compile(r"vkey (\S+)\nready (\S+)\n")
        told = await_that("the witness is ready", lambda: pattern.fullmatch((folder / "out").read_text()))
        yield told[1], told[2]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def _grow(services: Services, count: int) -> None:
    for _ in range(count):
        services.trail.note(EventType.CONFIG_CHANGED, settings=["x"])
        sequencer_of(services).run_once()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with home_in(tmp_path / "home") as home:
        with home.stores() as services:
            recover(services)
            _grow(services, 3)
        yield home


def _asked(services: Services, setting: str) -> Standing:
    (witness,) = witnesses_of(_config(services, setting))
    asker = Asker(services.engine, services.engine, witness, services.clock)
    try:
        return asker.ask().standing
    finally:
        asker.close()


def _config(services: Services, setting: str) -> Config:
    return replace(services.config, witnesses=setting)


def test_the_witness_of_the_page_is_made_runs_and_finds_the_fork(home: Home, tmp_path: Path) -> None:
    """Make its key, follow a log, cosign, refuse another history, and print both notes as evidence."""
    fork = home.copy(tmp_path / "fork")
    with zipfile.ZipFile(home.bundle(tmp_path / "log.zip")) as bundle:
        (tmp_path / "log.vkey").write_bytes(bundle.read("keys/log.vkey"))
    vkey = _printed(MAKE, tmp_path).strip()

    with _following(RUN, tmp_path) as (printed, url), home.stores() as services:
        _grow(services, 2)
        cosigned = _asked(services, f"{url} {vkey}")
        with reading(services.engine) as conn:
            newest = newest_checkpoint(conn)
    with _following(ALONE, tmp_path) as (again, url), fork.stores() as services:
        _grow(services, 2)
        refused = _asked(services, f"{url} {vkey}")
    (evidence,) = [json.loads(line) for line in _printed(REFUSED, tmp_path).splitlines()]

    assert printed == again == vkey
    assert (cosigned, refused) == (Standing.COSIGNED, Standing.REFUSED)
    assert newest is not None
    assert CosignatureVerifier.parse(vkey).find(newest.note) is not None
    assert set(evidence) == set(re.findall(r"\w+", re.findall(r"Each line is `\{(.+?)\}`", PAGE)[0]))
    assert evidence["why"] == "ROOT_CONFLICT"
    assert evidence["cosigned"].splitlines()[:2] == evidence["refused"].splitlines()[:2]
    assert evidence["cosigned"] != evidence["refused"]


def test_the_settings_of_the_page_have_the_form_that_is_read(tmp_path: Path) -> None:
    """Two witnesses, parted by a comma, with a quorum; the page's own keys are shortened."""
    shown = dict(re.findall(r'^export (FLG_\w+)="?([^"\n]+)"?$', PAGE, re.MULTILINE))
    keys = [
        _printed(MAKE.replace("w1", f"w{n}").replace("--state witness", f"--state w{n}"), tmp_path)
        for n in (1, 2)
    ]
    first, second = (word.split()[0] for word in shown["FLG_WITNESSES"].split(","))
    with home_in(tmp_path / "home") as home, home.stores() as services:
        config = _config(services, f"{first} {keys[0].strip()}, {second} {keys[1].strip()}")

    assert [witness.url for witness in witnesses_of(config)] == [first, second]
    assert shown["FLG_WITNESS_QUORUM"] == "2"


@pytest.mark.parametrize(
    "said",
    ["does not cosign", "it does not answer", "it does not know this log or its key", "REFUSES this log"],
)
def test_what_the_page_says_is_logged_is_logged(said: str) -> None:
    """Whoever reads the line in the log finds it on the page."""
    code = "".join(path.read_text() for path in (ROOT / "gateway" / "witnessing").glob("*.py"))

    assert said in PAGE
    assert said in code
