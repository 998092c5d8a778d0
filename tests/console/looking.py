"""What a person sees: a visitor's browser, and a page judged by axe-core in both themes and at a phone's width."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page
from staff import Member

from gateway.auth.people.cookies import Cookie

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# What axe finds beyond WCAG 2.2 AA is good practice, and counts too.
_ALL = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
_COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
_SIZES = {"runOnly": {"type": "rule", "values": ["target-size", "scrollable-region-focusable"]}}
# What another theme or width can change, on the same page as it stands: a look takes half a second.
_LOOKS = {("wide", "light"): _ALL, ("wide", "dark"): _COLOURS, ("phone", "light"): _SIZES}

_PROBLEMS = """rules => axe.run(rules).then(found =>
  found.violations.map(one => `${one.id}: ${one.nodes[0].html.slice(0, 160)}`))"""


@dataclass
class Visitor:
    """Somebody at a browser of their own.

    Args:
        page: what they look at.
        site: where the gateway serves.
        complaints: what the browser's console said as an error: a broken policy, a module that failed.
    """

    page: Page
    site: str
    member: Member | None = None
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Go to a page of the gateway."""
        self.page.goto(f"{self.site}{path}")
        return self.page

    def come_in(self, member: Member, session: str) -> Page:
        """Open the console with a session that began elsewhere: what signing in looks like is shown once."""
        self.member = member
        self.page.context.add_cookies([{"name": Cookie.SESSION.value, "value": session, "url": self.site}])
        return self.open("/console/")

    def sign_in(self, member: Member, path: str = "/console/") -> Page:
        """Fill the form as a person does, and be led on."""
        self.member = member
        self.open(path)
        for field_id, typed in (
            ("name", member.name),
            ("password", member.password),
            ("code", member.code()),
        ):
            self.page.locator(f"#{field_id}").fill(typed)
        self.page.locator("button[type=submit]").click()
        return self.page


def problems_of(page: Page, rules: dict[str, Any] = _ALL) -> list[str]:
    """What axe-core finds wrong: the rule, and the first element that breaks it.

    Its script is not the page's: Playwright runs it beside the page's policy, once a page; only what is wrong comes
    back, which is most of the time that it takes.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found: list[str] = page.evaluate(_PROBLEMS, {**rules, "resultTypes": ["violations"]})
    return found


def look(page: Page, name: str) -> None:
    """See that a page is clean for axe-core in both themes and at a phone's width, where it does not scroll sideways.

    With the environment variable `FLG_SHOTS=FOLDER`, keep a picture of each.
    """
    folder = os.environ.get("FLG_SHOTS")
    for width, size in (("wide", WIDE), ("phone", PHONE)):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        for theme in ("light", "dark"):
            rules = _LOOKS.get((width, theme))
            if rules is None and not folder:
                continue
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
            problems = problems_of(page, rules) if rules else []
            assert not problems, (name, width, theme, problems)
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
                page.screenshot(path=Path(folder) / f"{name}-{width}-{theme}.png", full_page=True)
        is_narrow = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert is_narrow, (name, width, "scrolls sideways")
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    page.emulate_media(color_scheme="light")
