"""How a client proves itself by a secret: every wrong one gets one and the same answer (RFC 6749, section 2.3)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from refused.case import BASIC, Ask, Case
from refused.scene import GRANT, TOKEN, Scene

from gateway.auth.clients import Move, NewClient, move_client

WRONG = "flg_secret_canary-of-a-wrong-one"


def refused(of: Callable[[Scene], Ask], section: str = "RFC 6749, 5.2", **more: Any) -> Case:
    """The one answer to whoever proved nothing."""
    return Case(section, 401, "invalid_client", of, BASIC, **more)


def basic(
    client_id: Callable[[NewClient], str], secret: Callable[[NewClient], str]
) -> Callable[[Scene], Ask]:
    """Made of what a client has."""

    def of(scene: Scene) -> Ask:
        new = scene.client()
        return scene.ask(TOKEN, GRANT, auth=(client_id(new), secret(new)))

    return of


def header(text: bytes | str) -> Callable[[Scene], Ask]:
    """This very Authorization header."""
    said = text if isinstance(text, str) else "Basic " + b64encode(text).decode()
    return lambda scene: scene.ask(TOKEN, GRANT, environ_base={"HTTP_AUTHORIZATION": said})


def post(**form: Any) -> Callable[[Scene], Ask]:
    """Credentials in the form, of a good client but for what is given."""

    def of(scene: Scene) -> Ask:
        new = scene.client()
        shown = {"client_id": new.client_id, "client_secret": new.client_secret} | form
        return scene.ask(TOKEN, GRANT | {name: value for name, value in shown.items() if value is not None})

    return of


def shut_out(move: Move) -> Callable[[Scene], Ask]:
    def of(scene: Scene) -> Ask:
        new = scene.client()
        move_client(scene.services, new.client_id, move)
        return scene.ask_token(new)

    return of


def _both(scene: Scene) -> Ask:
    new = scene.client()
    return scene.ask_token(new, client_id=new.client_id, client_secret=new.client_secret)


def _of_another(scene: Scene) -> Ask:
    return scene.ask(TOKEN, GRANT, auth=(scene.client().client_id, scene.client().client_secret))


def _registered(scene: Scene) -> Ask:
    key = scene.ask_api(scene.client("operator").api_key)
    registered = scene.http.post("/api/v1/clients/register", json={}, **key.sent).get_json()
    token = scene.canary(registered["registration_token"])
    return scene.ask(TOKEN, GRANT, auth=(registered["client_id"], token))


def _id(new: NewClient) -> str:
    return new.client_id


def _two_headers(scene: Scene) -> Ask:
    """A good one twice, as servers join two headers of one name."""
    new = scene.client()
    good = "Basic " + b64encode(f"{new.client_id}:{new.client_secret}".encode()).decode()
    return header(f"{good},{good}")(scene)


def _mixed(scene: Scene) -> Ask:
    new = scene.client()
    good = "Basic " + b64encode(f"{new.client_id}:{new.client_secret}".encode()).decode()
    return header(f"Bearer flg_token_canary-before, {good}")(scene)


CASES = {
    "no client at all": refused(lambda scene: scene.ask(TOKEN, GRANT)),
    "an unknown client": refused(basic(lambda _: str(uuid4()), lambda new: new.client_secret)),
    "a client id that is none": refused(basic(lambda _: "hospital-a", lambda new: new.client_secret)),
    "a wrong secret": refused(basic(_id, lambda _: WRONG)),
    "a secret that is cut short": refused(basic(_id, lambda new: new.client_secret[:-1])),
    "an empty secret": refused(basic(_id, lambda _: "")),
    "the secret of another client": refused(_of_another),
    "an API key as a secret": refused(basic(_id, lambda new: str(new.api_key))),
    "a secret with a NUL": refused(basic(_id, lambda new: new.client_secret + "\x00")),
    "a client id with a NUL": refused(
        basic(lambda new: new.client_id + "\x00", lambda new: new.client_secret)
    ),
    "Basic that is not base64": refused(header("Basic !!canary!!canary!!")),
    "Basic without a colon": refused(header(b"canary-without-a-colon")),
    "Basic that is not UTF-8": refused(header(b"canary-\xff\xfe:canary-\xff\xfe")),
    "Basic with nothing": refused(header("Basic ")),
    "another scheme: Bearer": refused(header("Bearer flg_token_canary-for-an-id")),
    "another scheme: Digest": refused(header('Digest username="canary-of-digest"')),
    "a wrong secret in the form": refused(post(client_secret=WRONG)),
    "an empty secret in the form": refused(post(client_secret="")),
    "a client id alone": refused(post(client_secret=None), reason="PROOF_MISSING"),
    "a secret without a client id": refused(post(client_id=None)),
    "a suspended client": refused(shut_out(Move.SUSPEND), reason="CLIENT_NOT_ACTIVE"),
    "a revoked client": refused(shut_out(Move.REVOKE), reason="CLIENT_NOT_ACTIVE"),
    "a registration token as a secret": refused(_registered),
    "two Authorization headers at the token endpoint": Case(
        "RFC 6749, 5.2", 400, "invalid_request", _two_headers
    ),
    "two Authorization headers, Bearer before Basic": Case("RFC 6749, 5.2", 400, "invalid_request", _mixed),
    "a secret in the header and in the form": Case("RFC 6749, 2.3", 400, "invalid_request", _both),
    "one client in the header, another in the form": Case(
        "RFC 6749, 2.3",
        400,
        "invalid_request",
        lambda scene: scene.ask_token(scene.client(), client_id=str(uuid4())),
    ),
}
