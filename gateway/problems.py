"""The one place where errors become answers: RFC 9457 problem documents, made from codes and declared facts alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flask import Flask, Response, g, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from aggregation.errors import AggregationError, BadFormat, PolicyError
from compliance.errors import (
    ApprovalNeedsAnother,
    BadCorrection,
    BadHold,
    BadReceiptDay,
    BadRefusal,
    CaseChanged,
    ComplianceError,
    CorrectionNeeded,
    HoldChanged,
    HoldEnded,
    MoveNotAllowed,
    NoCommitmentKey,
    NoPackage,
    NoStatement,
    NothingToLift,
    NotNow,
    ReasonMissing,
    ReleaseNotAsked,
    SubjectErased,
    SubjectErasing,
    UnknownClient,
    UnknownHold,
    UnknownRequest,
    UnknownSubject,
    UnsupportedRequest,
)
from gateway.auth.people.admission import SignInFirst
from gateway.auth.refusals import record_refusal
from gateway.console.door import sign_in_redirect
from gateway.console.pages import refusal_page
from gateway.errors import (
    BadRequest,
    Busy,
    GatewayError,
    InvalidModelFormat,
    NotFound,
    PayloadTooLarge,
    RangeNotSatisfiable,
    StorageFull,
    ValidationFailed,
)
from gateway.services import current_services
from gateway.storage.blobs import is_full
from gateway.storage.database import is_outage, kind_of, lacks_room
from gateway.wire import encode, json_response

log = logging.getLogger(__name__)
AUDITED = frozenset({401, 403, 409, 413, 422, 429})
_SPELLED = 256
_PAGES = ("/console/", "/oauth/authorize", "/packages/")


_COMPLIANCE: tuple[tuple[tuple[type[ComplianceError], ...], int], ...] = (
    ((UnknownSubject, UnknownRequest, UnknownClient, UnknownHold, NoPackage, NoCommitmentKey), 404),
    ((BadCorrection, BadHold, ReasonMissing, UnsupportedRequest), 422),
    ((BadRefusal, BadReceiptDay, CorrectionNeeded), 422),
    ((NoStatement,), 404),
    ((SubjectErased, SubjectErasing, ApprovalNeedsAnother, MoveNotAllowed, CaseChanged, NotNow), 409),
    ((HoldEnded, HoldChanged, ReleaseNotAsked, NothingToLift), 409),
)
_TITLES = {
    404: "There is no such object",
    409: "The request is not in a state for this",
    422: "A value is wrong",
    500: "The gateway failed",
}


def compliance_status(kind: type[ComplianceError]) -> int:
    """The HTTP status that a refusal of the privacy desk gets."""
    return next((status for kinds, status in _COMPLIANCE if issubclass(kind, kinds)), 500)


def install_problems(app: Flask) -> None:
    """Answer every error of the application with a problem document."""
    app.register_error_handler(GatewayError, _answer)
    app.register_error_handler(AggregationError, lambda error: _answer(_from_aggregation(error)))
    app.register_error_handler(ComplianceError, lambda error: _answer(_from_compliance(error)))
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(SQLAlchemyError, _database_failed)
    app.register_error_handler(OSError, _system_failed)
    app.register_error_handler(Exception, _unforeseen)


def problem_text(error: GatewayError) -> str:
    """The problem document of a refusal, JSON, with the member `error` for clients of the older data format."""
    request_id = g.get("request_id", "")
    stamp = current_services().clock().isoformat().replace("+00:00", "Z")
    said = (error.code, error.title, error.status, error.detail)
    if isinstance(error, ValidationFailed):
        told = _document(*said, {"errors": error.errors}, request_id, stamp)
        return encode({**told, "errors": error.errors})
    if error.facts:
        return encode(_document(*said, error.facts, request_id, stamp))
    before, between, behind = _in_common(*said)
    return f"{before}{encode(request_id)}{between}{stamp}{behind}"


@lru_cache(maxsize=_SPELLED)
def _in_common(code: str, title: str, status: int, detail: str) -> tuple[str, str, str]:
    """What refusals without facts of their own share: the text before, between and behind request id and time."""
    whole = encode(_document(code, title, status, detail, {}, "", ""))
    before, between = '"request_id":', ',"timestamp":"'
    head, _, _ = whole.rpartition(f'{before}""{between}')
    return f"{head}{before}", between, '"}}'


def _document(
    code: str,
    title: str,
    status: int,
    detail: str,
    details: Mapping[str, Any],
    request_id: str,
    stamp: str,
) -> dict[str, Any]:
    return {
        "type": f"urn:fl-gateway:problem:{code.lower().replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "error": {
            "code": code,
            "message": detail,
            "details": details,
            "request_id": request_id,
            "timestamp": stamp,
        },
    }


def refused(error: GatewayError | ComplianceError) -> GatewayError:
    """A refusal that a page tells beside its form; the log keeps it as it keeps the others."""
    found = error if isinstance(error, GatewayError) else _from_compliance(error)
    if found.status in AUDITED:
        record_refusal(found)
    return found


def _answer(error: GatewayError) -> Response:
    if isinstance(error, SignInFirst):
        return sign_in_redirect()
    if error.status in AUDITED or _is_about_credentials(error) or _is_refused_write(error):
        record_refusal(error)
    path = request.path
    if path.startswith(_PAGES):
        return refusal_page(error)
    if path.startswith("/oauth/"):  # RFC 6749 also where no route of the blueprint was reached
        return oauth_problem(error)
    headers = _challenged(error.headers)
    return Response(problem_text(error), error.status, headers, mimetype="application/problem+json")


def _answer_http(error: HTTPException) -> Response:
    """The problem, with what RFC 9110 wants beside a 405 and a 416."""
    response = _answer(_from_http(error))
    told = [pair for pair in error.get_headers() if pair[0] in ("Allow", "Content-Range")]
    response.headers.extend(told)
    return response


def oauth_problem(error: GatewayError) -> Response:
    """A refusal as `/oauth/*` tells it: JSON of RFC 6749, section 5.2."""
    told = {"error": oauth_code(error.status), "error_description": error.detail}
    return json_response(told, error.status, {**error.headers, "Pragma": "no-cache"})


def oauth_code(status: int) -> str:
    """The `error` of RFC 6749 that goes with a status; a full disk is as passing a state as a busy server."""
    if status in (429, 503, 507):
        return "temporarily_unavailable"
    return "invalid_request" if status < 500 else "server_error"


def _challenged(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, with where a client learns which issuers count, if that is settled (RFC 9728, section 5.1)."""
    told = {**headers}
    challenge, base = told.get("WWW-Authenticate"), current_services().config.public_url.rstrip("/")
    if challenge and base:
        metadata = f'resource_metadata="{base}/.well-known/oauth-protected-resource"'
        told["WWW-Authenticate"] = f"{challenge}, {metadata}"
    return told


def _is_about_credentials(error: GatewayError) -> bool:
    """How credentials came; a wrong method of `/oauth/*` too, since it may have brought them in the URL."""
    return error.is_about_credentials or (error.status == 405 and request.path.startswith("/oauth/"))


def _is_refused_write(error: GatewayError) -> bool:
    """What a proven client wished to change and could not: an unknown round, a missing checksum, a cut body."""
    return error.status < 500 and request.method not in ("GET", "HEAD", "OPTIONS") and bool(g.get("client"))


def _from_aggregation(error: AggregationError) -> GatewayError:
    if isinstance(error, BadFormat):
        return InvalidModelFormat(str(error), tensor=error.tensor, reason=error.reason)
    if isinstance(error, PolicyError):
        return ValidationFailed([{"pointer": f"/{error.field.replace('.', '/')}", "detail": str(error)}])
    log.error("aggregation failed: %s", error.code)
    return GatewayError()


def _from_compliance(error: ComplianceError) -> GatewayError:
    found = GatewayError(str(error))
    found.status = compliance_status(type(error))
    found.code, found.title = error.code, _TITLES[found.status]
    return found


def _from_http(error: HTTPException) -> GatewayError:
    if error.code == 404:
        return NotFound("There is no such route or object")
    if error.code == 413:
        return PayloadTooLarge()
    if error.code == 400:
        return BadRequest()
    if error.code == 416:
        return RangeNotSatisfiable()
    found = GatewayError(error.name)
    found.status = error.code or 500
    found.code, found.title = error.name.upper().replace(" ", "_"), error.name
    return found


def _database_failed(error: SQLAlchemyError) -> Response:
    if lacks_room(error):
        log.error("the database's disk is full")
        return _answer(StorageFull("There is no room in the gateway's stores: try again later"))
    if not is_outage(error):
        return _unforeseen(error)
    log.error("the database did not answer: %s", kind_of(error))
    return _answer(Busy("The database does not answer: try again later"))


def _system_failed(error: OSError) -> Response:
    if not is_full(error):
        return _unforeseen(error)
    log.error("a store's disk is full")
    return _answer(StorageFull("There is no room in the gateway's stores: try again later"))


def _unforeseen(error: Exception) -> Response:
    # The text of an unforeseen error may carry a value of somebody's: only its kind and place are logged.
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "unknown"
    log.error("unforeseen %s at %s, request %s", type(error).__name__, where, g.get("request_id", ""))
    return _answer(GatewayError())
