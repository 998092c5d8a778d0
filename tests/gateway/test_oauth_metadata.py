"""What the gateway tells of itself: metadata that a strict reader takes, and no word of what is not offered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from authlib.oauth2 import rfc8414, rfc9207
from flask.testing import FlaskClient

from gateway.app import create_app
from gateway.auth.methods import METHODS
from gateway.auth.scopes import Scope
from gateway.config import Config
from gateway.services import Services

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SERVER, RESOURCE = "/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"


def told(services: Services, path: str, **settings: Any) -> Any:
    """What a gateway with these settings tells there."""
    config: Config = replace(services.config, **settings)
    return create_app(replace(services, config=config)).test_client().get(path).get_json()


def test_a_strict_reader_takes_the_server_s_metadata(services: Services) -> None:
    """RFC 8414, 2; RFC 9207, 3: checked by Authlib's reader; https, each endpoint, each list."""
    metadata = told(services, SERVER, public_url="https://fl.example/")

    read = rfc8414.AuthorizationServerMetadata(metadata)
    read.validate(metadata_classes=[rfc9207.AuthorizationServerMetadata])
    assert metadata["issuer"] == "https://fl.example"
    assert metadata["authorization_endpoint"] == "https://fl.example/oauth/authorize"
    assert metadata["response_types_supported"] == ["code"]
    assert metadata["response_modes_supported"] == ["query"]
    assert metadata["grant_types_supported"] == ["client_credentials", "authorization_code", "refresh_token"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["scopes_supported"] == [scope.value for scope in Scope]
    for endpoint in ("token", "revocation", "introspection"):
        algorithms = metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert set(algorithms) == {"EdDSA", "Ed25519", "ES256", "PS256"}


def test_only_what_is_offered_is_named(services: Services, http: FlaskClient) -> None:
    """Certificates need a TLS front; every endpoint that is named answers, and none else is named."""
    bare, fronted = told(services, SERVER), told(services, SERVER, trusted_proxy="true")
    named = {name: url for name, url in bare.items() if name.endswith("_endpoint") or name == "jwks_uri"}

    assert "tls_client_auth" not in bare["token_endpoint_auth_methods_supported"]
    assert fronted["token_endpoint_auth_methods_supported"] == list(METHODS)
    assert not bare["tls_client_certificate_bound_access_tokens"]
    assert fronted["tls_client_certificate_bound_access_tokens"]
    assert set(named) == {
        "authorization_endpoint",
        "token_endpoint",
        "revocation_endpoint",
        "introspection_endpoint",
        "jwks_uri",
    }
    for name, url in named.items():
        path = url.removeprefix("http://localhost")
        answered = http.get(path) if name in ("authorization_endpoint", "jwks_uri") else http.post(path)
        assert answered.status_code in (200, 400), name


def test_the_resource_names_who_issues_its_tokens(services: Services) -> None:
    """RFC 9728, 2: its own server and the outside issuers that are trusted; tokens in the header alone."""
    outside = '[{"issuer": "https://idp.example/realms/x", "audience": "fl", "scope_claim": "scope"}]'
    metadata = told(services, RESOURCE, public_url="https://fl.example", trusted_issuers=outside)

    assert metadata["resource"] == "https://fl.example"
    assert metadata["authorization_servers"] == ["https://fl.example", "https://idp.example/realms/x"]
    assert metadata["bearer_methods_supported"] == ["header"]
    assert metadata["jwks_uri"] == "https://fl.example/.well-known/jwks.json"


def test_an_issuer_with_a_path_is_found_where_the_standard_says(services: Services) -> None:
    """RFC 8414, 3.1; RFC 9728, 3.1: between host and path; another path is nobody's."""
    public = "https://bank.example/fl/gateway"

    server = told(services, f"{SERVER}/fl/gateway", public_url=public)
    resource = told(services, f"{RESOURCE}/fl/gateway", public_url=public)
    other = told(services, f"{SERVER}/fl", public_url=public)
    without = told(services, f"{SERVER}/fl/gateway")

    assert (server["issuer"], resource["resource"]) == (public, public)
    assert server["token_endpoint"] == f"{public}/oauth/token"
    assert other.get("issuer") is without.get("issuer") is None


@pytest.mark.parametrize("path", [SERVER, RESOURCE])
@pytest.mark.parametrize("issuer", ["", "https://fl.example/tokens"])
def test_under_a_name_that_nobody_settled_nothing_is_told(services: Services, path: str, issuer: str) -> None:
    """RFC 8414, section 2: a client sends its secret where this says; that follows no Host header of a stranger's."""
    config = replace(services.config, public_url="", issuer=issuer)
    http = create_app(replace(services, config=config)).test_client()

    def asked(host: str) -> Any:
        return http.get(path, headers={"Host": host})

    stranger, named = asked("evil.example"), asked("fl.example")
    for told in (stranger, *([] if issuer else [named])):
        assert (told.status_code, told.get_json()["code"]) == (421, "ISSUER_UNSETTLED")
        assert told.headers["Cache-Control"] == "no-store"
        assert "evil.example" not in told.text
    assert asked("localhost:8080").status_code == 200
    if issuer:
        metadata = named.get_json()
        assert issuer in (metadata.get("issuer"), *metadata.get("authorization_servers", ()))
        assert metadata["jwks_uri"] == "http://fl.example/.well-known/jwks.json"
