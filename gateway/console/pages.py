"""How a page is made and what its browser may do with it: nothing but show it and send its forms back to us.

The style stands in the page, and the policy allows it by its hash (CSP Level 3, section 2.3.1).
"""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from flask import Response, make_response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gateway.auth.peer import came_by_tls
from gateway.auth.people.csrf import csrf_field, keep_form_cookie
from gateway.console.next_page import HOME
from gateway.errors import GatewayError


def render_page(
    template: str, status: int = 200, *, form_targets: tuple[str, ...] = ("'self'",), **facts: Any
) -> Response:
    """A page of `gateway/console/templates`, with the headers that keep it to itself.

    Args:
        template: its file's name.
        status: the answer's.
        form_targets: where its forms may lead, also by redirects, as CSP's `form-action` names them; none: anywhere.
        facts: what the template shows.
    """
    body = _templates().get_template(template).render(style=_style(), csrf_field=csrf_field, **facts)
    response = make_response(body, status)
    response.mimetype = "text/html"
    response.headers["Content-Security-Policy"] = _policy(form_targets)
    response.headers["Referrer-Policy"] = (
        "same-origin"  # `no-referrer` would take `Origin` from our own forms
    )
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Cache-Control"] = "no-store"
    if came_by_tls():
        response.headers["Strict-Transport-Security"] = "max-age=31536000"  # RFC 6797: a year
    return keep_form_cookie(response)


def refusal_page(error: GatewayError, *, goes_to: str = "", way_back: str = "") -> Response:
    """A refusal as a page.

    Args:
        error: what was wrong.
        goes_to: the address of the application that the person came from, if it is known.
        way_back: the link to there, with what it is told.
    """
    response = render_page(
        "refusal.html", error.status, error=error, goes_to=goes_to, way_back=way_back or HOME
    )
    response.headers.update({name: value for name, value in error.headers.items() if name == "Retry-After"})
    return response


def _policy(form_targets: tuple[str, ...]) -> str:
    digest = base64.b64encode(sha256(_style().encode()).digest()).decode()
    rules = [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    return "; ".join([*rules, f"form-action {' '.join(form_targets)}"] if form_targets else rules)


@cache
def _style() -> Markup:
    return Markup((files("gateway.console") / "templates" / "style.css").read_text("utf-8"))  # noqa: S704 - our file


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("gateway.console"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
