"""Export packages over HTTP: by token for the staff, and by a link that opens once for the person.

Looking at a link's page uses nothing up, since mail programs and messengers look at every link; its button does.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from flask import Blueprint, Response, g
from pydantic.dataclasses import dataclass

from compliance.errors import NoPackage
from compliance.packages.handing_out import Way
from gateway.auth.discovery import base_url
from gateway.auth.forms import check_form
from gateway.auth.origin import address_of
from gateway.auth.rate_limits import count_address_failure
from gateway.auth.transport import check_transport
from gateway.console.pages import render_page
from gateway.errors import NotFound
from gateway.handing_out import streamed
from gateway.openapi import Media, operation
from gateway.privacy import privacy_desk
from gateway.services import current_services
from gateway.wire import WIRE, answer, refuse_long_body

packages = Blueprint("packages", __name__, url_prefix="/api/v1/privacy")
links = Blueprint("links", __name__, url_prefix="/packages")
packages.before_request(refuse_long_body)
links.before_request(check_form)


@dataclass(frozen=True, slots=True, config=WIRE)
class LinkView:
    """A new link to a package; it is shown once."""

    url: str
    expires_at: datetime


@packages.get("/requests/<uuid:case_id>/package")
@operation(
    "The export package of a completed access or portability request",
    answers={200: Media.ZIP},
    errors=(NotFound,),
)
def download_package(case_id: UUID) -> Response:
    """May be fetched for seven days; each time is an entry, and an erasure removes it."""
    services = current_services()
    packages_ = privacy_desk(services).packages
    download = streamed(services, packages_.open(str(case_id)), f"{case_id}.zip")
    packages_.fetch(str(case_id), Way.TOKEN)
    return download


@packages.post("/requests/<uuid:case_id>/link")
@operation(
    "Make a link that opens the package once, without a token", answers={201: LinkView}, errors=(NotFound,)
)
def make_link(case_id: UUID) -> Response:
    """For the person: it ends with its first use, with the package, or with an erasure."""
    services = current_services()
    link = privacy_desk(services).packages.link(str(case_id), by=g.origin.actor)
    url = f"{base_url(services.config)}/packages/{link.secret}"
    return answer(LinkView(url, link.expires_at), 201, {"Cache-Control": "no-store"})


@links.get("/<secret>")
@operation("The page behind a link to a package, with its button", answers={200: Media.HTML, 404: Media.HTML})
def show_link(secret: str) -> Response:
    """Says what the button does; the link stays good."""
    check_transport()
    try:
        case = privacy_desk(current_services()).packages.linked(secret)
    except NoPackage:
        return _dead_link()
    return render_page("package.html", expires_at=case.package_expires_at)


@links.post("/<secret>")
@operation("Download the package behind a link, once", answers={200: Media.ZIP, 404: Media.HTML})
def fetch_by_link(secret: str) -> Response:
    """The link is used up when the download begins."""
    check_transport()
    services = current_services()
    desk = privacy_desk(services)
    try:
        package = desk.packages.open(desk.packages.linked(secret).id)
        download = streamed(services, package, "your-data.zip")  # a store that fails uses no link up
        desk.packages.fetch_by_link(secret)
    except NoPackage:
        return _dead_link()
    return download


def _dead_link() -> Response:
    """One page for every link that opens nothing; who tries many is slowed down."""
    count_address_failure(address_of(g.origin))
    return render_page("package_gone.html", 404)
