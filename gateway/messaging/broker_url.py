"""`FLG_QUEUE_URL` as parameters of a connection: every wait bounded, TLS verified, nothing of the URL told."""

from __future__ import annotations

import ssl
from urllib.parse import parse_qs, unquote, urlsplit

import pika

from gateway.messaging.errors import QueueUrlInvalid

HEARTBEAT_S = 10
BLOCKED_S = 30.0
HANDSHAKE_S = 10.0
_CONNECT_S = 5.0
_PORTS = {"amqp": 5672, "amqps": 5671}
_FILES = ("cafile", "certfile", "keyfile")


def parameters_of(url: str) -> pika.ConnectionParameters:
    """How to connect.

    Args:
        url: `amqp://USER:PASSWORD@HOST:PORT/VHOST` (the vhost percent-encoded; none: `/`) or `amqps://…`, where
            `?cafile=`, `&certfile=` and `&keyfile=` name PEM files; the machine's authorities when no `cafile`.

    Raises:
        QueueUrlInvalid: it is no such URL, or a file of it cannot be read.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise QueueUrlInvalid("cannot be read") from None
    if parts.scheme not in _PORTS or not host:
        raise QueueUrlInvalid("is no URL of a RabbitMQ")
    files = {name: values[-1] for name, values in options.items()}
    if not files.keys() <= set(_FILES) or (files and parts.scheme != "amqps"):
        raise QueueUrlInvalid("has an unknown option: amqps knows cafile, certfile and keyfile")
    return pika.ConnectionParameters(
        host=host,
        port=port or _PORTS[parts.scheme],
        virtual_host=unquote(parts.path[1:]) or "/",
        credentials=pika.PlainCredentials(
            unquote(parts.username or "guest"), unquote(parts.password or "guest"), erase_on_connect=False
        ),
        ssl_options=pika.SSLOptions(_tls(files), host) if parts.scheme == "amqps" else None,
        heartbeat=HEARTBEAT_S,
        blocked_connection_timeout=BLOCKED_S,
        socket_timeout=_CONNECT_S,
        stack_timeout=HANDSHAKE_S,
        connection_attempts=1,  # trying again, with growing pauses, is the link's
        client_properties={"connection_name": "fl-gateway"},
    )


def _tls(files: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.get("cafile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise QueueUrlInvalid("names a PEM file that cannot be read") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
