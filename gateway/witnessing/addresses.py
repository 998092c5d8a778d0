"""Which witnesses there are: `FLG_WITNESSES`, each with where it is asked and the key that its answers must bear."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from audit.cosignature import CosignatureVerifier
from audit.errors import BadKey
from gateway.config import Config
from gateway.errors import ConfigError

_FORM = "each of FLG_WITNESSES is a URL, a blank, and the witness's key, parted by commas"


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    """One witness: the submission prefix of C2SP tlog-witness, and its key."""

    url: str
    verifier: CosignatureVerifier

    @property
    def name(self) -> str:
        """Name and key id, as they stand in `audit_cosignatures`."""
        return self.verifier.key_name


def witnesses_of(config: Config) -> tuple[WitnessAddress, ...]:
    """The witnesses of the settings.

    Raises:
        ConfigError: one cannot be used, one counts twice, or the quorum cannot be reached.
    """
    words = [word.split() for word in config.witnesses.split(",") if word.strip()]
    found = tuple(_witness(word) for word in words)
    if len({one.verifier.public for one in found}) != len(found):
        raise ConfigError("FLG_WITNESSES names one key twice: it would count as two witnesses")
    if found and not 1 <= config.witness_quorum <= len(found):
        raise ConfigError(
            f"FLG_WITNESS_QUORUM is {config.witness_quorum}, and there are {len(found)} witnesses: it is from 1 to that"
        )
    return found


def _witness(words: list[str]) -> WitnessAddress:
    if len(words) != 2:
        raise ConfigError(_FORM)
    url, vkey = words
    _insist_usable(url)
    try:
        return WitnessAddress(url.rstrip("/"), CosignatureVerifier.parse(vkey))
    except BadKey as error:
        raise ConfigError(f"a key in FLG_WITNESSES cannot be used: {error}") from None


def _insist_usable(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(_FORM) from None
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{_FORM}; a URL has a host, and neither user nor query")
    if parts.scheme == "http" and not _is_here(host):
        raise ConfigError("a URL in FLG_WITNESSES must be https: plain http is for this machine alone")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
