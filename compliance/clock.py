"""Time comes in as an argument: a clock is a function that tells the time as an aware UTC `datetime`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], datetime]
