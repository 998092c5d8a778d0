"""Who may read `/metrics`: it has no token, so the address alone decides (`FLG_METRICS`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from gateway.auth.fronts import Network
from gateway.errors import ConfigError

_HERE = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Readers:
    """Whom the measures are shown to; with neither, they are off."""

    are_all: bool = False
    networks: tuple[Network, ...] = ()

    def have(self, address: str) -> bool:
        """Whether somebody at this address may read."""
        if self.are_all:
            return True
        try:
            found = ip_address(address)
        except ValueError:
            return False
        if isinstance(found, IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        return any(found in network for network in self.networks)


@lru_cache(maxsize=8)
def parse_readers(text: str) -> Readers:
    """What `FLG_METRICS` says.

    Raises:
        ConfigError: it is neither `loopback`, `public`, `off` nor a list of networks.
    """
    match text.strip().lower():
        case "public":
            return Readers(are_all=True)
        case "off":
            return Readers()
        case "loopback":
            return Readers(networks=_HERE)
        case words:
            try:
                networks = tuple(ip_network(word.strip()) for word in words.split(","))
            except ValueError:
                raise ConfigError(
                    "FLG_METRICS must be loopback, public, off, or networks such as 10.0.0.0/24,fd00::/64"
                ) from None
            return Readers(networks=networks)
