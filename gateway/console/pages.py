"""How a page is made and what its browser may do with it: show it, send its forms to us, and run our own modules.

The policy (CSP Level 3) allows one style and the page's modules by a nonce that is new in each answer, nothing inline,
and nothing from another host; a page without modules may run no script at all.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from flask import Response, g, make_response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gateway.auth.peer import came_by_tls
from gateway.auth.people.csrf import csrf_field, keep_form_cookie
from gateway.auth.people.person import Person
from gateway.console import words
from gateway.console.names import role_name
from gateway.console.navigation import links_for, may_open
from gateway.console.next_page import HOME
from gateway.console.static_files import static_url
from gateway.errors import GatewayError

_NONCE_BYTES = 18


@dataclass(slots=True)
class _Sheet:
    """One answer as it is made: its nonce, and which of our modules it runs."""

    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(_NONCE_BYTES))
    modules: list[str] = field(default_factory=list)

    def module(self, name: str) -> Markup:
        """The element that loads a module of `gateway/console/static`."""
        self.modules.append(name)
        return Markup('<script type="module" nonce="{}" src="{}"></script>').format(
            self.nonce, static_url(name)
        )

    def policy(self, form_targets: tuple[str, ...]) -> str:
        """The answer's Content-Security-Policy."""
        rules = ["default-src 'none'", f"style-src 'nonce-{self.nonce}'"]
        if self.modules:
            rules += [
                f"script-src 'nonce-{self.nonce}'",
                "connect-src 'self'",
                "require-trusted-types-for 'script'",
                "trusted-types fl-gateway",
            ]
        rules += ["base-uri 'none'", "frame-ancestors 'none'"]
        return "; ".join([*rules, f"form-action {' '.join(form_targets)}"] if form_targets else rules)


def render_page(
    template: str, status: int = 200, *, form_targets: tuple[str, ...] = ("'self'",), **facts: Any
) -> Response:
    """A page of `gateway/console/templates`, with the headers that keep it to itself.

    A template of the console extends `console.html`, which has the ways to all parts that the signed-in person may open
    (`console.html` says which blocks there are); one that stands alone extends `page.html`.

    Args:
        template: its file's name.
        status: the answer's.
        form_targets: where its forms may lead, also by redirects, as CSP's `form-action` names them; none: anywhere.
        facts: what the template shows.
    """
    sheet, person = _Sheet(), g.get("person")
    frame = {
        "csp_nonce": sheet.nonce,
        "module": sheet.module,
        "language": words.language(),
        "person": person,
        "nav_links": links_for(person),
        "may_open": lambda endpoint: _may_open(person, endpoint),
    }
    body = _templates().get_template(template).render(frame | facts)
    response = make_response(body, status)
    response.mimetype = "text/html"
    response.headers["Content-Security-Policy"] = sheet.policy(form_targets)
    response.headers["Content-Language"] = words.language()
    response.headers["Referrer-Policy"] = (
        "same-origin"  # `no-referrer` would take `Origin` from our own forms
    )
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
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


def _may_open(person: Person | None, endpoint: str) -> bool:
    return person is not None and may_open(person, endpoint)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("gateway.console"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_callables(words.gettext, words.ngettext, newstyle=True)  # type: ignore[attr-defined]
    made.globals.update(csrf_field=csrf_field, static_url=static_url, role_name=role_name)
    made.filters.update(
        moment=words.moment,
        stamp=words.stamp,
        day=words.day,
        ago=words.ago,
        number=words.number,
        percent=words.percent,
        size=words.size,
        duration=words.duration,
    )
    return made
