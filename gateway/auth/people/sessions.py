"""Sessions of people: a cookie of 256 random bits, of which the gateway keeps the SHA-256; over after a time, or idle.

A new one begins at each sign-in and ends the browser's old one: no session can be planted before (OWASP, session
management).
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from flask import g, request
from sqlalchemy import Connection, Row, delete, insert, select, update

from audit.draft import Personal
from audit.reading import reading
from gateway.auth.people.cookies import Cookie, read_cookie
from gateway.auth.people.person import Person, active_person
from gateway.auth.transport import check_transport
from gateway.services import Services, current_services
from gateway.tables import sessions, users
from gateway.trail import Origin

COOKIE_BYTES = 32
LONGEST_COOKIE = 64
SEEN_EVERY = timedelta(minutes=1)


class SignInMethod(StrEnum):
    """How a person proved who it is."""

    PASSWORD = "password"  # noqa: S105 - a method's name
    OPENID = "openid"


def signed_in() -> Person | None:
    """The person whose session this request's cookie names; it becomes the actor of the request's entries.

    Raises:
        InsecureTransport: the cookie came in clear over a network.
    """
    if "person" not in g:
        g.person = _find(current_services(), read_cookie(Cookie.SESSION))
        if g.person is not None:
            g.origin = origin_of(g.person, g.origin)
    found: Person | None = g.person
    return found


def origin_of(person: Person, origin: Origin) -> Origin:
    """The origin with the person as actor; the address is sealed under the same person."""
    address = origin.ip_address and Personal(person.subject_id, origin.ip_address.value)
    return Origin(person.acting(), address, origin.request_id, origin.trace_id)


def new_cookie() -> str:
    """The value of a new session's cookie."""
    return secrets.token_urlsafe(COOKIE_BYTES)


def begin_session(
    conn: Connection, services: Services, cookie: str, *, user_id: str, method: SignInMethod, old_cookie: str
) -> None:
    """Store a new session, in the transaction that also stages its entry; the browser's old one ends."""
    now = services.clock()
    end_session(conn, old_cookie)
    conn.execute(
        insert(sessions).values(
            session_hash=_digest(cookie),
            user_id=user_id,
            method=method.value,
            started_at=now,
            seen_at=now,
            expires_at=now + timedelta(seconds=services.config.session_ttl_s),
        )
    )


def stands(conn: Connection, person: Person) -> bool:
    """Whether this request's session is the person's still, in a transaction that holds the person's row."""
    owner = select(sessions.c.user_id).where(sessions.c.session_hash == _digest(read_cookie(Cookie.SESSION)))
    return conn.execute(owner).scalar_one_or_none() == person.user_id


def end_session(conn: Connection, cookie: str) -> bool:
    """End one session; says whether there was one."""
    return conn.execute(delete(sessions).where(sessions.c.session_hash == _digest(cookie))).rowcount > 0


def end_sessions_of(conn: Connection, user_id: str) -> int:
    """End every session of a person; says how many there were."""
    return conn.execute(delete(sessions).where(sessions.c.user_id == user_id)).rowcount


def _find(services: Services, cookie: str) -> Person | None:
    if not cookie or len(cookie) > LONGEST_COOKIE:
        return None
    check_transport()
    row = _live_row(services, _digest(cookie), services.clock())
    person = active_person(services, row)
    if row is not None and person is not None and _is_use():
        _mark_seen(services, row)
    return person


def _live_row(services: Services, session_hash: str, now: datetime) -> Row[Any] | None:
    idle_since = now - timedelta(seconds=services.config.session_idle_s)
    query = (
        select(users, sessions.c.session_hash, sessions.c.seen_at)
        .join(sessions, sessions.c.user_id == users.c.user_id)
        .where(
            sessions.c.session_hash == session_hash,
            sessions.c.expires_at > now,
            sessions.c.seen_at > idle_since,
        )
    )
    with reading(services.engine) as conn:
        return conn.execute(query).one_or_none()


def _is_use() -> bool:
    """Whether somebody is there: not where a page that was left open fetches itself anew."""
    if request.method == "GET":
        return request.headers.get("Sec-Fetch-Dest") != "empty"
    return request.method != "HEAD"


def _mark_seen(services: Services, row: Row[Any]) -> None:
    """Remember that the person is there, at most once a minute."""
    now = services.clock()
    if now - row.seen_at < SEEN_EVERY:
        return
    stale = sessions.c.seen_at <= now - SEEN_EVERY
    with services.engine.begin() as conn:
        conn.execute(
            update(sessions).where(sessions.c.session_hash == row.session_hash, stale).values(seen_at=now)
        )


def _digest(cookie: str) -> str:
    return sha256(cookie.encode()).hexdigest()
