"""When an answer is due: one month after receipt (GDPR Art. 12(3), Regulation 1182/71)."""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime


def month_after(received: datetime, *, months: int = 1) -> datetime:
    """The same day of a later month, or that month's last day where it has no such day."""
    ahead = received.month - 1 + months
    year, month = received.year + ahead // 12, ahead % 12 + 1
    return received.replace(year=year, month=month, day=min(received.day, monthrange(year, month)[1]))
