"""The clients of the federation, and what an operator does to one: halt it, let it go on, end it for good."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response, redirect, url_for

from gateway.auth.clients import Move, move_client
from gateway.auth.roster import ClientRecord, ClientStatus, client_record, is_client_id, list_clients
from gateway.console.blueprint import page_blueprint
from gateway.console.names import CLIENTS, ROLES, Named
from gateway.console.pages import render_page
from gateway.console.paging import PER_PAGE, Pages, page_number
from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.services import current_services

clients = page_blueprint("console_clients", "/clients")
_MOVES = {
    ClientStatus.ACTIVE: (Move.SUSPEND, Move.REVOKE),
    ClientStatus.SUSPENDED: (Move.RESUME, Move.REVOKE),
    ClientStatus.REVOKED: (),
}


@dataclass(frozen=True, slots=True)
class ClientShown:
    """A client with the words for its state and role, and what can be done to it."""

    record: ClientRecord
    state: Named
    role: str
    moves: tuple[Move, ...]


@clients.get("")
@operation("The clients, for people", answers={200: Media.HTML})
def show_clients() -> Response:
    """The clients, oldest first."""
    number = page_number()
    found, total = list_clients(current_services(), page=number, per_page=PER_PAGE)
    return render_page(
        "clients.html", clients=[_shown(one) for one in found], pages=Pages(number, total), total=total
    )


@clients.get("/<client_id>")
@operation("One client, for people", answers={200: Media.HTML, 404: Media.HTML})
def show_client(client_id: str) -> Response:
    """One client."""
    return render_page("client.html", client=_shown(client_record(current_services(), _checked(client_id))))


@clients.post("/<client_id>/<move>")
@operation(
    "Suspend, resume or revoke a client by a form", body=Media.FORM, answers={303: None, 409: Media.HTML}
)
def move(client_id: str, move: str) -> Response:
    """Suspend, resume or revoke a client; the entry names the person."""
    if move not in tuple(Move):
        raise NotFound("A client can be suspended, resumed and revoked")
    move_client(current_services(), _checked(client_id), Move(move))
    response: Response = redirect(url_for("console_clients.show_client", client_id=client_id), 303)  # type: ignore[assignment]
    return response


def _checked(client_id: str) -> str:
    if not is_client_id(client_id):
        raise NotFound("There is no such client")
    return client_id


def _shown(record: ClientRecord) -> ClientShown:
    return ClientShown(record, CLIENTS[record.status], ROLES[record.role], _MOVES[record.status])
