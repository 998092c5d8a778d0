"""People of the staff and their browsers, for tests of the pages where they sign in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.auth.people.accounts import Proofs, add_person
from gateway.auth.people.passwords import Cost, Passwords
from gateway.auth.people.second_factor import STEP_S, code_at
from gateway.auth.scopes import Role
from gateway.services import Services

CHEAP = Cost(time=1, memory_kib=8, lanes=1)
PASSWORD = "a horse of another colour"
_FIELD = re.compile(r'name="form_token" value="([0-9a-f]{64})"')
_VERSION = re.compile(r'name="version" value="(\d+)"')


@dataclass(frozen=True)
class Member:
    """Somebody of the staff, with all that lets them in."""

    services: Services
    name: str
    user_id: str
    subject_id: str
    secret: str | None
    password: str = PASSWORD

    def code(self, *, steps: int = 0) -> str:
        """The one-time code that their app shows, or showed some steps ago."""
        if self.secret is None:
            return ""
        return code_at(self.secret, int(self.services.clock().timestamp()) // STEP_S + steps)


@dataclass
class Browser:
    """A browser on this machine, or, if `is_far`, beyond the TLS front: it keeps cookies as browsers do."""

    http: FlaskClient
    address: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)
    is_far: bool = False

    def get(self, path: str, **more: Any) -> TestResponse:
        """Open a page."""
        return self.http.get(path, **self._way(), **more)

    def post(self, path: str, data: dict[str, str], **more: Any) -> TestResponse:
        """Send a form, as it is given."""
        return self.http.post(path, data=data, **self._way(), **more)

    def cookie(self, name: str) -> str:
        """A cookie that it keeps, or nothing."""
        found = self.http.get_cookie(self._named(name))
        return found.value if found else ""

    def put_cookie(self, name: str, value: str) -> None:
        """Have it keep a cookie, whoever gave it."""
        self.http.set_cookie(self._named(name), value, domain="localhost", secure=self.is_far)

    def _named(self, name: str) -> str:
        return f"__Host-{name}" if self.is_far else name

    def _way(self) -> dict[str, Any]:
        if not self.is_far:
            return {"environ_base": {"REMOTE_ADDR": self.address}, "headers": self.headers}
        told = {"X-Forwarded-For": self.address, "X-Forwarded-Proto": "https"}
        return {"base_url": "https://localhost", "headers": told | self.headers}

    def send(self, page: str, action: str, **fields: str) -> TestResponse:
        """Open a page and send its form, with the version that the page shows, if it shows one."""
        shown = self.get(page)
        form = shown.text.partition(f'action="{action}"')[2].partition("</form>")[0]
        version = {"version": found[1]} if (found := _VERSION.search(form)) else {}
        return self.post(action, version | fields | {"form_token": form_token(shown, action)})

    def sign_in(
        self, member: Member, *, password: str | None = None, code: str | None = None, after: str = ""
    ) -> TestResponse:
        """Fill the sign-in form, rightly unless told otherwise."""
        typed = {"password": member.password if password is None else password}
        return self.send(
            "/console/sign-in",
            "/console/sign-in",
            name=member.name,
            code=member.code() if code is None else code,
            next=after,
            **typed,
        )

    def is_in(self) -> bool:
        """Whether the console knows who this is."""
        return self.get("/console/").status_code == 200


def form_token(page: TestResponse, action: str = "") -> str:
    """The hidden field of the page's form; of several, of the one that is sent to `action`."""
    found = _FIELD.search(page.text.partition(f'action="{action}"')[2] or page.text)
    assert found, page.text
    return found[1]


def add_member(
    services: Services,
    passwords: Passwords,
    name: str = "Ada",
    *,
    role: str = "operator",
    has_totp: bool = True,
    extra: Sequence[str] = (),
) -> Member:
    """Somebody of the staff, just added."""
    proofs = Proofs(PASSWORD, has_totp)
    added = add_person(services, name, Role(role), proofs, passwords=passwords, extra=extra)
    return Member(services, name, added.user_id, added.subject_id, added.totp_secret)


AddMember = Callable[..., Member]
NewBrowser = Callable[..., Browser]
