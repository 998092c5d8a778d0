"""The console's words: English in the templates, German from its catalogue, numbers and times as readers write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from babel.messages.extract import extract_from_dir
from flask import Flask
from services.checkout import ROOT
from staff import Browser, Member

from audit.events import Outcome
from audit.siem.cursor import Standing
from gateway.auth.roster import ClientStatus
from gateway.auth.scopes import Role
from gateway.cli import main
from gateway.console import words
from gateway.console.names import CLIENTS, OUTCOMES, ROLES, ROUNDS, SINKS
from gateway.rounds.record import RoundStatus
from gateway.translations import catalogue, languages

TEMPLATES = ROOT / "gateway/console/templates"
_COMMAND = re.compile(r"fl-gateway ([a-z-]+) ([a-z-]+)")
_GAP = re.compile(r"%\((\w+)\)")
_JINJA = re.compile(r"{#.*?#}|{%-?\s*trans\b.*?endtrans\s*-?%}|{%.*?%}|{{.*?}}", re.DOTALL)
_MARKUP = re.compile(r'<[^>]*>|[\w-]+="[^"]*"|&\w+;')
_SIGNS = "\u00b7\u2013\u2014\u2026\u2192/,.:;()+=%"  # a middle dot, dashes, an ellipsis, an arrow


@pytest.fixture
def browser(app: Flask) -> Browser:
    """A browser that knows nothing of scripts."""
    return Browser(app.test_client())


def _texts() -> Mapping[str, str]:
    """Each text of the console's pages and names, with the file it is in."""
    keywords = {"_": None, "gettext": None, "ngettext": (1, 2), "say": None}
    found: dict[str, str] = {}
    methods = [("templates/**.html", "jinja2"), ("**.py", "python")]
    options = {"templates/**.html": {"silent": "false"}}
    for file, _, message, _, _ in extract_from_dir(
        ROOT / "gateway/console", methods, options, keywords=keywords
    ):
        found.setdefault(message[0] if isinstance(message, tuple) else message, file)
    return found


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_every_text_goes_through_the_catalogue(template: Path) -> None:
    """No template has a word that no catalogue could translate; commands and code are the same in all languages."""
    text = re.sub(r"<code>[^<]*</code>", " ", template.read_text("utf-8"))
    bare = {word for word in _MARKUP.sub(" ", _JINJA.sub(" ", text)).split() if word.strip(_SIGNS)}

    assert bare - {"fl-gateway"} == set()


def test_every_command_that_a_page_names_exists() -> None:
    """Who is sent to the command line finds the command there, in every language."""
    pages = [
        *TEMPLATES.glob("*.html"),
        *TEMPLATES.parent.glob("*.py"),
        *(ROOT / "gateway/translations").glob("*.po"),
    ]
    named = {found for page in pages for found in _COMMAND.findall(page.read_text("utf-8"))}

    assert len(named) > 5
    assert {words for words in named if not _is_command(*words)} == set()


def _is_command(group: str, name: str) -> bool:
    found = main.get_command(click.Context(main), group)
    return isinstance(found, click.Group) and found.get_command(click.Context(found), name) is not None


def test_the_german_catalogue_has_every_text() -> None:
    """Babel: each text of the console is in the catalogue, and the catalogue has no text that no page shows."""
    said, texts = catalogue("de"), _texts()

    assert {text: file for text, file in texts.items() if text not in said} == {}
    assert {text for text in said if text not in texts} == set()
    assert all(all(forms) for forms in said.values())


def test_a_translation_has_the_gaps_of_its_text() -> None:
    """A page cannot fail, or hide a fact, because a catalogue names a gap otherwise."""
    for language in languages()[1:]:
        for text, forms in catalogue(language).items():
            for form in forms:
                assert set(_GAP.findall(form)) == set(_GAP.findall(text)), (language, text)


def test_a_browser_is_answered_in_its_language(browser: Browser, staff: Callable[..., Member]) -> None:
    """The one it likes best of those there are; else English. The page says which."""
    told = {}
    for wished in ("de-AT,de;q=0.9,en;q=0.5", "en-GB", "xx, yy;q=0.1", "fr;q=0.9, de;q=0.2"):
        page = browser.http.get("/console/sign-in", headers={"Accept-Language": wished})
        (language,) = re.findall(r'<html lang="(\w+)">', page.text)
        assert page.headers["Content-Language"] == language
        told[wished] = (language, "Anmelden" in page.text)

    assert list(told.values()) == [("de", True), ("en", False), ("en", False), ("de", True)]
    assert languages()[:2] == ("en", "de")


def test_numbers_and_times_are_written_as_the_reader_does(app: Flask) -> None:
    """Decimal signs and the order of a date belong to the language; the time is UTC in both."""
    at = datetime(2026, 3, 5, 14, 7, 9, tzinfo=UTC)

    def said(language: str) -> tuple[str, ...]:
        with app.test_request_context(headers={"Accept-Language": language}):
            return words.number(1234.5), words.percent(0.815), words.size(1_500_000), str(words.moment(at))

    assert said("en") == (
        "1,234.5",
        "81.5%",
        "1.5 MB",
        '<time datetime="2026-03-05T14:07:09Z">5 Mar 2026, 14:07</time>&nbsp;UTC',
    )
    assert said("de")[:3] == ("1.234,5", "81,5\u00a0%", "1,5 MB")
    assert "5. März 2026, 14:07" in said("de")[3]


def test_how_long_ago_keeps_the_exact_time(app: Flask) -> None:
    """A rough time is for a glance; the exact one is beside it."""
    noon = app.extensions["fl_gateway"].clock()
    with app.test_request_context():
        past, soon, now = (words.ago(noon + timedelta(hours=hours)) for hours in (-3, 3, 0))

    assert ">3 hours ago<" in past
    assert 'title="24 Nov 2026, 09:00:00 UTC"' in past
    assert ">in 3 hours<" in soon
    assert ">just now<" in now
    assert str(words.ago(None)) == str(words.moment(None)) == str(words.day(None)) == "&ndash;"


def test_each_state_has_its_word() -> None:
    """No state comes to a page without a name."""
    assert set(ROUNDS) == set(RoundStatus)
    assert set(CLIENTS) == set(ClientStatus)
    assert set(ROLES) == set(Role)
    assert set(OUTCOMES) == set(Outcome)
    assert {Standing(failures=failures).state for failures in range(9)} == set(SINKS)
