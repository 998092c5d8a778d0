"""The settings of privacy requests: whose days their clock counts, and how many people approve an erasure."""

from __future__ import annotations

from compliance.errors import BadCalendar
from compliance.requests.deadlines import Calendar, read_calendar
from gateway.config import Config
from gateway.errors import ConfigError

_APPROVALS = (1, 2)


def calendar_of(config: Config) -> Calendar:
    """The controller's calendar. Raises ConfigError, which names the setting."""
    for name, zone, holidays in (
        ("FLG_TIMEZONE", config.timezone, ""),
        ("FLG_HOLIDAYS", "UTC", config.holidays),
    ):
        try:
            read_calendar(zone, holidays)
        except BadCalendar as error:
            raise ConfigError(f"{name}: {error}") from None
    return read_calendar(config.timezone, config.holidays)


def approvals_of(config: Config) -> int:
    """How many people approve an erasure. Raises ConfigError for another number than one or two."""
    if config.erasure_approvals not in _APPROVALS:
        raise ConfigError("FLG_ERASURE_APPROVALS must be 1 or 2")
    return config.erasure_approvals
