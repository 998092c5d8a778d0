"""`fl-gateway user`: what it prints, what it refuses, and that a password never stands on the command line."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import CliRunner, Result
from living.home import clean_environment, home_in

from gateway.cli import main

PASSWORD = "a horse of another colour"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings of an embedded gateway where Ada is known."""
    with home_in(tmp_path_factory.mktemp("users")) as made:
        (made.directory / "password.txt").write_text(f"{PASSWORD}\nsecond line\n")
        environ = made.environment() | {"PASSWORD_FILE": str(made.directory / "password.txt")}
        added = give(environ, "add", "Ada", "--role", "operator", "--password-file", environ["PASSWORD_FILE"])
        assert added.exit_code == 0, added.output
        yield environ


def give(environ: dict[str, str], *words: str, typed: str | None = None) -> Result:
    """Run `fl-gateway user …`."""
    return CliRunner().invoke(main, ["user", *words], env=environ, input=typed)


def test_an_account_is_printed_for_machines(home: dict[str, str]) -> None:
    """`--json`: id, secret and URI, this once; the list has no secret."""
    words = ("Grace", "--role", "auditor", "--password-file", home["PASSWORD_FILE"], "--json")

    added, listed = give(home, "add", *words), give(home, "list", "--json")

    told = json.loads(added.stdout)
    assert set(told) == {"user_id", "totp_secret", "totp_uri"}
    (grace,) = [one for one in json.loads(listed.stdout) if one["name"] == "Grace"]
    assert (grace["user_id"], grace["signs_in_with"]) == (told["user_id"], ["password", "totp"])
    assert told["totp_secret"] not in listed.stdout
    assert PASSWORD not in added.output + listed.output


def test_without_a_second_factor_the_operator_is_warned(home: dict[str, str]) -> None:
    """`--no-totp`."""
    words = ("Edsger", "--role", "dpo", "--password-file", home["PASSWORD_FILE"], "--no-totp", "--json")

    added = give(home, "add", *words)

    assert set(json.loads(added.stdout)) == {"user_id"}
    assert "whoever learns the password is let in" in added.stderr


def test_the_console_exports_and_erases_an_account(home: dict[str, str], tmp_path: Path) -> None:
    """Art. 15 and 17 for the staff, by the user id that the list shows."""
    added = give(home, "add", "Kurt", "--role", "dpo", "--password-file", home["PASSWORD_FILE"], "--json")
    user_id, package = json.loads(added.stdout)["user_id"], tmp_path / "package.zip"

    exported, erased = (
        CliRunner().invoke(main, ["privacy", *words], env=home)
        for words in (["export", user_id, "-o", str(package)], ["erase", user_id])
    )

    assert (exported.exit_code, erased.exit_code) == (0, 0), exported.output + erased.output
    with ZipFile(package) as archive:
        assert json.loads(archive.read("data/staff_accounts.json"))[0]["name"] == "Kurt"
    assert user_id not in give(home, "list", "--json").stdout


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("add", "Bob", "--role", "dpo"), 2, "no terminal"),
        (("add", "Bob", "--role", "participant", "--password-file", "FILE"), 2, "Invalid value"),
        (("add", "Bob", "--role", "dpo", "--password-file", "nowhere"), 2, "does not exist"),
        (("add", "ada", "--role", "dpo", "--password-file", "FILE"), 2, "Somebody else has this name"),
        (("add", " ", "--role", "dpo", "--password-file", "FILE"), 2, "1 to 200"),
        (("add", "Bob", "--role", "dpo", "--openid-subject", "b"), 2, "FLG_OPENID_PROVIDER"),
        (("change", "Ada"), 2, "Nothing would change"),
        (("change", "Nobody", "--no-totp"), 2, "no such person"),
        (("suspend", "Nobody"), 2, "no such person"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    home: dict[str, str], words: tuple[str, ...], code: int, why: str
) -> None:
    """Exit 2, and what to mend."""
    done = give(home, *(home["PASSWORD_FILE"] if word == "FILE" else word for word in words))

    assert done.exit_code == code
    assert why in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("text", ["short", "password1234", "x" * 129])
def test_a_poor_password_is_refused_and_not_repeated(home: dict[str, str], text: str, tmp_path: Path) -> None:
    """Also from standard input."""
    done = give(home, "add", "Bob", "--role", "dpo", "--password-file", "-", typed=f"{text}\n")

    assert done.exit_code == 2
    assert "a password must have" in done.output or "tried first" in done.output
    assert text not in done.output


def test_a_password_of_another_encoding_is_refused_in_one_line(home: dict[str, str], tmp_path: Path) -> None:
    """No traceback, and no byte of it."""
    (path := tmp_path / "latin-1.txt").write_bytes("paßwörter sind schön\n".encode("latin-1"))

    done = give(home, "add", "Bob", "--role", "dpo", "--password-file", str(path))

    assert (done.exit_code, "must be UTF-8" in done.output) == (2, True), done.output
    assert "rter" not in done.output


def test_a_terminal_is_asked_twice(home: dict[str, str]) -> None:
    """Nothing is shown while it is typed, and two different ones are asked for again."""
    typed = [PASSWORD, "another one by mistake", PASSWORD, PASSWORD]

    status, shown = at_a_terminal(home, ["change", "Ada", "--new-password"], typed)

    assert status == 0, shown
    assert "do not match" in shown
    assert shown.count("Password (") == 2
    assert not [line for line in typed if line in shown]


def at_a_terminal(environ: dict[str, str], words: list[str], typed: list[str]) -> tuple[int, str]:
    """Run `fl-gateway user …` on a terminal of its own, a line at each prompt; its exit status, and the screen."""
    command = [sys.executable, "-m", "gateway.cli", "user", *words]
    process, screen = pty.fork()
    if process == 0:
        os.execve(sys.executable, command, clean_environment() | environ)  # noqa: S606 - the child goes no further
    shown, lines = "", iter(typed)
    with suppress(OSError):  # the terminal is gone when the command is
        while more := os.read(screen, 4096):
            shown += more.decode()
            if (
                shown.endswith(("characters): ", "confirmation: "))
                and (line := next(lines, None)) is not None
            ):
                os.write(screen, f"{line}\n".encode())
    os.close(screen)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown
