"""How often a client may call a class of routes, and how often a proof may fail (`FLG_RATE_LIMITS`).

A request is counted after its token was checked and before its body is read; a failed proof is counted after it was
found to fail, so that a right one is never refused. Decisions 0052, 0138 and 0139.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

from flask import Flask, Response, current_app, g

from gateway.auth.rules import LimitClass
from gateway.auth.scopes import Scope
from gateway.auth.tokens import AuthenticatedClient
from gateway.auth.windows import Limit, LocalWindows, Shared, Standing, Windows
from gateway.config import Config
from gateway.errors import ConfigError, RateLimited
from gateway.services import Services, current_services

EXTENSION = "fl_gateway_rate_limits"
_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_LIMIT = re.compile(r"([a-z_]+)\s*=\s*(\d{1,9})\s*/\s*(second|minute|hour|day)")
_UNLIMITED = frozenset({Scope.ROUND_MANAGE, Scope.AUDIT_READ})


def parse_limits(text: str) -> Mapping[LimitClass, Limit]:
    """The limits of `FLG_RATE_LIMITS`, by class; a class that it does not name keeps its default.

    Raises:
        ConfigError: a part is not of the form `class=COUNT/PERIOD`, or its class is unknown.
    """
    return {**_parsed(Config().rate_limits), **_parsed(text)}


def install_rate_limits(app: Flask, services: Services) -> None:
    """Give the application its windows and the headers that tell of them."""
    app.extensions[EXTENSION] = _windows(services)
    app.after_request(_tell)


def spend(client: AuthenticatedClient, name: LimitClass) -> None:
    """Count a request of the client in a class; operators and readers of the log are not counted.

    Raises:
        RateLimited: it is one too many.
    """
    if not client.scopes.isdisjoint(_UNLIMITED):
        return
    g.rate_standing = hit(name, client.client_id)
    _refuse_over(g.rate_standing)


def count_auth_failure(address: str, client_id: str) -> None:
    """Count a client's proof that failed, for the address and for the client; call it only after it failed.

    From an address that has had too many nothing more is counted: new names for clients open no windows.

    Args:
        address: where it came from.
        client_id: whom the caller claims to be; empty for what is no client id at all.

    Raises:
        RateLimited: there were too many from this address for this client, or from this address at all.
    """
    count_address_failure(address)
    _refuse_over(hit(LimitClass.AUTH_FAILURES, address, client_id))


def count_address_failure(address: str) -> None:
    """Count a proof that failed by where it came from: an IPv4 address, or an IPv6 network of 64 bits.

    Raises:
        RateLimited: there were too many.
    """
    _refuse_over(hit(LimitClass.AUTH_ADDRESSES, _counted_address(address)))


def hit(name: str, *key: str) -> Standing:
    """Count one in the window of a class and a key; the caller judges whether it is one too many.

    Raises:
        KeyError: there is no such class.
    """
    windows: Mapping[str, Windows] = current_app.extensions[EXTENSION]
    return windows[name].hit(key, current_services().clock().timestamp())


def _parsed(text: str) -> dict[LimitClass, Limit]:
    limits = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        found = _LIMIT.fullmatch(part)
        if found is None or int(found[2]) == 0:
            raise ConfigError(
                "FLG_RATE_LIMITS must have the form class=COUNT/PERIOD;… with second, minute, hour or day"
            )
        if found[1] not in list(LimitClass):
            raise ConfigError(f"FLG_RATE_LIMITS knows no class {found[1]}: it has {', '.join(LimitClass)}")
        limits[LimitClass(found[1])] = Limit(int(found[2]), _PERIODS_S[found[3]])
    return limits


def _windows(services: Services) -> Mapping[str, Windows]:
    shared = _shared(services)
    return {
        name: Windows(name, limit, LocalWindows(limit.period_s), shared)
        for name, limit in parse_limits(services.config.rate_limits).items()
    }


def _shared(services: Services) -> Shared | None:
    if not services.config.cache_url:
        return None
    from gateway.caching.shared import Breaker  # a gateway without a Redis need not load it
    from gateway.caching.windows import SharedWindows

    prefix = f"fl-gateway:{services.origin}:limit"
    return SharedWindows(services.config.cache_url, prefix, Breaker(), services.keystore.index)


def _counted_address(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
    return str(parsed)


def _refuse_over(standing: Standing) -> None:
    if standing.is_over:
        wait_s = max(1, ceil(standing.resets_at_s - current_services().clock().timestamp()))
        raise RateLimited(f"Come again in {wait_s} seconds", retry_after_s=wait_s)


def _tell(response: Response) -> Response:
    standing: Standing | None = g.get("rate_standing")
    if standing is not None:
        response.headers.update(standing.headers())
    return response
