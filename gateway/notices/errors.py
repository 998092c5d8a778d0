"""What is refused of the settings for notices."""

from __future__ import annotations

from gateway.errors import ConfigError


class NoticesInvalid(ConfigError):
    """`FLG_NOTICES` cannot be used; its text never repeats the setting, which may hold addresses and tokens."""

    def __init__(self, what: str) -> None:
        super().__init__(f"FLG_NOTICES {what}; see docs/notices.md")
