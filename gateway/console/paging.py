"""Lists of the console page by page, by their number in the address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from flask import request

PER_PAGE = 25
_HIGHEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Pages:
    """Where a page of a list stands among the others, for `ui.pager`."""

    page: int
    total_items: int
    newest_first: bool = False

    @property
    def total_pages(self) -> int:
        """How many there are; an empty list has one."""
        return max(1, -(-self.total_items // PER_PAGE))

    @property
    def prev(self) -> str | None:
        """The address of the page before."""
        return _address(self.page - 1) if self.page > 1 else None

    @property
    def next(self) -> str | None:
        """The address of the page behind."""
        return _address(self.page + 1) if self.page < self.total_pages else None


def page_number() -> int:
    """The page that the address asks for; the first, if it asks for none or for nonsense."""
    asked = request.args.get("page", 1, type=int)
    return min(max(asked, 1), _HIGHEST)


def _address(page: int) -> str:
    kept = {name: value for name, value in request.args.items() if name != "page"}
    return f"{request.path}?{urlencode({**kept, 'page': page})}"
