"""Who is at a page of the console: checked at the door (`gateway.auth.admission`) by the route's row in the rules."""

from __future__ import annotations

from flask import Response, redirect, request

from gateway.auth.people.admission import SignInFirst
from gateway.auth.people.person import Person
from gateway.auth.people.sessions import signed_in
from gateway.console.next_page import HOME, sign_in_page


def page_person() -> Person:
    """The person that this page is for.

    Raises:
        SignInFirst: nobody is signed in.
    """
    person = signed_in()
    if person is None:
        raise SignInFirst
    return person


def sign_in_redirect() -> Response:
    """The way to the sign-in page, and from there to the page that was asked for; a form's content is not kept."""
    after = request.full_path.rstrip("?") if request.method == "GET" else HOME
    response: Response = redirect(sign_in_page(after), 303)  # type: ignore[assignment]
    return response
