"""The console in a real browser: Chromium at a gateway that serves on a free port of this machine, on SQLite.

`visitor(role)` signs somebody in and gives a browser of their own; `console.looking.look` judges a page.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from console.looking import WIDE, Visitor
from federation import Federation
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, sync_playwright
from services.clock import FixedClock
from staff import CHEAP, Browser, Member, add_member
from werkzeug.serving import make_server
from whole import config_in, opened, sqlite_in

from gateway.app import create_app
from gateway.auth.people.cookies import Cookie
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION
from gateway.auth.refusals import close_refusals
from gateway.config import Config
from gateway.services import Services


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Settings whose stores are empty and in the test's own folder."""
    return config_in(tmp_path, sqlite_in(tmp_path))


@pytest.fixture
def services(config: Config, clock: FixedClock) -> Iterator[Services]:
    """The gateway's stores, empty, with every table."""
    with opened(config, clock) as made:
        yield made


@pytest.fixture
def passwords() -> Passwords:
    """Hashes that cost little."""
    return Passwords(CHEAP)


@pytest.fixture
def app(services: Services, passwords: Passwords) -> Iterator[Flask]:
    """The gateway's application."""
    made = create_app(services)
    made.extensions[EXTENSION] = passwords
    yield made
    close_refusals(made)


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    """A client of the API, at 127.0.0.1."""
    return app.test_client()


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """What happens in the gateway while people look: models, rounds, clients, updates."""
    return Federation(services, http)


@pytest.fixture
def site(app: Flask) -> Iterator[str]:
    """Where the gateway serves: `http://127.0.0.1:PORT`."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, name="console")
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """Debian's Chromium, one a pytest-xdist worker."""
    found = shutil.which("chromium")
    if found is None:
        pytest.fail("chromium is needed: make setup-tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def new_visitor(chromium: Chromium, site: str) -> Iterator[Callable[..., Visitor]]:
    """Gives browsers that share nothing: `new_visitor(locale="de-DE")`; none may leave a complaint behind."""
    opened: list[tuple[BrowserContext, Visitor]] = []

    def make(**settings: Any) -> Visitor:
        context = chromium.new_context(viewport=WIDE, **{"locale": "en-GB", **settings})
        context.set_default_timeout(10_000)
        visitor = Visitor(context.new_page(), site)
        visitor.page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        visitor.page.on(
            "console", lambda said: visitor.complaints.append(said.text) if said.type == "error" else None
        )
        opened.append((context, visitor))
        return visitor

    yield make
    for context, _ in opened:
        context.close()
    assert [visitor.complaints for _, visitor in opened if visitor.complaints] == []


@pytest.fixture
def staff(services: Services, passwords: Passwords) -> Callable[..., Member]:
    """Adds somebody: `staff("dpo", "Dana")`."""
    return lambda role, name="": add_member(services, passwords, name or f"a {role}", role=role)


@pytest.fixture
def visitor(
    app: Flask, new_visitor: Callable[..., Visitor], staff: Callable[..., Member]
) -> Callable[..., Visitor]:
    """Somebody of a role, signed in, in a browser of their own: `visitor("dpo")`."""

    def make(role: str, name: str = "", **settings: Any) -> Visitor:
        made, door = new_visitor(**settings), Browser(app.test_client())
        member = staff(role, name)
        door.sign_in(member)
        made.come_in(member, door.cookie(Cookie.SESSION.value))
        return made

    return make
