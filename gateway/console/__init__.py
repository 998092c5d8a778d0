"""The web console: pages for people under a strict content security policy, each for the roles whose scopes open it."""

from __future__ import annotations

import gateway.console.answers
import gateway.console.home  # noqa: F401 - its route
from gateway.console.clients import clients
from gateway.console.health import health
from gateway.console.holds import holds
from gateway.console.log import log
from gateway.console.models import models
from gateway.console.pages import refusal_page, render_page
from gateway.console.provider import provider
from gateway.console.requests import requests
from gateway.console.rounds import rounds
from gateway.console.sign_in import console
from gateway.console.static_files import static

BLUEPRINTS = (console, provider, static, rounds, clients, models, health, log, requests, holds)

__all__ = ["BLUEPRINTS", "refusal_page", "render_page"]
