"""A real OpenID provider for tests: `oidc-provider-mock` in a process of its own, on a free port of the loopback.

It signs ID tokens with RS256 and gives out opaque access tokens. What the package lacks and other providers have is
added here by its own means: access tokens as JWTs, introspection of its own tokens, and a change of its key.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

CLIENT, SECRET = "fl-gateway", "a-secret"
_BACK = "http://127.0.0.1:1/back"


@dataclass(frozen=True, slots=True)
class OpenIdProvider:
    """The running provider; `issuer` is its name and its address."""

    issuer: str
    http: httpx.Client

    def sign_in(self, subject: str) -> dict[str, Any]:
        """Tokens of a person, by the authorization code flow: `access_token` (opaque), `id_token`."""
        asked = {"client_id": CLIENT, "redirect_uri": _BACK, "response_type": "code", "scope": "openid email"}
        sent = self.http.post("/oauth2/authorize", params=asked, data={"sub": subject})
        code = parse_qs(urlsplit(sent.headers["Location"]).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": _BACK}
        answer = self.http.post("/oauth2/token", data=form, auth=(CLIENT, SECRET))
        told: dict[str, Any] = answer.raise_for_status().json()
        return told

    def access_token(self, **claims: Any) -> str:
        """An access token as a JWT (RFC 9068)."""
        return self.http.post("/added/access-token", json=claims).raise_for_status().text

    def change_key(self) -> None:
        """From now on it signs with another key, and publishes no other."""
        self.http.post("/added/change-key").raise_for_status()


@contextmanager
def running() -> Iterator[OpenIdProvider]:
    """A provider that runs until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(Path(__file__))], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        with httpx.Client(base_url=issuer, trust_env=False, timeout=20) as http:
            yield OpenIdProvider(issuer, http)
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _serve() -> None:
    import logging

    import flask
    import oidc_provider_mock
    from authlib.jose import JsonWebToken, RSAKey
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = oidc_provider_mock.app()
    app.debug = False

    @app.post("/added/access-token")
    def access_token() -> bytes:
        key = flask.g.oidc_provider_mock_storage.jwk
        header = {"alg": "RS256", "typ": "at+jwt", "kid": key.thumbprint()}
        claims = {"iss": flask.request.host_url.rstrip("/")} | flask.request.get_json()
        return bytes(JsonWebToken(["RS256"]).encode(header, claims, key))

    @app.post("/added/change-key")
    def change_key() -> str:
        flask.g.oidc_provider_mock_storage.jwk = RSAKey.generate_key(is_private=True)
        return ""

    @app.post("/added/introspect")
    def introspect() -> flask.Response:
        who = flask.request.authorization
        if who is None or (who.username, who.password) != (CLIENT, SECRET):
            flask.abort(401)
        token = flask.g.oidc_provider_mock_storage.get_access_token(flask.request.form["token"])
        if token is None or token.is_expired():
            return flask.jsonify(active=False)
        return flask.jsonify(
            active=True,
            sub=token.user_id,
            scope=token.scope,
            aud=CLIENT,
            exp=int(token.expires_at.timestamp()),
            iss=flask.request.host_url.rstrip("/"),
        )

    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever(0.05)


if __name__ == "__main__":
    _serve()
