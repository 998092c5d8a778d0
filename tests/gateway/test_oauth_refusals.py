"""One test a row of docs/oauth-refusals.md: the RFC's answer, one entry without the secret, and nothing left behind."""

from __future__ import annotations

import ast
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from refused import (
    about_tokens,
    assertions,
    at_the_api,
    certificates,
    for_people,
    jwts_at_the_api,
    secrets_shown,
    token_requests,
)
from refused.browsing import STATE, answered
from refused.case import Ask, Case
from refused.scene import ISSUER, Scene, scene_in
from services.checkout import ROOT
from werkzeug.test import TestResponse

TABLES: dict[str, dict[str, Case]] = {
    "The form of a token request": token_requests.CASES,
    "A client that proves itself by a secret": secrets_shown.CASES,
    "A client that proves itself by an assertion": assertions.CASES,
    "A client that proves itself by a certificate": certificates.CASES,
    "A client that acts for people": for_people.CASES,
    "Revocation and introspection": about_tokens.CASES,
    "At the API": at_the_api.CASES,
    "A JWT at the API": jwts_at_the_api.CASES,
}
CASES = {name: case for cases in TABLES.values() for name, case in cases.items()}
GOOD: dict[str, Callable[[Scene], Ask]] = {
    "a secret": lambda scene: scene.ask_token(scene.client()),
    "an assertion": assertions.good,
    "a certificate of an authority": lambda scene: certificates.good(scene, self_signed=False),
    "a self-signed certificate": lambda scene: certificates.good(scene, self_signed=True),
    "a code": for_people.good_exchange,
    "a refresh token": for_people.good_refresh,
    "a token at the API": lambda scene: scene.ask_api(scene.token()),
    "a JWT at the API, signed here": lambda scene: scene.ask_api(scene.jwt()),
}
ONCE = {name: GOOD[name] for name in ("an assertion", "a code", "a refresh token")}
_EACH = re.MULTILINE | re.DOTALL


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One gateway for all rows."""
    with scene_in(tmp_path_factory.mktemp("refused")) as scene:
        yield scene


@pytest.fixture
def scene(shared: Scene) -> Scene:
    """The gateway, and a network of the test's own to call it from."""
    shared.number += 1
    return shared


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_refused_is_refused_as_the_rfc_says(
    scene: Scene, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    """Status, error and challenge of the RFC; one entry with the reason; no secret in answer, log or entry; no row."""
    caplog.set_level(logging.DEBUG)
    ask = case.of(scene)
    before, known = scene.kept(), scene.entry_ids()

    answer = scene.send(ask)

    after, entries = scene.kept(), scene.entries_beside(known)
    told = answer.text + str(answer.headers) + caplog.text + "".join(entry["opened"] for entry in entries)
    assert (answer.status_code, _error_of(answer)) == (case.status, case.error), answer.text
    assert answer.headers.get("WWW-Authenticate") == case.challenge
    assert [entry["event_type"] for entry in entries] == case.entries
    assert not case.entry or entries[-1]["details"].get("reason", "") == case.reason_said
    assert case.body is None or answer.get_json() == case.body
    assert {name for name in after if after[name] != before[name]} == case.changes
    assert [secret for secret in scene.secrets if secret in told] == []


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD.keys())
def test_without_its_one_fault_it_is_granted(scene: Scene, good: Callable[[Scene], Ask]) -> None:
    """What the rows above change in one place is right in all others: else their refusals would show nothing."""
    ask = good(scene)

    answer = scene.send(ask)

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("good", ONCE.values(), ids=ONCE.keys())
def test_of_two_at_once_one_is_refused(scene: Scene, good: Callable[[Scene], Ask]) -> None:
    """RFC 7523, 3 and RFC 6749, 4.1.2 and RFC 9700, 4.14.2: shown twice at the same moment, it is taken once."""
    ask, begin = good(scene), threading.Barrier(4)

    def send(_number: int) -> int:
        begin.wait()
        return scene.send(ask).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(send, range(4)))

    assert statuses[0] == 200
    assert set(statuses[1:]) <= {400, 401}


def test_the_page_and_the_tests_have_the_same_rows() -> None:
    """docs/oauth-refusals.md: no row without its test, no test without its row, and both say the same."""
    page = (ROOT / "docs" / "oauth-refusals.md").read_text("utf-8")

    written = {
        title: dict(_rows(table))
        for title, table in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page, _EACH)
    }

    tested = {
        title: {name: (case.answer, case.section) for name, case in cases.items()}
        for title, cases in TABLES.items()
    }
    assert {title: rows for title, rows in written.items() if rows} == tested


def test_no_secret_is_compared_with_a_plain_equals() -> None:
    """RFC 6749, 10.10: no `==` in `gateway/auth` has a secret, a digest, a code, a signature or a token beside it.

    It goes by names, in every module: a comparison of secrets must look like one, and then be `hmac.compare_digest`.
    What is found by an index of the database (`token_hash == digest(token)`) is compared there, as a SHA-256: who
    does not know the token cannot choose that hash piece by piece.
    """
    compared = {
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in (ROOT / "gateway" / "auth").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Compare) and _tells_secrets_apart(node)
    }

    assert not compared


_SECRET_NAME = re.compile(
    r"(secret|digest|hash|password|token|verifier|challenge|signature|totp|cookie|nonce|assertion)$"
)


def _tells_secrets_apart(node: ast.Compare) -> bool:
    """Whether it compares two values in Python, one of which is named like a secret."""
    sides = [node.left, *node.comparators]
    is_equality = any(isinstance(sign, ast.Eq | ast.NotEq) for sign in node.ops)
    is_sql = any(".c." in ast.unparse(side) or "_CODES." in ast.unparse(side) for side in sides)
    with_constant = any(isinstance(side, ast.Constant) for side in sides)
    is_secret = any(_SECRET_NAME.search(_last_name(side)) for side in sides)
    return is_equality and not is_sql and not with_constant and is_secret


def _last_name(side: ast.expr) -> str:
    """`token_hash` of `row.token_hash`, `digest` of `digest(token)`."""
    match side:
        case ast.Call(func=called):
            return _last_name(called)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def _rows(table: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] != "what is sent":
            yield cells[0], (cells[1], cells[3])


def _error_of(answer: TestResponse) -> str | None:
    """The error code of RFC 6749 in the redirect or the body, or of RFC 6750 in the challenge."""
    if answer.status_code == 303:
        told = answered(answer)
        assert (told["iss"], told["state"]) == (ISSUER, STATE)
        return told["error"]
    if answer.mimetype == "application/problem+json":
        found = answer.www_authenticate.get("error") if answer.www_authenticate else None
        return found and str(found)
    return (answer.get_json(silent=True) or {}).get("error")
