"""Notices on their way: by mail and webhook, once each, tried again, and given up with an entry in the log."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from services.authority import Authority
from services.clock import FixedClock
from services.mail import MailServer, busy_mail_server, mail_server
from services.webhook import Receiver, receiving
from sqlalchemy import select

import gateway.notices.sending as sending
from audit.events import Severity
from gateway.cli import main
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.notices import Notice, NoticeKind, file_notice, parse_targets
from gateway.notices.sending import Sender, run_notices
from gateway.services import Services
from gateway.tables import notices

Entries = Callable[..., list[dict[str, Any]]]
SECRET = "a secret of the notices"
ADDRESSES = "from=gateway@fl.example&to=dpo@fl.example&to=ops@fl.example"
CAUSE = Notice(
    NoticeKind.DEADLINE, Severity.HIGH, "A privacy request has five days left", "Answer it.", "days_left_5|1"
)
once_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """A mail server without TLS."""
    with mail_server() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook's receiver."""
    with receiving() as opened:
        yield opened


@pytest.fixture
def config(config: Config, mail: MailServer, receiver: Receiver) -> Config:
    """Settings that tell both."""
    told = f"smtp://127.0.0.1:{mail.port}?{ADDRESSES} {receiver.url}"
    return replace(config, notices=told, notices_secret=SECRET)


@pytest.fixture
def sender(services: Services) -> Iterator[Sender]:
    """The sender, driven by the test."""
    made = Sender(services)
    yield made
    made.close()


def file(services: Services, notice: Notice = CAUSE) -> int:
    with services.engine.begin() as conn:
        return file_notice(conn, services, notice)


def rows(services: Services) -> list[dict[str, Any]]:
    with services.engine.connect() as conn:
        found = conn.execute(select(notices).order_by(notices.c.target)).all()
        return [dict(row._mapping) for row in found]


def test_a_notice_reaches_every_target_once(
    services: Services, sender: Sender, mail: MailServer, receiver: Receiver
) -> None:
    """Issue 7, notifications: e-mail and webhook; a cause that is filed twice is told once."""
    filed = [file(services), file(services)]

    taken = [sender.look(), sender.look()]

    assert (filed, taken) == ([2, 0], [2, 0])
    (letter,), (posted,) = mail.taken, receiver.posted
    assert letter.recipients == ("dpo@fl.example", "ops@fl.example")
    assert letter.message["Subject"] == "[fl-gateway] A privacy request has five days left"
    assert "Answer it." in letter.message.get_content()
    assert json.loads(posted.body)["severity"] == "high"
    assert [row["status"] for row in rows(services)] == ["sent", "sent"]


def test_a_notice_is_there_with_its_cause_or_not_at_all(services: Services) -> None:
    """Promise 1: what is rolled back was never told."""
    with services.engine.connect() as conn, conn.begin() as transaction:
        file_notice(conn, services, CAUSE)
        transaction.rollback()

    assert rows(services) == []


@once_only
def test_the_webhook_s_signature_is_checked_as_that_of_invitations(
    services: Services, sender: Sender, receiver: Receiver
) -> None:
    """HMAC-SHA256 over the time, a dot, and the body; the key of a repetition is the notice's id."""
    file(services)

    sender.look()

    (posted,) = receiver.posted
    at, told = posted.headers["X-FL-Signature"].split(",")
    wanted = hmac.new(SECRET.encode(), at.removeprefix("t=").encode() + b"." + posted.body, hashlib.sha256)
    assert told == f"v1={wanted.hexdigest()}"
    assert posted.headers["Idempotency-Key"] == json.loads(posted.body)["notice_id"]


@once_only
def test_a_refused_notice_is_tried_again_later_under_the_same_id(
    services: Services, sender: Sender, clock: FixedClock, receiver: Receiver, mail: MailServer
) -> None:
    """Retries with back-off: nothing is sent before its time, and a receiver can tell a repetition."""
    receiver.answers, mail.answers = [500], ["451 later"]
    file(services)
    sender.look()
    at_once = sender.look()
    clock.advance(timedelta(seconds=31))

    later = sender.look()

    assert (at_once, later) == (0, 2)
    assert len({json.loads(posted.body)["notice_id"] for posted in receiver.posted}) == 1
    assert [row["tries"] for row in rows(services)] == [1, 1]


@once_only
def test_who_got_a_mail_gets_it_once_although_another_recipient_is_refused(
    services: Services, sender: Sender, clock: FixedClock, mail: MailServer
) -> None:
    """A mailbox that is gone must not send the others the same notice twelve times."""
    mail.unknown = {"ops@fl.example"}
    file(services)
    sender.look()
    clock.advance(timedelta(seconds=31))
    sender.look()
    mail.unknown = set()
    clock.advance(timedelta(seconds=61))

    sender.look()

    assert [letter.recipients for letter in mail.taken] == [("dpo@fl.example",), ("ops@fl.example",)]
    assert {row["status"] for row in rows(services)} == {"sent"}


@once_only
def test_a_target_that_is_away_is_asked_once_a_look_and_holds_up_nobody(
    services: Services, config: Config, receiver: Receiver
) -> None:
    """Fifty notices for a mail server that hangs must not keep the webhook, or a stop, waiting for minutes."""
    with busy_mail_server() as busy:
        told = f"smtp://127.0.0.1:{busy.port}?{ADDRESSES} {receiver.url}"
        moved = replace(services, config=replace(config, notices=told))
        for number in range(3):
            file(moved, replace(CAUSE, dedupe_key=str(number)))
        sender = Sender(moved)

        looks = [(sender.look(), len(busy.asked)) for _ in range(2)]
        sender.close()

    assert looks == [(3, 1), (0, 2)]
    assert len(receiver.posted) == 3


@once_only
def test_a_notice_that_was_taken_is_sent_whatever_the_server_says_at_the_end(
    services: Services, sender: Sender, mail: MailServer
) -> None:
    """The answer to the message counts, not the one to QUIT."""
    mail.farewell = "421 too many connections"
    file(services)

    sender.look()

    assert len(mail.taken) == 1
    assert {row["status"] for row in rows(services)} == {"sent"}


def test_a_notice_that_is_never_taken_is_given_up_and_the_log_says_so(
    services: Services,
    sender: Sender,
    clock: FixedClock,
    receiver: Receiver,
    entries: Entries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`notice.failed`, once, with the target's name, which holds no address and no secret part of a URL."""
    monkeypatch.setattr(sending, "MOST_TRIES", 2)
    receiver.answers = [500] * 9
    file(services)
    for _ in range(4):
        sender.look()
        clock.advance(timedelta(hours=1))

    (entry,) = entries("notice.failed")

    assert (entry["details"]["tries"], entry["details"]["reason"]) == (2, "not_taken")
    assert entry["details"]["target"].startswith("http://127.0.0.1#")
    assert "opaque" not in str(entry)
    assert (entry["outcome"], len(receiver.posted)) == ("failure", 2)


@once_only
def test_a_notice_to_a_target_that_is_not_set_any_more_is_given_up(
    services: Services, config: Config, entries: Entries
) -> None:
    """It would wait for ever; the log tells it."""
    file(services)
    moved = Sender(replace(services, config=replace(config, notices="")))

    moved.look()

    assert [entry["details"]["reason"] for entry in entries("notice.failed")] == ["no_such_target"] * 2


@once_only
def test_old_notices_are_forgotten_and_waiting_ones_are_not(
    services: Services, sender: Sender, clock: FixedClock, mail: MailServer
) -> None:
    """Nothing is kept for ever; what was not sent yet is."""
    mail.answers = ["451 later"]
    file(services)
    sender.look()
    clock.advance(sending.KEPT_FOR + timedelta(days=1))

    forgotten = sender.forget()

    assert forgotten == 1
    assert [row["status"] for row in rows(services)] == ["waiting"]


@once_only
def test_the_thread_sends_what_is_filed_and_stops_when_told(services: Services, mail: MailServer) -> None:
    """The worker's own loop, with its lead."""
    file(services)
    stop = threading.Event()
    thread = threading.Thread(target=run_notices, args=(services, stop))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not mail.taken and time.monotonic() < deadline:
            stop.wait(0.05)
    finally:
        stop.set()
        thread.join(60)

    assert len(mail.taken) == 1
    assert not thread.is_alive()


# TLS, sign-in


@once_only
def test_mail_goes_by_starttls_with_a_sign_in(services: Services, config: Config, tmp_path: Path) -> None:
    """The password crosses no line in clear, and the server's certificate is checked."""
    authority = Authority(tmp_path / "tls")
    with mail_server(authority.pair("mail", "127.0.0.1"), password="open sesame") as server:
        url = (
            f"smtp://127.0.0.1:{server.port}?{ADDRESSES}&user=gateway&starttls=always&ca={authority.ca_file}"
        )
        tried = replace(config, notices=url, notices_smtp_password="open sesame")
        (named,) = parse_targets(tried, services.clock)
        good = named.target.probe()
        (wrong,) = parse_targets(replace(tried, notices_smtp_password="guessed"), services.clock)
        refused = wrong.target.probe()

    assert (good, refused) == (None, "login")
    assert set(server.logins) == {("gateway", "open sesame"), ("gateway", "guessed")}


@once_only
def test_a_server_whose_certificate_nobody_knows_gets_nothing(
    services: Services, config: Config, tmp_path: Path
) -> None:
    """TLS without a check of the other end is none."""
    with mail_server(Authority(tmp_path / "tls").pair("mail", "127.0.0.1")) as server:
        url = f"smtp://127.0.0.1:{server.port}?{ADDRESSES}&starttls=always"
        moved = replace(services, config=replace(config, notices=url))
        file(moved)
        Sender(moved).look()

    assert server.taken == []
    assert [row["problem"] for row in rows(services)] == ["no_tls"]


@once_only
def test_a_server_without_starttls_gets_nothing_where_it_is_insisted_on(
    services: Services, config: Config, mail: MailServer
) -> None:
    """Somebody on the line may hide the offer."""
    url = f"smtp://127.0.0.1:{mail.port}?{ADDRESSES}&starttls=always"
    moved = replace(services, config=replace(config, notices=url))
    file(moved)

    Sender(moved).look()

    assert mail.taken == []
    assert [row["problem"] for row in rows(services)] == ["no_tls"]


def test_starttls_is_insisted_on_unless_the_server_is_on_this_machine(tmp_path: Path) -> None:
    """Required by default beyond the loopback."""
    from gateway.notices.mail import read_mail_server

    away = read_mail_server(f"smtp://mail.example?{ADDRESSES}", "")
    here = read_mail_server(f"smtp://localhost:25?{ADDRESSES}", "")
    tls = read_mail_server(f"smtps://mail.example?{ADDRESSES}", "")

    assert (away.insists_on_tls, here.insists_on_tls, tls.insists_on_tls) == (True, False, False)
    assert (away.port, tls.port, tls.is_tls) == (587, 465, True)


# Settings, commands


@pytest.mark.parametrize(
    "text",
    [
        "ftp://files.example",
        "smtp://mail.example",
        "smtp://mail.example?from=a@b.example",
        f"smtp://gateway:password@mail.example?{ADDRESSES}",
        f"smtp://mail.example?{ADDRESSES}&user=gateway",
        f"smtp://mail.example?{ADDRESSES}&starttls=never",
        f"smtp://mail.example?{ADDRESSES}&colour=red",
        "smtp://mail.example?from=a@b.example&to=c@d.example%0d%0aBcc:e@f.example",
        "smtp://[::1?from=a@b.example",
        f"smtps://mail..example?{ADDRESSES}",
        "https://hooks..example/a",
        f"https://{'a' * 64}.example/a",
        "https://\u00e4_b.example/a",
        "http://hooks.example/secret-token",
        "https://hooks.example/secret-token",
        "https://hooks.example/a https://hooks.example/a",
    ],
)
def test_a_target_that_cannot_be_used_is_told_at_the_start(text: str) -> None:
    """Its text is not repeated: it may hold addresses and tokens."""
    wrong = Config(notices=text, notices_secret=SECRET if text.count("/a") else "")
    with pytest.raises(ConfigError) as refused:
        parse_targets(wrong, FixedClock())

    assert "FLG_NOTICES" in str(refused.value)
    assert "secret-token" not in str(refused.value)
    assert "@" not in str(refused.value)


@once_only
def test_addresses_and_secrets_are_in_no_row_and_no_log_line(
    services: Services, sender: Sender, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No person's address beside the setting itself."""
    mail.answers = ["550 no"]
    file(services)
    with caplog.at_level(logging.DEBUG, logger="gateway"):
        sender.look()

    kept = json.dumps([{name: str(value) for name, value in row.items()} for row in rows(services)])
    assert "fl.example" not in kept + caplog.text
    assert "did not take a notice (refused)" in caplog.text


def test_a_trial_notice_is_sent_at_the_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    """`notices test` tells of each target whether it took one; `notices list` shows what was filed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLG_NOTICES", f"smtp://127.0.0.1:{mail.port}?{ADDRESSES}")
    mail.answers = ["250 OK", "550 no"]

    good, bad = (CliRunner().invoke(main, ["notices", "test", "--json"]) for _ in range(2))
    shown = CliRunner().invoke(main, ["notices", "list", "--json"])

    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert json.loads(bad.output)[0]["problem"] == "refused"
    assert mail.taken[0].message["X-FL-Notice"] == "trial"
    assert json.loads(shown.output) == []
