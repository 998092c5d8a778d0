"""What a client asks about a token: to end it (RFC 7009), and what it is (RFC 7662)."""

from __future__ import annotations

from collections.abc import Callable

from refused.case import ACCESS_REFUSED, BASIC, Ask, Case
from refused.scene import Scene, later

from gateway.auth.clients import NewClient

REVOKE, INTROSPECT = "/oauth/revoke", "/oauth/introspect"


def asked(path: str, new: NewClient, scene: Scene, **form: str) -> Ask:
    """A request of a client about a token."""
    return scene.ask(path, form, auth=(new.client_id, new.client_secret))


def about(path: str, make: Callable[[Scene, NewClient], str], **more: str) -> Callable[[Scene], Ask]:
    """A good client asks about this token."""

    def of(scene: Scene) -> Ask:
        new = scene.client()
        return asked(path, new, scene, token=make(scene, new), **more)

    return of


def inactive(make: Callable[[Scene, NewClient], str], section: str = "RFC 7662, 2.2") -> Case:
    """An answer, and no refusal: `active: false` and not a word more."""
    return Case(section, 200, None, about(INTROSPECT, make), entry=None, body={"active": False})


def ignored(make: Callable[[Scene, NewClient], str], **more: str) -> Case:
    """There is nothing to end: an answer, and no refusal."""
    return Case("RFC 7009, 2.2", 200, None, about(REVOKE, make, **more), entry=None)


def refused(of: Callable[[Scene], Ask], section: str, error: str) -> Case:
    return Case(section, 400, error, of, entry=ACCESS_REFUSED)


def unproven(path: str, section: str) -> Case:
    """Nobody may ask without a proof."""
    return Case(
        section,
        401,
        "invalid_client",
        lambda scene: scene.ask(path, {"token": scene.token()}),
        BASIC,
        ACCESS_REFUSED,
    )


def _others(scene: Scene, _new: NewClient) -> str:
    return scene.token(scene.client("auditor"))


def _others_jwt(scene: Scene, _new: NewClient) -> str:
    return scene.token(scene.client("auditor", token_format="jwt"))


def _unknown(_scene: Scene, _new: NewClient) -> str:
    return "flg_token_canary-of-nobody-at-all"


def _over(scene: Scene, new: NewClient) -> str:
    token = scene.token(new)
    scene.clock.advance(later(seconds=scene.services.config.token_ttl_s))
    return token


def _api_key(_scene: Scene, new: NewClient) -> str:
    return str(new.api_key)


def _forged(scene: Scene, _new: NewClient) -> str:
    return str(scene.jwt().but(iss="https://evil.example"))


def _with_a_bearer_token(scene: Scene) -> Ask:
    token = scene.token()
    return scene.ask(INTROSPECT, {"token": token}, environ_base={"HTTP_AUTHORIZATION": f"Bearer {token}"})


CASES = {
    "revocation without a token": refused(
        lambda scene: asked(REVOKE, scene.client(), scene), "RFC 7009, 2.1", "invalid_request"
    ),
    "revocation without a proof of the client": unproven(REVOKE, "RFC 7009, 2.1"),
    "revocation of another client's token": refused(about(REVOKE, _others), "RFC 7009, 2.1", "invalid_grant"),
    "revocation of another client's JWT": refused(
        about(REVOKE, _others_jwt), "RFC 7009, 2.1", "invalid_grant"
    ),
    "revocation of an API key": refused(about(REVOKE, _api_key), "RFC 7009, 2.2.1", "unsupported_token_type"),
    "revocation of an unknown token": ignored(_unknown),
    "revocation with an unknown token_type_hint": Case(
        "RFC 7009, 2.1",
        200,
        None,
        about(REVOKE, lambda scene, new: scene.token(new), token_type_hint="canary_hint"),
        entry="token.revoked",
        changes=frozenset({"tokens"}),
    ),
    "revocation of a token of 10 kB": ignored(lambda _scene, _new: "flg_token_" + "a" * 10_000),
    "introspection without a token": refused(
        lambda scene: asked(INTROSPECT, scene.client(), scene), "RFC 7662, 2.1", "invalid_request"
    ),
    "introspection without a proof of the client": unproven(INTROSPECT, "RFC 7662, 2.1"),
    "introspection with a bearer token": Case(
        "RFC 7662, 2.1", 401, "invalid_client", _with_a_bearer_token, BASIC, ACCESS_REFUSED
    ),
    "introspection of another client's token": inactive(_others, "RFC 7662, 4"),
    "introspection of another client's JWT": inactive(_others_jwt, "RFC 7662, 4"),
    "introspection of an unknown token": inactive(_unknown),
    "introspection of a token whose time is over": inactive(_over),
    "introspection of a JWT of a wrong issuer": inactive(_forged),
    "introspection of a token of 10 kB": inactive(lambda _scene, _new: "flg_token_" + "a" * 10_000),
}
