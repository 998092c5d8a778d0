"""Webhooks of the operator: an invitation or a notice is posted as signed JSON, to that one address and nowhere else.

The signature follows the custom of webhooks: HMAC-SHA256 over the time, a dot, and the body. Redirects are not
followed, the machine's proxy settings do not apply, and the answer's body is not read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.config import Config
from gateway.messaging.errors import WebhookInvalid

log = logging.getLogger(__name__)
TIMEOUT_S = 10.0
_SHORTEST_SECRET = 16


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a webhook is for: the word for what is posted, and the settings that name it."""

    cargo: str
    url_setting: str
    secret_setting: str


INVITATIONS = Purpose("invitation", "FLG_WEBHOOK_URL", "FLG_WEBHOOK_SECRET")


class Webhook:
    """Posts to one address, such as `FLG_WEBHOOK_URL`.

    Args:
        url: https, or http to this machine alone.
        secret: the key of the signature, which the receiver has too.
        clock: the time in the signature.
        purpose: what it is for, as warnings and refusals say it.

    Raises:
        WebhookInvalid: the URL or the secret cannot be used.
    """

    def __init__(
        self, url: str, secret: str, clock: Callable[[], datetime], purpose: Purpose = INVITATIONS
    ) -> None:
        _insist_usable(url, secret, purpose)
        self._url, self._key, self._clock, self._cargo = url, secret.encode(), clock, purpose.cargo
        import httpx  # it takes its time to load, and not every gateway has a webhook

        try:
            httpx.URL(url)
        except httpx.InvalidURL:
            raise WebhookInvalid(f"{purpose.url_setting} cannot be read") from None
        self._client = httpx.Client(
            timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, verify=ssl.create_default_context()
        )

    def post(self, notice: Mapping[str, str | int], *, key: str) -> bool:
        """Post one notice; whether the receiver took it (2xx).

        Args:
            notice: the body.
            key: the same at each repetition, so that the receiver knows a double.
        """
        import httpx

        body = json.dumps(notice, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "User-Agent": "fl-gateway",
            "X-FL-Signature": self._signature(body),
        }
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                if not answer.is_success:
                    log.warning(
                        "the webhook answers %s: the %s is sent again later", answer.status_code, self._cargo
                    )
                return answer.is_success
        except httpx.HTTPError as error:
            log.warning(
                "the webhook is away (%s): the %s is sent again later", type(error).__name__, self._cargo
            )
            return False

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _signature(self, body: bytes) -> str:
        at = int(self._clock().timestamp())
        made = hmac.new(self._key, f"{at}.".encode() + body, hashlib.sha256)
        return f"t={at},v1={made.hexdigest()}"


def open_webhook(config: Config, clock: Callable[[], datetime]) -> Webhook | None:
    """The webhook of the settings, if they name one.

    Raises:
        WebhookInvalid: the URL or the secret cannot be used.
    """
    return Webhook(config.webhook_url, config.webhook_secret, clock) if config.webhook_url else None


def check_webhook(config: Config) -> None:
    """Raise WebhookInvalid if the settings name a webhook that cannot be used."""
    if config.webhook_url:
        _insist_usable(config.webhook_url, config.webhook_secret, INVITATIONS)


def _insist_usable(url: str, secret: str, purpose: Purpose) -> None:
    """Neither is repeated in a text: the URL may hold a token, too."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # no name server can be asked for some names: told at the start
    except ValueError:
        raise WebhookInvalid(f"{purpose.url_setting} cannot be read") from None
    if not host or parts.username or parts.password or parts.fragment:
        raise WebhookInvalid(f"{purpose.url_setting} must be a URL with a host, without user and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(host)):
        raise WebhookInvalid(f"{purpose.url_setting} must be https: plain http is for this machine alone")
    if len(secret) < _SHORTEST_SECRET:
        raise WebhookInvalid(f"{purpose.secret_setting} must have at least {_SHORTEST_SECRET} characters")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
