"""An outside issuer for tests: an HTTP server on the loopback with keys to sign with, that counts what it is asked.

It does on request what issuers in trouble do: hang, trickle, redirect, answer too much, or something else.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import warnings
from base64 import b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, serialize_compact

AUDIENCE = "https://gateway.example"
OPENID, RFC8414 = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
USER, SECRET = "gateway", "s3cr+t/ü".encode().hex()
_ANY = JWSRegistry(algorithms=["EdDSA", "Ed25519", "ES256", "PS256", "RS256"])
_KINDS: dict[str, Any] = {
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "ES256": lambda: ECKey.generate_key("P-256"),
    "PS256": lambda: RSAKey.generate_key(2048),
    "RS256": lambda: RSAKey.generate_key(2048),
}


def new_key(kid: str, algorithm: str = "ES256") -> Key:
    """A private key of that name."""
    key = _KINDS[algorithm]()
    return type(key).import_key(key.as_dict(private=True) | {"kid": kid})


def sign(key: Key, claims: dict[str, Any], algorithm: str = "ES256", **header: Any) -> str:
    """A JWT; a member of the header that is None is left out."""
    told = {"alg": algorithm, "kid": key.kid, "typ": "at+jwt"} | header
    told = {name: value for name, value in told.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", SecurityWarning
        )  # EdDSA, an older name of Ed25519 (RFC 9864), is still in use
        return serialize_compact(told, json.dumps(claims), key, registry=_ANY)


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"x") -> str:
    """A compact JWS with any header, signed by nobody."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@dataclass(slots=True)
class OutsideIssuer:
    """What it publishes, what it was asked, and how it misbehaves.

    `answers` puts another answer at a path: status, headers, body. `delay_s` goes before each answer.
    """

    url: str = ""
    path: str = ""
    keys: list[Key] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    jwks_headers: dict[str, str] = field(default_factory=dict)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    delay_s: float = 0.0
    trickle_s: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """The issuer, as its metadata and its tokens say it."""
        return self.url + self.path

    def trusted(self, **members: Any) -> str:
        """The setting that trusts it."""
        return json.dumps([{"issuer": self.name, "audience": AUDIENCE} | members])

    def claims(self, now_s: float, **claims: Any) -> dict[str, Any]:
        """Those of a good token; a claim that is None is left out."""
        told = {
            "iss": self.name,
            "sub": "silo-7",
            "aud": AUDIENCE,
            "client_id": "silo-7",
            "iat": int(now_s),
            "exp": int(now_s) + 600,
            "jti": "1",
            "scope": "training:participate model:download",
        } | claims
        return {name: value for name, value in told.items() if value is not None}

    def token(self, now_s: float, **claims: Any) -> str:
        """A good token, signed with the first key."""
        return sign(self.keys[0], self.claims(now_s, **claims))

    def answer(self, path: str, form: dict[str, str], user: str) -> tuple[int, dict[str, str], bytes]:
        """What it answers."""
        if path in self.answers:
            return self.answers[path]
        if path == f"{self.path}{OPENID}":
            told = {"issuer": self.name, "jwks_uri": f"{self.url}/jwks"} | self.metadata
            return 200, {}, json.dumps(told).encode()
        if path == "/jwks":
            return 200, self.jwks_headers, json.dumps({"keys": [key.as_dict() for key in self.keys]}).encode()
        if path == "/introspect":
            if user != f"{USER}:{SECRET}":
                return 401, {}, b"{}"
            return 200, {}, json.dumps(self.tokens.get(form["token"], {"active": False})).encode()
        return 404, {}, b"{}"


@contextmanager
def issuing(*, tls: tuple[str, str] | None = None, **about: Any) -> Iterator[OutsideIssuer]:
    """An issuer with one ES256 key named `one`, until the block ends; with files of certificate and key over TLS."""
    issuer = OutsideIssuer(**({"keys": [new_key("one")]} | about))

    class _Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with issuer.lock:
                issuer.asked[self.path] += 1
                issuer.at_once += 1
                issuer.most_at_once = max(issuer.most_at_once, issuer.at_once)
            try:
                self._answer()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with issuer.lock:
                    issuer.at_once -= 1

        def do_POST(self) -> None:
            self.do_GET()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            user = b64decode(self.headers.get("Authorization", "").partition(" ")[2]).decode()
            time.sleep(issuer.delay_s)
            status, headers, content = issuer.answer(self.path, form, user)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if not issuer.trickle_s:
                self.wfile.write(content)
                return
            for byte in content:
                self.wfile.write(bytes([byte]))
                time.sleep(issuer.trickle_s)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.block_on_close = False
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        issuer.url = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
