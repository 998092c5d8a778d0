"""How a client proves itself by a signed assertion: each is good but for one thing (RFC 7523; RFC 8725)."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from refused.case import Ask, Case
from refused.jwts import Jws, es256, hs256, jwk_of, nothing, written
from refused.scene import GRANT, ISSUER, TOKEN, Scene
from refused.secrets_shown import refused

from gateway.auth.clients import Move, move_client

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KEY, _STRANGER = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
Change = Callable[[Jws], object]


def assertion_of(scene: Scene, client_id: str) -> Jws:
    """A good assertion, never shown before."""
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": ISSUER,
        "jti": f"canary-{uuid4()}",
        "iat": scene.now_s,
        "exp": scene.now_s + 60,
    }
    return Jws({"alg": "ES256", "kid": "k1", "typ": "JWT"}, claims, es256(KEY))


def shown(scene: Scene, assertion: object, **form: str) -> Ask:
    """A token request with the assertion."""
    return scene.ask(
        TOKEN, GRANT | {"client_assertion_type": TYPE, "client_assertion": str(assertion)} | form
    )


def good(scene: Scene) -> Ask:
    """A request that is granted."""
    return shown(scene, assertion_of(scene, scene.signing_client(jwk_of(KEY, "k1")).client_id))


def bad(change: Change, section: str = "RFC 7523, 3", reason: str = "ASSERTION_CLAIM") -> Case:
    """A good assertion, changed and then signed."""

    def of(scene: Scene) -> Ask:
        new = scene.signing_client(jwk_of(KEY, "k1"))
        return shown(scene, change(assertion_of(scene, new.client_id)))

    return refused(of, section, reason=reason)


def _replayed(scene: Scene) -> Ask:
    ask = good(scene)
    assert scene.send(ask).status_code == 200
    return ask


def _replayed_elsewhere(scene: Scene) -> Ask:
    """The same assertion once at each of two endpoints."""
    ask = good(scene)
    token = scene.send(ask).get_json()["access_token"]
    proof = {name: ask.sent["data"][name] for name in ("client_assertion_type", "client_assertion")}
    return scene.ask("/oauth/introspect", {"token": scene.canary(token)} | proof)


def _jti_again(scene: Scene) -> Ask:
    """A second assertion under a jti that was used."""
    new = scene.signing_client(jwk_of(KEY, "k1"))
    first = assertion_of(scene, new.client_id)
    assert scene.send(shown(scene, first)).status_code == 200
    return shown(scene, first.but(exp=first.claims["exp"] + 7))


def _of_a_client_with_a_secret(scene: Scene) -> Ask:
    return shown(scene, assertion_of(scene, scene.client().client_id))


def _hs256_with_the_secret(scene: Scene) -> Ask:
    """client_secret_jwt, which is not offered."""
    new = scene.client()
    assertion = assertion_of(scene, new.client_id).headed(alg="HS256", kid=None)
    return shown(scene, assertion.signed_by(hs256(new.client_secret.encode())))


def _hs256_with_the_public_key(jwt: Jws) -> Jws:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return jwt.headed(alg="HS256").signed_by(hs256(pem))


def _a_secret_in_its_place(scene: Scene) -> Ask:
    new = scene.signing_client(jwk_of(KEY, "k1"))
    return scene.ask(TOKEN, GRANT, auth=(new.client_id, "flg_secret_canary-of-a-secret"))


def _a_client_id_alone(scene: Scene) -> Ask:
    return scene.ask(TOKEN, GRANT | {"client_id": scene.signing_client(jwk_of(KEY, "k1")).client_id})


def _of_another(scene: Scene) -> Ask:
    """Signed with the client's own key, for another client."""
    scene.signing_client(jwk_of(KEY, "k1"))
    other = scene.signing_client(jwk_of(_STRANGER, "k1"))
    return shown(scene, assertion_of(scene, other.client_id))


def _with(**form: str) -> Callable[[Scene], Ask]:
    """A good assertion, and these parameters beside it."""

    def of(scene: Scene) -> Ask:
        ask = good(scene)
        return Ask(ask.method, ask.path, {"data": ask.sent["data"] | form})

    return of


def _beside_a_header(scene: Scene) -> Ask:
    ask, other = good(scene), scene.client()
    return Ask(ask.method, ask.path, ask.sent | {"auth": (other.client_id, other.client_secret)})


def _in_the_url_too(scene: Scene) -> Ask:
    ask = good(scene)
    told = {"client_assertion": ask.sent["data"]["client_assertion"]}
    return Ask(ask.method, ask.path, ask.sent | {"query_string": told})


def _half(scene: Scene) -> Ask:
    ask = good(scene)
    return scene.ask(TOKEN, GRANT | {"client_assertion": ask.sent["data"]["client_assertion"]})


def _shut_out(move: Move) -> Callable[[Scene], Ask]:
    def of(scene: Scene) -> Ask:
        new = scene.signing_client(jwk_of(KEY, "k1"))
        move_client(scene.services, new.client_id, move)
        return shown(scene, assertion_of(scene, new.client_id))

    return of


def _jti_twice(jwt: Jws) -> str:
    claims = json.dumps(jwt.claims)[:-1] + ', "jti": "canary-of-a-second-jti"}'
    return written(json.dumps(jwt.header), claims, jwt.sign)


def malformed(of: Callable[[Scene], Ask], section: str = "RFC 6749, 2.3") -> Case:
    return Case(section, 400, "invalid_request", of)


CASES = {
    "an assertion shown again": refused(_replayed, "RFC 7523, 3", reason="ASSERTION_REPLAYED"),
    "an assertion shown at another endpoint": refused(
        _replayed_elsewhere, "RFC 7523, 3", reason="ASSERTION_REPLAYED", entry="access.refused"
    ),
    "another assertion under a used jti": refused(_jti_again, "RFC 7523, 3", reason="ASSERTION_REPLAYED"),
    "an assertion for two servers": bad(
        lambda jwt: jwt.but(aud=[ISSUER, "https://other.example"]), reason="ASSERTION_AUDIENCE"
    ),
    "an assertion for another server": bad(
        lambda jwt: jwt.but(aud="https://other.example/oauth/token"), reason="ASSERTION_AUDIENCE"
    ),
    "an audience with a slash more": bad(lambda jwt: jwt.but(aud=f"{ISSUER}/"), reason="ASSERTION_AUDIENCE"),
    "an assertion without aud": bad(lambda jwt: jwt.but(aud=None), reason="ASSERTION_AUDIENCE"),
    "an assertion without exp": bad(lambda jwt: jwt.but(exp=None)),
    "an assertion that is over": bad(
        lambda jwt: jwt.but(iat=jwt.claims["iat"] - 120, exp=jwt.claims["iat"] - 60),
        reason="ASSERTION_EXPIRED",
    ),
    "an assertion of an old iat": bad(
        lambda jwt: jwt.but(iat=jwt.claims["iat"] - 3600), reason="ASSERTION_EXPIRED"
    ),
    "an assertion of tomorrow": bad(
        lambda jwt: jwt.but(nbf=jwt.claims["iat"] + 86_400, exp=jwt.claims["iat"] + 86_500),
        reason="ASSERTION_EARLY",
    ),
    "an exp far ahead": bad(lambda jwt: jwt.but(exp=jwt.claims["iat"] + 10 * 86_400)),
    "an exp that is a text": bad(lambda jwt: jwt.but(exp=str(jwt.claims["exp"]))),
    "an assertion without jti": bad(lambda jwt: jwt.but(jti=None)),
    "a number for jti": bad(lambda jwt: jwt.but(jti=7)),
    "a jti without end": bad(lambda jwt: jwt.but(jti="canary" * 300)),
    "a jti twice": bad(_jti_twice, "RFC 7519, 4", "ASSERTION_MALFORMED"),
    "an iss that is not the sub": bad(lambda jwt: jwt.but(iss="https://idp.example")),
    "an assertion without sub": bad(lambda jwt: jwt.but(sub=None)),
    "an assertion without iss": bad(lambda jwt: jwt.but(iss=None)),
    "an assertion of an unknown client": bad(
        lambda jwt: jwt.but(iss=(unknown := str(uuid4())), sub=unknown), reason="ASSERTION_KEY"
    ),
    "an assertion signed by another client": refused(
        _of_another, "RFC 7523, 3", reason="ASSERTION_SIGNATURE"
    ),
    "an assertion with a foreign kid": bad(lambda jwt: jwt.headed(kid="k2"), reason="ASSERTION_KEY"),
    "an assertion with alg none": bad(
        lambda jwt: jwt.headed(alg="none").signed_by(nothing), "RFC 8725, 3.2", "ASSERTION_ALGORITHM"
    ),
    "an assertion with alg none and a signature": bad(
        lambda jwt: jwt.headed(alg="none"), "RFC 8725, 3.2", "ASSERTION_ALGORITHM"
    ),
    "HS256 with the client's public key": bad(
        _hs256_with_the_public_key, "RFC 8725, 2.1", "ASSERTION_ALGORITHM"
    ),
    "HS256 with the client's secret": refused(
        _hs256_with_the_secret, "RFC 9700, 2.5", reason="ASSERTION_ALGORITHM"
    ),
    "an assertion that brings its key": bad(
        lambda jwt: jwt.headed(jwk=jwk_of(_STRANGER, "k1")).signed_by(es256(_STRANGER)),
        "RFC 8725, 3.10",
        "ASSERTION_HEADER",
    ),
    "an assertion that says where its key is": bad(
        lambda jwt: jwt.headed(jku="https://evil.example/canary"), "RFC 8725, 3.10", "ASSERTION_HEADER"
    ),
    "an access token's typ on an assertion": bad(
        lambda jwt: jwt.headed(typ="at+jwt"), "RFC 8725, 3.11", "ASSERTION_TYPE"
    ),
    "an assertion that is no JWT": bad(lambda _: "canary-no-jwt-at-all", reason="ASSERTION_MALFORMED"),
    "an assertion of 15 kB": bad(lambda jwt: jwt.but(more="a" * 11_000), reason="ASSERTION_MALFORMED"),
    "an assertion of a client with a secret": refused(
        _of_a_client_with_a_secret, "RFC 6749, 2.3", reason="ASSERTION_KEY"
    ),
    "a secret of a client with a key": refused(_a_secret_in_its_place, "RFC 6749, 2.3"),
    "the id alone of a client with a key": refused(
        _a_client_id_alone, "RFC 6749, 2.3", reason="PROOF_MISSING"
    ),
    "an assertion of a suspended client": refused(_shut_out(Move.SUSPEND), reason="CLIENT_NOT_ACTIVE"),
    "an assertion of a revoked client": refused(_shut_out(Move.REVOKE), reason="CLIENT_NOT_ACTIVE"),
    "another client_assertion_type": refused(
        _with(client_assertion_type="urn:ietf:params:oauth:client-assertion-type:saml2-bearer"),
        "RFC 7521, 4.2.1",
        reason="ASSERTION_TYPE_UNKNOWN",
    ),
    "another client_id beside the assertion": refused(
        _with(client_id=str(uuid4())), "RFC 7521, 4.2", reason="ASSERTION_CLAIM"
    ),
    "an assertion without client_assertion_type": malformed(_half, "RFC 7521, 4.2"),
    "an assertion in the URL, beside the form": malformed(_in_the_url_too, "RFC 6749, 2.3.1"),
    "an assertion and a secret": malformed(_with(client_secret="flg_secret_canary-beside-it")),
    "an assertion and a Basic header": malformed(_beside_a_header),
}
