"""docs/people-and-tools.md: the tool is registered and run as shown; a browser without eyes signs in and allows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from living.home import clean_environment, home_in
from living.processes import gateway_in
from services.pages import blocks, run_shown
from staff import CHEAP, PASSWORD, add_member

from gateway.auth.people.passwords import Passwords

PAGE = "people-and-tools.md"
BROWSER = f'''
import re, sys
import httpx

def fields(page):
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text.replace("&amp;", "&")))

with httpx.Client(follow_redirects=True, timeout=30) as browser:
    sign_in = browser.get(sys.argv[1])
    assert "/console/sign-in" in str(sign_in.url), sign_in.url
    form = fields(sign_in) | {{"name": "ada", "password": "{PASSWORD}", "code": ""}}
    consent = browser.post(sign_in.url.join("/console/sign-in"), data=form)
    assert ">log viewer<" in consent.text, consent.text
    last = browser.post(consent.url.join("/oauth/authorize"), data=fields(consent) | {{"decision": "allow"}})
    assert last.text == "You may close this window.", last.text
'''


def test_the_page_s_tool_acts_for_a_person(tmp_path: Path) -> None:
    """Registered by the shown command; the person signs in by forms; the shown program reads, refreshes, revokes."""
    (command,) = blocks(PAGE, "console")
    (program,) = blocks(PAGE, "python")
    (tmp_path / "browser.py").write_text(BROWSER)

    with home_in(tmp_path / "home") as home, gateway_in(home) as gateway:
        with home.stores() as services:
            add_member(services, Passwords(CHEAP), "ada", role="auditor", has_totp=False)
        shown = re.sub(r"^\$ ", "", command.splitlines()[0])
        added = run_shown(shown, tmp_path, clean_environment() | home.environment())
        assert added.returncode == 0, added.stderr
        client = json.loads(added.stdout)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=clean_environment()
            | {
                "GATEWAY_URL": str(gateway.http.base_url).rstrip("/"),
                "CLIENT_ID": client["client_id"],
                "CLIENT_SECRET": client["client_secret"],
                "BROWSER": f"{sys.executable} {tmp_path / 'browser.py'} %s &",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n\n\u2014 ") == 2, "two signed checkpoints"
