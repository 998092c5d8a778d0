"""At the API, whatever kind of token it is: none, two, in the wrong place, over, ended, or of somebody shut out."""

from __future__ import annotations

from collections.abc import Callable

from refused.case import ACCESS_REFUSED, Ask, Case, bearer_challenge
from refused.scene import CLIENTS, Scene, later

from gateway.auth.clients import Move, NewClient, move_client

BARE = bearer_challenge(None)
_ENDED = "RFC 6750, 3.1"


def no_token(of: Callable[[Scene], Ask], section: str = "RFC 6750, 3.1") -> Case:
    """What is no bearer credential: a challenge without an error code."""
    return Case(section, 401, None, of, BARE, ACCESS_REFUSED, "UNAUTHORIZED")


def invalid_token(of: Callable[[Scene], Ask], section: str = _ENDED, **more: frozenset[str]) -> Case:
    """A credential that is not good."""
    challenge = bearer_challenge("invalid_token")
    return Case(section, 401, "invalid_token", of, challenge, ACCESS_REFUSED, "UNAUTHORIZED", **more)


def invalid_request(of: Callable[[Scene], Ask], section: str) -> Case:
    """Credentials that cannot be read."""
    return Case(section, 400, "invalid_request", of, bearer_challenge("invalid_request"), ACCESS_REFUSED)


def insufficient(of: Callable[[Scene], Ask], scope: str = "client:manage") -> Case:
    """A good token for something else."""
    challenge = bearer_challenge("insufficient_scope", scope=scope)
    return Case("RFC 6750, 3.1", 403, "insufficient_scope", of, challenge, ACCESS_REFUSED)


def _in_the_url(scene: Scene, *, beside_another: bool) -> Ask:
    token = scene.token()
    asked = scene.ask_api(token) if beside_another else scene.ask_api_with(None)
    return Ask(asked.method, asked.path, asked.sent | {"query_string": {"access_token": token}})


def _in_the_form(scene: Scene) -> Ask:
    return scene.ask(f"{CLIENTS}/register", {"access_token": scene.token()})


def _twice(scene: Scene) -> Ask:
    token = scene.token()
    return scene.ask_api_with(f"Bearer {token},Bearer {token}")


def _over(scene: Scene) -> Ask:
    token = scene.token()
    scene.clock.advance(later(seconds=scene.services.config.token_ttl_s))
    return scene.ask_api(token)


def _revoked(scene: Scene, **about: str) -> Ask:
    new = scene.client("operator", **about)
    token = scene.token(new)
    assert scene.send(scene.ask_api(token)).status_code == 200
    ended = scene.send(scene.ask("/oauth/revoke", {"token": token}, auth=(new.client_id, new.client_secret)))
    assert ended.status_code == 200
    return scene.ask_api(token)


def _after(move: Move, what: Callable[[Scene, NewClient], str], **about: str) -> Callable[[Scene], Ask]:
    """With a credential of a client that was then suspended or revoked."""

    def of(scene: Scene) -> Ask:
        new = scene.client("operator", **about)
        token = what(scene, new)
        scene.send(scene.ask_api(token))
        move_client(scene.services, new.client_id, move)
        return scene.ask_api(token)

    return of


def _token(scene: Scene, new: NewClient) -> str:
    return scene.token(new)


def _api_key(_scene: Scene, new: NewClient) -> str:
    return str(new.api_key)


def _from_a_network(scene: Scene) -> Ask:
    asked = scene.ask_api(scene.token())
    environ = asked.sent["environ_base"] | {"REMOTE_ADDR": f"192.0.2.{scene.number}"}
    return Ask(asked.method, asked.path, asked.sent | {"environ_base": environ})


def _said_to_be_forwarded(scene: Scene) -> Ask:
    asked = _from_a_network(scene)
    said = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "127.0.0.1",
        "Forwarded": "for=127.0.0.1;proto=https",
    }
    return Ask(asked.method, asked.path, asked.sent | {"headers": said})


_CLEAR = Case("RFC 6750, 5.3", 400, None, _from_a_network, None, ACCESS_REFUSED, "INSECURE_TRANSPORT")

CASES = {
    "no Authorization header": no_token(lambda scene: scene.ask_api_with(None)),
    "an empty Authorization header": no_token(lambda scene: scene.ask_api_with("")),
    "a scheme without a credential": invalid_token(lambda scene: scene.ask_api_with("Bearer ")),
    "another scheme: Basic": no_token(
        lambda scene: scene.ask_api_with("Basic Y2FuYXJ5OmNhbmFyeS1wYXNzd29yZA==")
    ),
    "a good token with the DPoP scheme": no_token(
        lambda scene: scene.ask_api_with(f"DPoP {scene.token()}"), "RFC 9449, 7.1"
    ),
    "a token in the query string": no_token(
        lambda scene: _in_the_url(scene, beside_another=False), "RFC 9700, 4.3.2"
    ),
    "a token in the form": no_token(_in_the_form, "RFC 6750, 2.2"),
    "one token in the header, one in the query string": invalid_request(
        lambda scene: _in_the_url(scene, beside_another=True), "RFC 6750, 2"
    ),
    "two Authorization headers": invalid_request(_twice, "RFC 6750, 3.1"),
    "two Authorization headers, Basic before Bearer": invalid_request(
        lambda scene: scene.ask_api_with(f"Basic Y2FuYXJ5OmNhbmFyeS1wYXNzd29yZA==, bearer {scene.token()}"),
        "RFC 6750, 3.1",
    ),
    "another scheme: Digest, with its commas": no_token(
        lambda scene: scene.ask_api_with('Digest username="canary-of-digest", realm="bearer"')
    ),
    "a token over plain http from a network": _CLEAR,
    "the same, with X-Forwarded-Proto and -For of its own": Case(
        "RFC 9700, 4.13", 400, None, _said_to_be_forwarded, None, ACCESS_REFUSED, "INSECURE_TRANSPORT"
    ),
    "an unknown token": invalid_token(
        lambda scene: scene.ask_api(scene.canary("flg_token_canary-of-somebody-unknown"))
    ),
    "a token of 100 kB": invalid_token(lambda scene: scene.ask_api("flg_token_" + "a" * 100_000)),
    "a token with a NUL": invalid_token(lambda scene: scene.ask_api("flg_token_canary\x00canary")),
    "a token that is not UTF-8": invalid_token(lambda scene: scene.ask_api("flg_token_canary\xff\xfecanary")),
    "a token with spaces": invalid_token(lambda scene: scene.ask_api("flg_token_canary canary-canary")),
    "a token whose time is over": invalid_token(_over),
    "a revoked token": invalid_token(_revoked, "RFC 7009, 2"),
    "a revoked JWT": invalid_token(lambda scene: _revoked(scene, token_format="jwt"), "RFC 7009, 3"),
    "a token of a suspended client": invalid_token(_after(Move.SUSPEND, _token)),
    "a token of a revoked client": invalid_token(_after(Move.REVOKE, _token)),
    "a JWT of a suspended client": invalid_token(_after(Move.SUSPEND, _token, token_format="jwt")),
    "a JWT of a revoked client": invalid_token(_after(Move.REVOKE, _token, token_format="jwt")),
    "an API key of a revoked client": invalid_token(_after(Move.REVOKE, _api_key)),
    "a client secret as a token": invalid_token(lambda scene: scene.ask_api(scene.client().client_secret)),
    "a token without the scope": insufficient(lambda scene: scene.ask_api(scene.token(scene.client()))),
    "an API key beyond client:register": insufficient(
        lambda scene: scene.ask_api(scene.client("operator").api_key)
    ),
}
