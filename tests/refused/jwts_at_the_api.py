"""JWTs at the API: each is one that the gateway would take, but for one thing (RFC 9068; RFC 8725)."""

from __future__ import annotations

import json
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from refused.at_the_api import insufficient, invalid_token, no_token
from refused.case import Ask, Case
from refused.jwts import Jws, b64, eddsa, es256, hs256, jwk_of, nothing, written
from refused.scene import Scene

from compliance.keyring.keys import SigningUse

EVIL = "https://evil.example/canary-keys.json"
_STRANGER, _STRANGER_EC = Ed25519PrivateKey.generate(), generate_private_key(SECP256R1())


def bad(change: Callable[[Jws], object], section: str = "RFC 9068, 4") -> Case:
    """The gateway's own JWT, signed with its key after the change."""
    return invalid_token(lambda scene: scene.ask_api(change(scene.jwt())), section)


def bad_of(make: Callable[[Scene, Jws], object], section: str = "RFC 9068, 4") -> Case:
    return invalid_token(lambda scene: scene.ask_api(make(scene, scene.jwt())), section)


def _signed_with_the_public_key(scene: Scene, jwt: Jws, *, as_pem: bool) -> Jws:
    public = scene.services.keystore.signing_key(SigningUse.TOKEN).private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = pem if as_pem else public.public_bytes_raw()
    return jwt.headed(alg="HS256").signed_by(hs256(key))


def _signed_with_another_use(scene: Scene, jwt: Jws, *, kid: str | None = None) -> Jws:
    receipt = scene.services.keystore.signing_key(SigningUse.RECEIPT)
    return jwt.headed(kid=kid or receipt.kid).signed_by(eddsa(receipt.private))


def _member_twice(jwt: Jws) -> str:
    claims = json.dumps(jwt.claims)
    return written(json.dumps(jwt.header), claims[:-1] + ', "scope": "audit:read"}', jwt.sign)


def _with_claims_text(text: str) -> Callable[[Jws], str]:
    return lambda jwt: written(json.dumps(jwt.header), text, jwt.sign)


def _with_more_scope_unsigned(jwt: Jws) -> str:
    """Somebody widened a signed token."""
    header, _, signature = str(jwt).split(".")
    return f"{header}.{b64(json.dumps(jwt.but(scope='audit:read').claims).encode())}.{signature}"


def _of_a_receipt(_scene: Scene, jwt: Jws) -> Jws:
    return jwt.headed(typ="fl-receipt+jwt")


def _dpop(jwt: Jws) -> Jws:
    return jwt.but(cnf={"jkt": "canary-thumbprint-0123456789-0123456789abcd"})


def _too_wide(scene: Scene) -> Ask:
    """Signed by us, and yet beyond the role: as if a role had become smaller since."""
    return scene.ask_api(scene.jwt().but(scope="audit:read client:manage"))


CASES = {
    "alg none": bad(lambda jwt: jwt.headed(alg="none").signed_by(nothing), "RFC 8725, 3.2"),
    "alg None, in another case": bad(lambda jwt: jwt.headed(alg="nOnE").signed_by(nothing), "RFC 8725, 3.2"),
    "no alg": bad(lambda jwt: jwt.headed(alg=None), "RFC 7515, 4.1.1"),
    "HS256 with the public key, in PEM": bad_of(
        lambda scene, jwt: _signed_with_the_public_key(scene, jwt, as_pem=True), "RFC 8725, 2.1"
    ),
    "HS256 with the public key, raw": bad_of(
        lambda scene, jwt: _signed_with_the_public_key(scene, jwt, as_pem=False), "RFC 8725, 2.1"
    ),
    "an algorithm that is not the key's": bad(
        lambda jwt: jwt.headed(alg="ES256").signed_by(es256(_STRANGER_EC)), "RFC 8725, 3.1"
    ),
    "RS256": bad(lambda jwt: jwt.headed(alg="RS256"), "RFC 8725, 3.2"),
    "a list for alg": bad(lambda jwt: jwt.headed(alg=["EdDSA"]), "RFC 7515, 4.1.1"),
    "signed by a stranger": bad(lambda jwt: jwt.signed_by(eddsa(_STRANGER))),
    "a foreign kid": bad(lambda jwt: jwt.headed(kid="canary-kid-of-a-stranger")),
    "a number for kid": bad(lambda jwt: jwt.headed(kid=7), "RFC 7515, 4.1.4"),
    "a path for kid": bad(lambda jwt: jwt.headed(kid="../../../../dev/null"), "RFC 8725, 3.10"),
    "signed with the key of receipts": bad_of(_signed_with_another_use, "RFC 8725, 3.12"),
    "signed with the receipts' key under the tokens' kid": bad_of(
        lambda scene, jwt: _signed_with_another_use(scene, jwt, kid=jwt.header["kid"]), "RFC 8725, 3.12"
    ),
    "jku": bad(lambda jwt: jwt.headed(jku=EVIL), "RFC 8725, 3.10"),
    "x5u": bad(lambda jwt: jwt.headed(x5u=EVIL), "RFC 8725, 3.10"),
    "jku, signed by a stranger": bad(
        lambda jwt: jwt.headed(jku=EVIL, kid="k").signed_by(eddsa(_STRANGER)), "RFC 8725, 3.10"
    ),
    "an embedded jwk, signed with it": bad(
        lambda jwt: jwt.headed(jwk=jwk_of(_STRANGER, "k"), kid="k").signed_by(eddsa(_STRANGER)),
        "RFC 8725, 3.10",
    ),
    "x5c": bad(lambda jwt: jwt.headed(x5c=["bm8="]), "RFC 8725, 3.10"),
    "crit": bad(lambda jwt: jwt.headed(crit=["exp"]), "RFC 7515, 4.1.11"),
    "b64 false": bad(lambda jwt: jwt.headed(b64=False, crit=["b64"]), "RFC 7797, 6"),
    "no typ": bad(lambda jwt: jwt.headed(typ=None)),
    "typ JWT": bad(lambda jwt: jwt.headed(typ="JWT")),
    "typ of a receipt": bad_of(_of_a_receipt, "RFC 8725, 3.11"),
    "an id_token as an access token": bad(
        lambda jwt: jwt.headed(typ="JWT").but(scope=None, nonce="canary-nonce-0123456789"), "RFC 9068, 5"
    ),
    "expired": bad(lambda jwt: jwt.but(exp=jwt.claims["iat"] - 1), "RFC 7519, 4.1.4"),
    "no exp": bad(lambda jwt: jwt.but(exp=None), "RFC 9068, 2.2"),
    "a text for exp": bad(lambda jwt: jwt.but(exp=str(jwt.claims["exp"])), "RFC 7519, 2"),
    "true for exp": bad(lambda jwt: jwt.but(exp=True), "RFC 7519, 2"),
    "an exp beyond every calendar": bad(lambda jwt: jwt.but(exp=10**30), "RFC 7519, 2"),
    "an infinite exp": bad(
        lambda jwt: _with_claims_text(json.dumps(jwt.but(exp=7).claims).replace(": 7", ": 1e999"))(jwt),
        "RFC 7519, 2",
    ),
    "not yet valid": bad(lambda jwt: jwt.but(nbf=jwt.claims["exp"] - 1), "RFC 7519, 4.1.5"),
    "issued in the future": bad(lambda jwt: jwt.but(iat=jwt.claims["exp"] - 1), "RFC 7519, 4.1.6"),
    "a wrong issuer": bad(lambda jwt: jwt.but(iss="https://evil.example")),
    "the issuer with a slash more": bad(lambda jwt: jwt.but(iss=jwt.claims["iss"] + "/"), "RFC 8725, 3.8"),
    "no issuer": bad(lambda jwt: jwt.but(iss=None)),
    "a list for the issuer": bad(lambda jwt: jwt.but(iss=[jwt.claims["iss"]]), "RFC 7519, 4.1.1"),
    "a wrong audience": bad(lambda jwt: jwt.but(aud="https://other.example")),
    "an audience that begins with ours": bad(lambda jwt: jwt.but(aud=f"{jwt.claims['aud']}.evil.example")),
    "no audience": bad(lambda jwt: jwt.but(aud=None)),
    "a number for the audience": bad(lambda jwt: jwt.but(aud=7), "RFC 7519, 4.1.3"),
    "a number for scope": bad(lambda jwt: jwt.but(scope=7), "RFC 9068, 2.2.3"),
    "a list for scope": bad(lambda jwt: jwt.but(scope=["client:manage"]), "RFC 9068, 2.2.3"),
    "an object for scope": bad(lambda jwt: jwt.but(scope={"client:manage": True}), "RFC 9068, 2.2.3"),
    "no scope": bad(lambda jwt: jwt.but(scope=None), "RFC 9068, 2.2.3"),
    "no client_id": bad(lambda jwt: jwt.but(client_id=None), "RFC 9068, 2.2"),
    "a client_id of nobody": bad(lambda jwt: jwt.but(client_id="00000000-0000-4000-8000-000000000000")),
    "a number for client_id": bad(lambda jwt: jwt.but(client_id=7), "RFC 9068, 2.2"),
    "no sub": bad(lambda jwt: jwt.but(sub=None), "RFC 9068, 2.2"),
    "no jti": bad(lambda jwt: jwt.but(jti=None), "RFC 9068, 2.2"),
    "no iat": bad(lambda jwt: jwt.but(iat=None), "RFC 9068, 2.2"),
    "bound to a DPoP key (cnf.jkt)": bad(_dpop, "RFC 9449, 6"),
    "a cnf of an unknown kind": bad(
        lambda jwt: jwt.but(cnf={"canary": "of-another-method"}), "RFC 7800, 3.1"
    ),
    "a cnf that is no object": bad(lambda jwt: jwt.but(cnf="canary-of-a-thumbprint"), "RFC 7800, 3.1"),
    "an empty cnf": bad(lambda jwt: jwt.but(cnf={}), "RFC 7800, 3.1"),
    "bound to a certificate, shown without": bad(
        lambda jwt: jwt.but(cnf={"x5t#S256": "canary-thumbprint-0123456789-0123456789abc"}), "RFC 8705, 3"
    ),
    "a scope widened after the signature": bad(_with_more_scope_unsigned, "RFC 7515, 5.2"),
    "a member twice": bad(_member_twice, "RFC 7519, 4"),
    "claims that are a list": bad(_with_claims_text("[1]"), "RFC 7519, 7.2"),
    "claims that are no JSON": bad(_with_claims_text("{canary"), "RFC 7519, 7.2"),
    "claims without end": bad(_with_claims_text("[" * 5000), "RFC 7519, 7.2"),
    "claims with NaN": bad(_with_claims_text('{"exp": NaN}'), "RFC 7519, 7.2"),
    "claims with half a character": bad(lambda jwt: jwt.but(sub="\ud800"), "RFC 7519, 7.2"),
    "a signature cut short": bad(lambda jwt: str(jwt)[:-4], "RFC 7515, 5.2"),
    "no signature": bad(lambda jwt: str(jwt).rpartition(".")[0] + ".", "RFC 7515, 5.2"),
    "a signature with loose last bits": bad(
        lambda jwt: str(jwt)[:-1] + chr(ord(str(jwt)[-1]) + 1), "RFC 7515, 2"
    ),
    "two parts": bad(lambda jwt: str(jwt).rpartition(".")[0], "RFC 7515, 5.2"),
    "five parts, as if encrypted": bad(lambda jwt: f"{jwt}.canary.canary", "RFC 7519, 7.2"),
    "base64 that is malformed": bad(lambda jwt: str(jwt).replace(".", "+.", 1), "RFC 7515, 2"),
    "base64 with padding": bad(lambda jwt: f"{jwt}==", "RFC 7515, 2"),
    "a JWT of 100 kB": bad(lambda jwt: jwt.but(more="a" * 100_000), "RFC 6750, 3.1"),
    "a good JWT with the DPoP scheme": no_token(
        lambda scene: scene.ask_api_with(f"DPoP {scene.jwt()}"), "RFC 9449, 7.1"
    ),
    "a scope of ours that is not the route's": insufficient(
        lambda scene: scene.ask_api(scene.jwt().but(scope="round:manage"))
    ),
}
