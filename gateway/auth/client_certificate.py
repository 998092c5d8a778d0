"""The X.509 certificate of a client, as far as it tells who the client is (RFC 8705)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm


@dataclass(frozen=True, slots=True, repr=False)
class ClientCertificate:
    """The certificate whose key the client holds: the front saw the proof in the TLS handshake.

    Args:
        der: the certificate.
        thumbprint: `x5t#S256` (RFC 8705, section 3.1).
        subject_dn: whose it is (RFC 4514).
        public_key: SubjectPublicKeyInfo, DER.
        valid_from: when its time begins.
        valid_until: when its time ends.
        is_verified: its chain ends at the front's authority for clients; else it proves that key alone.
    """

    der: bytes
    thumbprint: str
    subject_dn: str
    public_key: bytes
    valid_from: datetime
    valid_until: datetime
    is_verified: bool

    def is_valid_at(self, now: datetime) -> bool:
        """Whether it has begun, and not expired."""
        return self.valid_from <= now <= self.valid_until


def read_certificate(pem: bytes, *, is_verified: bool = False) -> ClientCertificate:
    """The facts of a certificate.

    Raises:
        ValueError: it is none, or several, or of a kind that nobody here knows.
    """
    from cryptography import x509  # slow to import, and most requests show no certificate
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if pem.count(b"-----BEGIN") != 1:
        raise ValueError("one certificate is wanted")
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        der = certificate.public_bytes(Encoding.DER)
        return ClientCertificate(
            der=der,
            thumbprint=base64.urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode(),
            subject_dn=certificate.subject.rfc4514_string(),
            public_key=certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            valid_from=certificate.not_valid_before_utc,
            valid_until=certificate.not_valid_after_utc,
            is_verified=is_verified,
        )
    except (
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        TypeError,
    ) as error:  # TypeError: bits where a name is text
        raise ValueError("nobody here knows certificates of this kind") from error
