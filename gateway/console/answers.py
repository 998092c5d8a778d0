"""What a request's page hands out: the package or a link to it, the erasure's receipt and its key, the statement."""

from __future__ import annotations

from uuid import UUID

from flask import Response

from compliance.erasures.commitment import hand_over
from compliance.errors import CaseChanged, NoCommitmentKey, NoPackage
from compliance.packages.handing_out import Way
from gateway.auth.discovery import base_url
from gateway.console.desk_forms import told
from gateway.console.door import page_person
from gateway.console.requests import case_page, requests
from gateway.errors import NotFound
from gateway.handing_out import receipt_proof, streamed
from gateway.openapi import Media, operation
from gateway.privacy import desk_parts, privacy_desk
from gateway.services import current_services


@requests.get("/<uuid:case_id>/package")
@operation("Download the package of a request", answers={200: Media.ZIP, 404: Media.HTML})
def download_package(case_id: UUID) -> Response:
    """Each time is an entry that names the person."""
    services = current_services()
    package = privacy_desk(services).packages.fetch(str(case_id), Way.CONSOLE)
    return streamed(services, package, f"{case_id}.zip")


@requests.post("/<uuid:case_id>/link")
@operation(
    "Make a link that opens the package once, by a form",
    body=Media.FORM,
    answers={200: Media.HTML, 404: Media.HTML},
)
def make_link(case_id: UUID) -> Response:
    """The page with the link, which is shown this once and kept nowhere."""
    services = current_services()
    try:
        link = privacy_desk(services).packages.link(str(case_id), by=page_person().acting())
    except NoPackage as error:
        return case_page(str(case_id), told(error))
    url = f"{base_url(services.config)}/packages/{link.secret}"
    return case_page(str(case_id), link=url, link_ends=link.expires_at)


@requests.get("/<uuid:case_id>/statement")
@operation(
    "Download the signed statement of a request by reference", answers={200: Media.TEXT, 404: Media.HTML}
)
def download_statement(case_id: UUID) -> Response:
    """A compact JWS of type `fl-statement+jwt`."""
    signed = privacy_desk(current_services()).statement(str(case_id))
    return _file(signed, f"statement-{case_id}.jwt")


@requests.get("/<uuid:case_id>/receipt")
@operation("Download the signed receipt of an erasure", answers={200: Media.TEXT, 404: Media.HTML})
def download_receipt(case_id: UUID) -> Response:
    """A compact JWS of type `fl-erasure+jwt`."""
    return _file(_receipt(case_id), f"receipt-{case_id}.jwt")


@requests.get("/<uuid:case_id>/receipt/proof")
@operation(
    "Download the proof that an erasure's entry is in the log", answers={200: Media.TEXT, 404: Media.HTML}
)
def download_proof(case_id: UUID) -> Response:
    """A C2SP tlog-proof, which `fl-gateway audit verify` takes."""
    proof = receipt_proof(current_services(), _receipt(case_id))
    if proof is None:
        raise NotFound("No checkpoint covers the erasure's entry yet: try again in a moment")
    return _file(proof.text(), f"receipt-{case_id}.tlog-proof")


@requests.post("/<uuid:case_id>/key")
@operation(
    "Hand over the key that opens a receipt's commitment, once, by a form",
    body=Media.FORM,
    answers={200: Media.HTML, 404: Media.HTML},
)
def hand_over_key(case_id: UUID) -> Response:
    """The page with the key, for the person: the gateway keeps none of it."""
    services = current_services()
    try:
        given = hand_over(desk_parts(services), str(case_id), by=page_person().acting())
    except (NoCommitmentKey, CaseChanged) as error:
        return case_page(str(case_id), told(error))
    return case_page(str(case_id), key=given.key)


def _receipt(case_id: UUID) -> str:
    case = privacy_desk(current_services()).show(str(case_id))
    if case.receipt is None:
        raise NotFound("The request has no receipt: it is not a completed erasure")
    return case.receipt


def _file(text: str, name: str) -> Response:
    response = Response(text, mimetype=Media.TEXT.value)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response
