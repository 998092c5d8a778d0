"""The people of the staff: accounts, passwords, second factors, sessions, and forms that nobody can forge."""

from __future__ import annotations

from gateway.auth.people.csrf import check_csrf, csrf_field, keep_form_cookie
from gateway.auth.people.person import Person, person_of
from gateway.auth.people.sessions import signed_in

__all__ = ["Person", "check_csrf", "csrf_field", "keep_form_cookie", "person_of", "signed_in"]
