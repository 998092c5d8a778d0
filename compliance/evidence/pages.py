"""Evidence as pages: one file, no script, nothing from elsewhere, readable in light and dark and on paper."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def page(template: str, **facts: Any) -> str:
    """A page made from a template of this package; what is put in is escaped."""
    return _environment().get_template(template).render(style=_style(), **facts)


def content_security_policy() -> str:
    """What a browser may do with such a page: use its one style, and nothing else."""
    digest = b64encode(sha256(_style().encode()).digest()).decode()
    rest = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"default-src 'none'; style-src 'sha256-{digest}'; {rest}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("compliance.evidence"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style() -> str:
    return files("compliance.evidence").joinpath("templates", "style.css").read_text("utf-8")
