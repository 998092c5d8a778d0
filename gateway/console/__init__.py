"""The web console: pages for people, plain HTML that works without scripts under a strict content security policy."""

from __future__ import annotations

from gateway.console.pages import refusal_page, render_page
from gateway.console.provider import provider
from gateway.console.sign_in import console

BLUEPRINTS = (console, provider)

__all__ = ["BLUEPRINTS", "refusal_page", "render_page"]
