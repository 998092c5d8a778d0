"""The text of a problem document: what refusals share is spelled once, and is what JSON would spell."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from flask import Flask, g
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, Unauthorized, ValidationFailed
from gateway.problems import problem_text
from gateway.services import Services
from gateway.wire import encode

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ['"', "\\", '{"request_id":"","timestamp":""}}', ',"request_id":"","timestamp":"', "\0", "é€"]
)


@given(detail=_TEXTS, request_id=_TEXTS, fact=st.none() | _TEXTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_the_text_is_the_documents_json(
    app: Flask, services: Services, detail: str, request_id: str, fact: str | None
) -> None:
    """Whatever a refusal says, and whichever request it answers: before the first of its kind, and after it."""
    facts = {} if fact is None else {"fact": fact}
    error = GatewayError(detail, **facts)
    said = detail or GatewayError.title
    with app.app_context():
        g.request_id = request_id
        texts = [problem_text(error), problem_text(error)]

    for text in texts:
        stamp = json.loads(text)["error"]["timestamp"]
        assert datetime.fromisoformat(stamp) <= services.clock()
        assert stamp.endswith("Z")
        assert text == encode(
            {
                "type": "urn:fl-gateway:problem:internal-error",
                "title": "The gateway failed",
                "status": 500,
                "detail": said,
                "code": "INTERNAL_ERROR",
                "error": {
                    "code": "INTERNAL_ERROR",
                    "message": said,
                    "details": facts,
                    "request_id": request_id,
                    "timestamp": stamp,
                },
            }
        )


@pytest.mark.parametrize("said", ["one", "another"])
def test_refusals_of_one_kind_are_told_apart(app: Flask, said: str) -> None:
    """Details, codes and errors of fields are each refusal's own."""
    with app.app_context():
        plain = json.loads(problem_text(Unauthorized(said)))
        failed = json.loads(problem_text(ValidationFailed([{"pointer": "/a", "detail": said}])))

    assert (plain["detail"], plain["code"], plain["status"]) == (said, "UNAUTHORIZED", 401)
    assert failed["errors"] == failed["error"]["details"]["errors"] == [{"pointer": "/a", "detail": said}]
    assert plain["error"]["request_id"] == ""
