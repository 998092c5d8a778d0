"""A stock OAuth client against a real server: Authlib's requests session gets a token and uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from authlib.integrations.requests_client import OAuth2Session
from flask import Flask
from werkzeug.serving import make_server

from gateway.auth.clients import NewClient


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """The gateway on a free port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_stock_client_gets_uses_asks_about_and_ends_a_token(
    url: str, client_of: Callable[[str], NewClient], method: str
) -> None:
    """RFC 6749, 7662, 7009, found by RFC 8414, over real HTTP."""
    operator = client_of("operator")
    with OAuth2Session(
        operator.client_id, operator.client_secret, token_endpoint_auth_method=method
    ) as client:
        metadata = client.get(f"{url}/.well-known/oauth-authorization-server", withhold_token=True).json()
        client.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")

        listed = client.get(f"{url}/api/v1/clients")
        asked = client.introspect_token(
            metadata["introspection_endpoint"], token=client.token["access_token"]
        ).json()
        ended = client.revoke_token(metadata["revocation_endpoint"], token=client.token["access_token"])
        after = client.get(f"{url}/api/v1/clients")

    assert metadata["token_endpoint"].startswith(url)
    assert listed.status_code == 200
    assert asked["active"]
    assert ended.status_code == 200
    assert after.status_code == 401
