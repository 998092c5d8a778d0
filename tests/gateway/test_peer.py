"""Whose word counts for address, scheme and certificate: the TLS front's, wherever `FLG_TRUSTED_PROXY` puts it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Flask
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st
from proof_keys import certificate, from_nginx

from gateway.app import create_app
from gateway.auth.fronts import parse_fronts
from gateway.auth.peer import client_address, forges_certificate, presented_certificate
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.services import EXTENSION, Services
from gateway.web import Web

HERE, UNIX, AWAY, NEAR = "127.0.0.1", None, "203.0.113.7", "10.1.2.3"


@pytest.mark.parametrize(
    ("text", "believed"),
    [
        ("false", set()),
        ("", set()),
        ("true", {HERE, UNIX, "::1", "127.9.9.9", "::ffff:127.0.0.1"}),
        (" TRUE ", {HERE, UNIX, "::1", "127.9.9.9", "::ffff:127.0.0.1"}),
        ("10.1.0.0/16", {UNIX, NEAR, "::ffff:10.1.2.3"}),
        ("10.1.2.3", {UNIX, NEAR, "::ffff:10.1.2.3"}),
        ("fd00::/64, 203.0.113.0/24", {UNIX, AWAY, "fd00::1"}),
    ],
)
def test_a_front_is_where_the_setting_says(text: str, believed: set[str | None]) -> None:
    """Decision 0122: `true` is this machine alone; a Unix socket is here whenever there is a front at all."""
    peers = {
        HERE,
        UNIX,
        AWAY,
        NEAR,
        "::1",
        "127.9.9.9",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "fd00::1",
        "nonsense",
    }

    assert {peer for peer in peers if parse_fronts(text).have(peer)} == believed


@pytest.mark.parametrize(
    "text",
    [
        "perhaps",
        "true,false",
        "true,10.0.0.0/8",
        "10.1.2.3/16",
        "0.0.0.0/0",
        "::/0",
        "nginx",
        "1,2",
        "::ffff:10.0.0.0/104",
    ],
)
def test_what_is_no_place_is_an_error_when_the_gateway_starts(text: str) -> None:
    """A typing error must not mean `nobody`, and never `everybody`."""
    with pytest.raises(ConfigError, match="FLG_TRUSTED_PROXY"):
        parse_fronts(text)


@given(st.text(max_size=30))
def test_nothing_but_a_config_error_comes_of_any_setting(text: str) -> None:
    """And no text but `true` or a network believes anybody."""
    try:
        fronts = parse_fronts(text)
    except ConfigError:
        return

    assert fronts.have(UNIX) == (text.strip().lower() == "true" or bool(fronts.networks))


def test_the_application_does_not_start_with_such_a_setting(services: Services) -> None:
    """It is found before the first request, not by it."""
    wrong = replace(services, config=replace(services.config, trusted_proxy="perhaps"))

    with pytest.raises(ConfigError, match="FLG_TRUSTED_PROXY"):
        create_app(wrong)


def test_what_a_front_says_is_believed_from_a_front_alone(app: Flask, services: Services) -> None:
    """Address, certificate, and that somebody tried to forge it."""
    app.extensions[EXTENSION] = replace(
        services, config=replace(services.config, trusted_proxy="10.1.0.0/16")
    )
    said = from_nginx(certificate()) | {"X-Forwarded-For": "198.51.100.9, 192.0.2.1"}

    def seen_from(peer: str, headers: dict[str, str] = said) -> tuple[str, bool, bool]:
        with app.test_request_context(headers=headers, environ_base={"REMOTE_ADDR": peer}):
            return client_address(), presented_certificate() is not None, forges_certificate()

    assert seen_from(NEAR) == ("192.0.2.1", True, False)
    assert seen_from(AWAY) == (AWAY, False, True)
    assert seen_from(HERE) == (HERE, False, True)
    assert seen_from(AWAY, {}) == (AWAY, False, False)
    assert seen_from(NEAR, {}) == (NEAR, False, False)


_FROM_NGINX_OR_NOT = b"".join(
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Protocol: ssl\r\n",
        b"X-Forwarded-Ssl: on\r\nSCRIPT_NAME: /a\r\nX_SSL_Client_Cert: a\r\nX-SSL-Client-Verify: NONE\r\n\r\n",
    ]
)


@pytest.mark.parametrize("peer", [(HERE, 1), (NEAR, 1), ""])
def test_the_server_believes_no_header_of_anybody(peer: object) -> None:
    """Decision 0122: what a front says is read in one place; gunicorn by itself believes everybody on this machine."""
    parser = RequestParser(Web(Config(), "fd://3").cfg, iter([_FROM_NGINX_OR_NOT]), peer)

    heard = next(parser)

    assert heard.scheme == "http"
    assert not [name for name, _ in heard.headers if "_" in name]
