"""docs/performance.md: the server is started and the front written as the page shows it, and both work together."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from living.home import home_in
from living.processes import gateway_in
from services.checkout import ROOT

PAGE = (ROOT / "docs" / "performance.md").read_text("utf-8")
_SOCKET = "/run/fl-gateway/web.sock"


def _shown(command: str) -> list[str]:
    """The words of the one command line of the page that begins so."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"$ {command}")]
    return shlex.split(line.removeprefix("$ "))


def test_the_page_s_server_answers_on_its_socket_and_the_front_names_it(tmp_path: Path) -> None:
    """`serve` as shown prints the line as shown; `nginx` as shown writes a front that passes on to that socket."""
    path, site = tmp_path / "web.sock", tmp_path / "site.conf"
    serve = [word.replace(_SOCKET, str(path)) for word in _shown("fl-gateway serve")]
    nginx = [word.replace(_SOCKET, str(path)) for word in _shown("fl-gateway nginx")]
    nginx[-1] = str(site)

    with home_in(tmp_path / "home") as home, gateway_in(home, *serve[2:]) as gateway:
        written = home.command(*nginx[1:])

        assert gateway.http.get("/health").status_code == 200
        (told,) = home.directory.glob("serve-*-1.out")
        assert told.read_text() == f"ready unix:{path}\n"

    assert written.returncode == 0, written.stderr
    assert f"server unix:{path};" in site.read_text()
    assert f"ready unix:{_SOCKET}" in PAGE


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"FLG_[A-Z_]+", PAGE))))
def test_the_page_names_settings_that_there_are(setting: str) -> None:
    """What the page tells to set can be set."""
    assert f"`{setting}`" in (ROOT / "docs" / "operator.md").read_text("utf-8")
