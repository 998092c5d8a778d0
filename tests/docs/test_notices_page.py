"""docs/notices.md: its commands as they stand there, its program on a real signature, its words against the code."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from pathlib import Path
from typing import Any

from living.home import clean_environment, home_in
from services.checkout import ROOT
from services.mail import mail_server
from services.pages import blocks, run_shown

import gateway.notices.sending as sending
from gateway.notices import NoticeKind
from gateway.notices.letter import Problem
from gateway.notices.mail import _OPTIONS

PAGE = (ROOT / "docs" / "notices.md").read_text("utf-8")


def test_the_page_s_commands_set_notices_up(tmp_path: Path) -> None:
    """doctor, a trial notice, the list: with a mail server of this machine in place of the page's."""
    set_up, listing = blocks("notices.md", "console")
    with mail_server() as server, home_in(tmp_path / "home") as home:
        here = f"smtp://127.0.0.1:{server.port}"
        script = (set_up + listing).replace("$ ", "").replace("smtps://mail.example", here)
        script = script.replace("&user=gateway", "")
        done = run_shown(script, home.directory, clean_environment() | home.environment())

    assert done.returncode == 0, done.stdout + done.stderr
    assert ": taken" in done.stdout
    assert [mail.message["Subject"] for mail in server.taken] == ["[fl-gateway] A trial notice"]


def test_the_page_s_program_knows_a_genuine_notice() -> None:
    """The receiver's check of the signature, as shown."""
    (program,) = blocks("notices.md", "python")
    scope: dict[str, Any] = {}
    exec(program, scope)  # noqa: S102 - the page's own program
    at, body, secret = str(int(time.time())), b'{"kind":"deadline"}', b"a secret of the notices"
    made = hmac.new(secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()

    told = f"t={at},v1={made}"

    assert scope["is_genuine"](told, body, secret) is True
    assert scope["is_genuine"](told, body + b" ", secret) is False
    assert scope["is_genuine"](f"t=1,v1={made}", body, secret) is False


def test_the_page_names_every_kind_reason_and_option() -> None:
    """What the code knows stands on the page, and its numbers are the code's."""
    words = set(re.findall(r"`([a-z_]+)(?:=[A-Za-z_]+)?`", PAGE))

    assert {kind.value for kind in NoticeKind} - {"trial"} <= words
    assert {problem.value for problem in Problem} <= words
    assert words >= _OPTIONS
    assert f"{sending.MOST_TRIES} times in all" in PAGE
    assert f"{sending.KEPT_FOR.days} days" in PAGE
