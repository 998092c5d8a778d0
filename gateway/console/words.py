"""The reader's language, and how its pages write times, numbers and durations.

The browser names the language (RFC 9110, section 12.5.4). Times are UTC and say so: staff sit in several zones, and the
log speaks of one. A day without a time is one of the controller's zone, whose days the terms of requests count.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from babel.dates import format_skeleton, format_timedelta
from babel.numbers import format_decimal, format_percent
from flask import g, has_request_context, request
from markupsafe import Markup

from gateway.desk_settings import calendar_of
from gateway.services import current_services
from gateway.translations import ENGLISH, languages, locale_of, say, translations

NOTHING = Markup("&ndash;")
_NOW, _LEAST = say("just now"), timedelta(seconds=1)
_UNITS = ("B", "kB", "MB", "GB", "TB")


def language() -> str:
    """The language of this request's answer."""
    if not has_request_context():
        return ENGLISH
    if "language" not in g:
        g.language = request.accept_languages.best_match(languages(), default=ENGLISH)
    found: str = g.language
    return found


def gettext(text: str) -> str:
    """A text in the reader's language."""
    return translations(language()).gettext(text) if text else ""


def ngettext(one: str, many: str, count: int) -> str:
    """A text in the form that goes with a number."""
    return translations(language()).ngettext(one, many, count)


def moment(at: datetime | None) -> Markup:
    """A time, exact to the minute; its machine-readable form is exact to the second."""
    return NOTHING if at is None else Markup("{}&nbsp;UTC").format(stamp(at))


def stamp(at: datetime | None) -> Markup:
    """A time for a column whose head says UTC."""
    if at is None:
        return NOTHING
    at = at.astimezone(UTC)
    shown = f"{_day(at)}, {at:%H:%M}"
    return Markup('<time datetime="{}">{}</time>').format(at.strftime("%Y-%m-%dT%H:%M:%SZ"), shown)


def day(at: datetime | None) -> Markup:
    """The day of a time, where the controller is."""
    if at is None:
        return NOTHING
    at = at.astimezone(calendar_of(current_services().config).zone)
    return Markup('<time datetime="{}">{}</time>').format(at.strftime("%Y-%m-%d"), _day(at))


def ago(at: datetime | None) -> Markup:
    """How long ago, or in how long; the exact time stays with it."""
    if at is None:
        return NOTHING
    at, length = at.astimezone(UTC), at - current_services().clock()
    shown = gettext(_NOW)
    if abs(length) >= _LEAST:
        shown = format_timedelta(length, add_direction=True, locale=locale_of(language()))
    exact = f"{_day(at)}, {at:%H:%M:%S}"
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ"), exact, shown
    )


def duration(length: timedelta) -> str:
    """A length of time in its largest unit."""
    return str(format_timedelta(length, locale=locale_of(language())))


def number(value: float | Decimal | str | None, digits: int = 3) -> str:
    """A number as the language writes it."""
    if value is None:
        return NOTHING
    pattern = "#,##0" + ("." + "#" * digits if digits else "")
    return str(format_decimal(Decimal(str(value)), format=pattern, locale=locale_of(language())))


def percent(value: float | None) -> str:
    """A share of one."""
    if value is None:
        return NOTHING
    return str(format_percent(round(value, 3), locale=locale_of(language()), decimal_quantization=False))


def size(size_bytes: int) -> str:
    """A number of bytes in a unit that fits."""
    scaled, unit = float(size_bytes), 0
    while scaled >= 1000 and unit < len(_UNITS) - 1:
        scaled, unit = scaled / 1000, unit + 1
    return f"{number(scaled, 1)} {_UNITS[unit]}"


def _day(at: datetime) -> str:
    return str(format_skeleton("yMMMd", at, locale=locale_of(language())))
