"""AWS KMS for tests: moto for envelopes, and a small server of ours for Ed25519, which moto does not know yet.

Ours follows the published API: JSON 1.1, the operation in `X-Amz-Target`, requests signed with SigV4.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from services.s3 import S3Server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "FLGTESTKEY", "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anybody"}
"""What boto3 finds by its own search."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=FLGTESTKEY/[0-9]{8}/us-east-1/kms/aws4_request, "
    r"SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*x-amz-target[a-z0-9;-]*, Signature=[0-9a-f]{64}"
)
_LONGEST_MESSAGE = 4096


class Refused(Exception):
    """An error of KMS; its text is the error's code."""


@dataclass(slots=True)
class SigningService:
    """Keys by id; `is_away` makes every answer a 503, `refusal` an error of that code."""

    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refusal: str = ""
    is_away: bool = False
    refused: int = 0
    other_kind: str = ""
    port: int = 0

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def new_key(self) -> str:
        """Make a key of the kind ECC_NIST_EDWARDS25519; its id."""
        key_id = f"key-{len(self.keys)}"
        self.keys[key_id] = Ed25519PrivateKey.generate()
        return key_id

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What KMS answers to one operation."""
        self.asked.append((operation, asked))
        if self.refusal:
            raise Refused(self.refusal)
        if asked["KeyId"] == self.other_kind:
            public = ec.generate_private_key(ec.SECP256R1()).public_key()
            der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return {"KeyId": asked["KeyId"], "PublicKey": _encoded(der), "KeySpec": "ECC_NIST_P256"}
        key = self.keys.get(asked["KeyId"])
        if key is None:
            raise Refused("NotFoundException")
        if operation == "GetPublicKey":
            der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            kind = {"KeySpec": "ECC_NIST_EDWARDS25519", "KeyUsage": "SIGN_VERIFY"}
            return {"KeyId": asked["KeyId"], "PublicKey": _encoded(der), **kind}
        if (operation, asked["SigningAlgorithm"], asked["MessageType"]) != ("Sign", "ED25519_SHA_512", "RAW"):
            raise Refused("InvalidKeyUsageException")
        message = base64.b64decode(asked["Message"], validate=True)
        if not 0 < len(message) <= _LONGEST_MESSAGE:
            raise Refused("ValidationException")
        signed = {"KeyId": asked["KeyId"], "SigningAlgorithm": "ED25519_SHA_512"}
        return {**signed, "Signature": _encoded(key.sign(message))}


@contextmanager
def signing_service() -> Iterator[SigningService]:
    """The small server, until the block ends."""
    service = SigningService()

    class _Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            prefix, _, operation = self.headers["X-Amz-Target"].partition(".")
            is_signed = _AUTHORIZATION.fullmatch(self.headers.get("Authorization", ""))
            status, told = 200, {}
            if service.is_away:
                service.refused += 1
                status, told = 503, {"__type": "KMSInternalException"}
            elif not is_signed or prefix != "TrentService":
                status, told = 400, {"__type": "IncompleteSignature"}
            else:
                try:
                    told = service.answer(operation, json.loads(body))
                except Refused as refused:
                    status, told = 400, {"__type": str(refused)}
            self._send(status, json.dumps(told).encode())

        def _send(self, status: int, answer: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(slots=True)
class EnvelopeService:
    """moto with one symmetric key."""

    server: S3Server
    key_id: str

    @property
    def url(self) -> str:
        """The endpoint."""
        return self.server.url

    def client(self) -> Any:
        """A client of boto3, for a test's own look; the credentials are those of the environment."""
        return boto3.client("kms", endpoint_url=self.url, region_name="us-east-1")


@contextmanager
def envelope_service() -> Iterator[EnvelopeService]:
    """moto, until the block ends; the credentials have to be in the environment."""
    directory = Path(tempfile.mkdtemp(prefix="flg-kms-"))
    server = S3Server("moto", directory)
    try:
        server.start()
        service = EnvelopeService(server, "")
        service.key_id = service.client().create_key()["KeyMetadata"]["KeyId"]
        yield service
    finally:
        server.stop()
        shutil.rmtree(directory)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
