"""The door of the console's pages: somebody who is signed in, with any of the scopes that the table of rules asks for.

A person's scopes are the bundle of its role, and what was given to it by name.
"""

from __future__ import annotations

from gateway.auth.people.person import Person
from gateway.auth.people.sessions import signed_in
from gateway.auth.rules import Rule
from gateway.auth.scopes import scope_text
from gateway.errors import GatewayError


class SignInFirst(GatewayError):
    """A page that is for people who are signed in; a browser is led to the sign-in page."""

    status, code, title = 401, "SIGN_IN_FIRST", "Sign in first"

    def __init__(self) -> None:
        super().__init__("Sign in at /console/sign-in; sessions end after a time, and when nobody uses them")


class NotYourPart(GatewayError):
    """A page that is not for this person's role."""

    status, code, title = 403, "NOT_YOUR_PART", "This is not a part of your role"

    def __init__(self, role: str, needed: str) -> None:
        super().__init__(
            f"Your role is {role}; this page needs any of these scopes: {needed}. An operator can change your role"
        )


def admit_person(rule: Rule) -> Person:
    """Let a person in; the person is the actor of the request's entries from here on.

    Args:
        rule: what the route asks for; without scopes, anybody who is signed in may pass.

    Raises:
        SignInFirst: nobody is signed in.
        NotYourPart: the person has none of the scopes.
        InsecureTransport: the session's cookie came in clear over a network.
    """
    person = signed_in()
    if person is None:
        raise SignInFirst
    if rule.scopes and person.scopes.isdisjoint(rule.scopes):
        raise NotYourPart(person.role.value, scope_text(rule.scopes))
    return person
