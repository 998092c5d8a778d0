"""Who stands at the other end of the socket: the TLS front, whose word counts, or somebody whose word does not.

What a front says (`X-Forwarded-*`, the client's certificate) is read here and nowhere else, and from nobody but it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote

from cryptography.exceptions import UnsupportedAlgorithm
from flask import request

from gateway.errors import ConfigError
from gateway.services import current_services

Network = IPv4Network | IPv6Network
CERTIFICATE, VERDICT = "X-SSL-Client-Cert", "X-SSL-Client-Verify"
_LONGEST_CERTIFICATE = 16_384
_PARSED_CERTIFICATES = 1024


@dataclass(frozen=True, slots=True)
class Fronts:
    """Where a TLS front may stand; on a Unix socket of this machine whenever there is one at all."""

    are_here: bool
    networks: tuple[Network, ...]

    def have(self, peer: str | None) -> bool:
        """Whether the peer of a socket is one; a Unix socket's peer has no address."""
        if not self.are_here and not self.networks:
            return False
        if not peer:
            return True
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return (self.are_here and address.is_loopback) or any(address in net for net in self.networks)


@lru_cache(maxsize=8)
def parse_fronts(text: str) -> Fronts:
    """What `FLG_TRUSTED_PROXY` says.

    Raises:
        ConfigError: it is neither `false`, `true` nor a list of networks, or it names everybody.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if words in ([], ["false"]):
        return Fronts(False, ())
    if words == ["true"]:
        return Fronts(True, ())
    try:
        networks = tuple(ip_network(word) for word in words)
    except ValueError:
        raise ConfigError(
            "FLG_TRUSTED_PROXY must be false, true, or networks such as 10.0.0.0/24,fd00::/64"
        ) from None
    if any(_is_mapped(network) for network in networks):
        raise ConfigError(
            "FLG_TRUSTED_PROXY must name IPv4 networks as such: 10.0.0.0/24, not ::ffff:10.0.0.0/120"
        )
    if any(network.prefixlen == 0 for network in networks):
        raise ConfigError("FLG_TRUSTED_PROXY must not name everybody: name the networks of the TLS front")
    return Fronts(False, networks)


def _is_mapped(network: Network) -> bool:
    """Whether it is of IPv4 addresses in the form of IPv6; peers are known by the plain form."""
    return isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None


def comes_from_front() -> bool:
    """Whether a TLS front passed this request on."""
    return parse_fronts(current_services().config.trusted_proxy).have(request.remote_addr)


def came_by_tls() -> bool:
    """Whether the client spoke TLS, to us or to the front."""
    return request.is_secure or (comes_from_front() and request.headers.get("X-Forwarded-Proto") == "https")


def client_address() -> str:
    """The address of the client; behind a front it is what the front says."""
    if comes_from_front():
        return request.headers.get("X-Forwarded-For", request.remote_addr or "").rpartition(",")[2].strip()
    return request.remote_addr or ""


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


def presented_certificate() -> ClientCertificate | None:
    """The certificate that the client showed to the TLS front, or None; nobody but a front is believed."""
    escaped = request.headers.get(CERTIFICATE, "")
    if not escaped or not comes_from_front():
        return None
    return _parse_certificate(escaped, request.headers.get(VERDICT, ""))


def forges_certificate() -> bool:
    """Whether somebody who is no front says which certificate a client holds."""
    return bool(request.headers.get(CERTIFICATE) or request.headers.get(VERDICT)) and not comes_from_front()


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


@lru_cache(maxsize=_PARSED_CERTIFICATES)
def _parse_certificate(escaped: str, verdict: str) -> ClientCertificate | None:
    """What the front's headers say; nginx escapes the PEM text as a URL does, and says NONE for no certificate."""
    if len(escaped) > _LONGEST_CERTIFICATE or not (verdict == "SUCCESS" or verdict.startswith("FAILED")):
        return None
    try:
        return read_certificate(unquote(escaped).encode(), is_verified=verdict == "SUCCESS")
    except ValueError:
        return None
