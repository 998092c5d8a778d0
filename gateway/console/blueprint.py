"""Blueprints of the console: no view sees a form that is not our own, or one too long to be ours."""

from __future__ import annotations

from flask import Blueprint, request

from gateway.auth.forms import check_form
from gateway.auth.people.csrf import check_csrf

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def page_blueprint(name: str, path: str) -> Blueprint:
    """A blueprint of pages below `/console`; who may see each is said in `gateway.auth.rules`.

    Args:
        name: its endpoints' first word.
        path: where its pages are, such as `/rounds`.
    """
    made = Blueprint(name, __name__, url_prefix=f"/console{path}")
    made.before_request(check_form)
    made.before_request(_insist_on_our_form)
    return made


def _insist_on_our_form() -> None:
    if request.method not in _SAFE:
        check_csrf()
