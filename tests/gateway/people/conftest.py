"""Staff and browsers on an application whose passwords cost little."""

from __future__ import annotations

from functools import partial

import pytest
from flask import Flask
from staff import CHEAP, AddMember, Browser, NewBrowser, add_member

from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION
from gateway.services import Services


@pytest.fixture
def passwords() -> Passwords:
    """Hashes that cost little."""
    return Passwords(CHEAP)


@pytest.fixture
def app(app: Flask, passwords: Passwords) -> Flask:
    """The application, with these passwords."""
    app.extensions[EXTENSION] = passwords
    return app


@pytest.fixture
def member(services: Services, passwords: Passwords) -> AddMember:
    """Adds somebody: `member("Ada", role="dpo", has_totp=False)`."""
    return partial(add_member, services, passwords)


@pytest.fixture
def browser(app: Flask) -> NewBrowser:
    """Makes a browser: `browser("192.0.2.7")`."""
    return lambda address="127.0.0.1", **headers: Browser(app.test_client(), address, headers)
