"""Where a TLS front may stand, as `FLG_TRUSTED_PROXY` says it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gateway.errors import ConfigError

Network = IPv4Network | IPv6Network


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
