"""AWS KMS with bounded patience: it makes and opens the master key's envelope, and signs with the log's key.

No private key and no master key ever lies on a disk of ours. Credentials come by boto3's own search.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.config import Config
from gateway.errors import Busy, ConfigError

log = logging.getLogger(__name__)
_CONNECT_S, _READ_S, _ATTEMPTS = 3, 5, 2
_CONTEXT = {
    "application": "fl-gateway",
    "use": "master-key",
}  # a ciphertext made for another use does not open
_REASONS: Mapping[str, str] = {
    "NotFoundException": "there is no such key",
    "DisabledException": "the key is disabled",
    "KMSInvalidStateException": "the key is disabled, or about to be deleted",
    "AccessDeniedException": "access is denied: look at the key's policy",
    "InvalidKeyUsageException": "the key is for another use",
    "UnsupportedOperationException": "the key is of another kind",
    "InvalidCiphertextException": "this key did not make the envelope, or it was changed",
    "IncorrectKeyException": "this key did not make the envelope",
    "UnrecognizedClientException": "the credentials are not known",
    "InvalidSignatureException": "the credentials are wrong",
    "ExpiredTokenException": "the credentials have expired",
}


class KmsAway(Busy):
    """KMS does not answer, or refuses: what needs it waits. The text is for the operator."""

    title = "The key service does not answer: try again later"

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason

    def __str__(self) -> str:
        return f"KMS: {self.reason}" if self.reason else self.title


class Kms:
    """The operations that the gateway needs; each answers or raises `KmsAway` within some twenty seconds.

    Args:
        config: `kms_endpoint_url` and `s3_region`.
    """

    def __init__(self, config: Config) -> None:
        kind = ClientConfig(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        )
        endpoint = config.kms_endpoint_url or None
        try:
            self._client = boto3.session.Session().client(
                "kms", region_name=config.s3_region, endpoint_url=endpoint, config=kind
            )
        except (BotoCoreError, ValueError):
            raise ConfigError("KMS: look at FLG_KMS_ENDPOINT_URL and FLG_S3_REGION") from None

    def new_data_key(self, key_id: str) -> tuple[bytes, bytes]:
        """A new key of 256 bits, and the envelope that only KMS opens."""
        told = self._ask("generate_data_key", KeyId=key_id, KeySpec="AES_256", EncryptionContext=_CONTEXT)
        return bytes(told["Plaintext"]), bytes(told["CiphertextBlob"])

    def opened(self, key_id: str, envelope: bytes) -> bytes:
        """The key in an envelope."""
        told = self._ask("decrypt", KeyId=key_id, CiphertextBlob=envelope, EncryptionContext=_CONTEXT)
        return bytes(told["Plaintext"])

    def public_key(self, key_id: str) -> Ed25519PublicKey:
        """The public half of a signing key."""
        told = self._ask("get_public_key", KeyId=key_id)
        try:
            public = load_der_public_key(bytes(told["PublicKey"]))
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, Ed25519PublicKey):
            raise ConfigError("FLG_LOG_KEY: the key in KMS must be of the kind ECC_NIST_EDWARDS25519")
        return public

    def sign(self, key_id: str, data: bytes) -> bytes:
        """The Ed25519 signature (RFC 8032, pure) of at most 4096 bytes."""
        asked = {"KeyId": key_id, "Message": data, "MessageType": "RAW"}
        return bytes(self._ask("sign", SigningAlgorithm="ED25519_SHA_512", **asked)["Signature"])

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            return dict(getattr(self._client, operation)(**arguments))
        except (ClientError, BotoCoreError) as error:
            raise KmsAway(_told(error)) from None  # boto3's own error may hold the credentials' id


class KmsNoteKey:
    """A log key that never leaves KMS; what comes back is verified before anybody sees it.

    Args:
        kms: the service.
        key_id: the key's id, ARN or alias.
        public: its public half, as it was when the key was taken into use.
    """

    def __init__(self, kms: Kms, key_id: str, public: Ed25519PublicKey) -> None:
        self._kms, self._key_id, self._public = kms, key_id, public

    def public_key(self) -> Ed25519PublicKey:
        """The public half."""
        return self._public

    def sign(self, data: bytes, /) -> bytes:
        """Have KMS sign."""
        signature = self._kms.sign(self._key_id, data)
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            raise KmsAway("it signed with another key than the log's: look at FLG_LOG_KEY") from None
        return signature


def _told(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", "an error"))
        return _REASONS.get(code, f"it answers {code}")
    if isinstance(error, NoCredentialsError | NoRegionError):
        return "boto3 finds no credentials: see its own search, such as AWS_ACCESS_KEY_ID or a role"
    return f"it cannot be reached ({type(error).__name__}): look at FLG_KMS_ENDPOINT_URL"
