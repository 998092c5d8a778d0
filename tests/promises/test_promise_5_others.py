"""Promise 5 for everybody else: the erasure of one person changes nothing of what is kept of another."""

from __future__ import annotations

import json
import re
import zipfile
from io import BytesIO

import pytest
from living.driver import BUDGET, Driver, Person, await_that, tensors
from living.threads import LocalGateway

ABOUT_THE_EXPORT = re.compile(
    r"README\.html|manifest\.(json|sig)|audit/(checkpoint|proofs/.*)|(data|portability)/privacy_requests\..*"
)
"""They tell of the export itself, and of the state of the whole log."""
TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_the_export_of_another_person_is_the_same_after_an_erasure(gateway: LocalGateway) -> None:
    """Byte for byte apart from times; what the log said of it is there still, with the first export behind it."""
    gateway.add_model(budget=BUDGET)
    person, other = (gateway.register(name=name) for name in ("Ada", "Bob"))
    gateway.run_round([person, other])
    gateway.submit(other, gateway.open_round(), tensors(3), Idempotency_Key="kept")
    before = _package(gateway, other)

    gateway.erase(person)

    after = _package(gateway, other)
    assert before.keys() == after.keys()
    assert len([name for name in before if name.startswith("updates/")]) == 2
    for name, told in before.items():
        if name == "audit/entries.json":
            older, newer = json.loads(told), json.loads(after[name])
            assert newer[: len(older)] == older
        else:
            assert TIME.sub(b"a time", after[name]) == TIME.sub(b"a time", told), name


def _package(gateway: Driver, person: Person) -> dict[str, bytes]:
    """The files of a new export package that tell of the person."""
    case = gateway.ask_privacy("access", person)
    await_that("the package", lambda: gateway.privacy_request(case["id"])["status"] == "completed")
    url = f"/api/v1/privacy/requests/{case['id']}/package"
    answer = gateway.http.get(url, headers=gateway.as_role("dpo"))
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(BytesIO(answer.content)) as package:
        names = [name for name in package.namelist() if not ABOUT_THE_EXPORT.fullmatch(name)]
        return {name: package.read(name) for name in names}
