"""The key of JWTs is replaced: announced before it signs, or at once where one was stolen (docs/tokens.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from services.clock import FixedClock
from signed_tokens import CLIENTS, ISSUER, bearer, parts_of, signed_client, token_of

from compliance.keyring.keys import SigningUse
from gateway.auth.clients import NewClient
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.key_rotation import JWKS_FRESH, begin_announced, rotate_signing_key
from gateway.parts.sequencing import sequencer_of
from gateway.services import Services


@pytest.fixture
def config(config: Config) -> Config:
    """A gateway that knows its name."""
    return replace(config, public_url=ISSUER)


@pytest.fixture
def signed(services: Services) -> NewClient:
    """An operator whose tokens are JWTs."""
    return signed_client(services)


def _no_crash(_place: str) -> None:
    """Goes on."""


def test_the_next_key_is_published_before_it_signs_and_the_old_one_while_its_tokens_live(
    http: FlaskClient, services: Services, signed: NewClient, clock: FixedClock
) -> None:
    """Overlapping rotation: at no moment does a resource server meet a key that it could not know."""

    def published() -> set[str]:
        return {key["kid"] for key in http.get("/.well-known/jwks.json").get_json()["keys"]}

    old_token = token_of(http, signed)
    first = rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta())
    sequencer_of(services).run_once()
    assert {first.old_kid, first.new_kid} <= published()
    assert not first.has_begun
    assert parts_of(token_of(http, signed))[0]["kid"] == first.old_kid

    clock.advance(JWKS_FRESH)
    old_token = token_of(http, signed)
    begin_announced(services)
    new_token = token_of(http, signed)
    assert parts_of(new_token)[0]["kid"] == first.new_kid
    assert {http.get(CLIENTS, headers=bearer(token)).status_code for token in (old_token, new_token)} == {200}
    assert {first.old_kid, first.new_kid} <= published()

    clock.advance(timedelta(seconds=900 + 61))
    services.state.bump_epoch()  # half a second is over
    assert first.old_kid not in published()
    assert first.new_kid in published()


def test_a_stolen_key_is_replaced_at_once(http: FlaskClient, services: Services, signed: NewClient) -> None:
    """Everything that it signed ends in the same moment."""
    token = token_of(http, signed)

    done = rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta(), at_once=True)

    assert done.has_begun
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    assert http.get(CLIENTS, headers=bearer(token_of(http, signed))).status_code == 200


def test_with_a_stolen_key_the_one_before_it_ends_too(
    http: FlaskClient, services: Services, signed: NewClient, clock: Any
) -> None:
    """For a while after a rotation two keys are in force, in one store."""
    oldest = token_of(http, signed)
    rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta())
    clock.advance(JWKS_FRESH)
    begin_announced(services)
    clock.advance(timedelta(seconds=30))
    newer = token_of(http, signed)
    assert {http.get(CLIENTS, headers=bearer(token)).status_code for token in (oldest, newer)} == {200}

    rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta(), at_once=True)

    assert {http.get(CLIENTS, headers=bearer(token)).status_code for token in (oldest, newer)} == {401}


def test_two_commands_of_one_moment_leave_no_stolen_key_in_force_unsaid(
    http: FlaskClient, services: Services, signed: NewClient
) -> None:
    """Whose key gave way to the other's says so, and the next one ends the stolen key."""
    token = token_of(http, signed)

    def other(place: str) -> None:
        if place == "keys.prepared":
            rotate_signing_key(replace(services, crash=_no_crash), SigningUse.TOKEN, both_for=timedelta())

    with pytest.raises(ConfigError, match="give this one again"):
        rotate_signing_key(
            replace(services, crash=other), SigningUse.TOKEN, both_for=timedelta(), at_once=True
        )
    rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta(), at_once=True)

    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401


@pytest.mark.parametrize("place", ["keys.prepared", "keys.announced"])
def test_after_a_crash_the_command_against_a_stolen_key_is_given_again(
    http: FlaskClient, services: Services, signed: NewClient, place: str
) -> None:
    """What the crash left signs nothing, then or later."""
    token = token_of(http, signed)

    def die(here: str) -> None:
        if here == place:
            raise InterruptedError(place)

    with pytest.raises(InterruptedError):
        rotate_signing_key(replace(services, crash=die), SigningUse.TOKEN, both_for=timedelta(), at_once=True)
    left = services.keystore.signing.waiting(SigningUse.TOKEN)
    done = rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta(), at_once=True)

    assert left is not None
    assert done.has_begun
    assert left.kid not in {row.kid for row in services.keystore.signing.rows(SigningUse.TOKEN)}
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    assert http.get(CLIENTS, headers=bearer(token_of(http, signed))).status_code == 200


def test_a_key_that_waited_beside_a_stolen_one_never_signs(
    http: FlaskClient, services: Services, signed: NewClient, entries: Callable[..., list[Any]]
) -> None:
    """Who read the key store has read it, too."""
    token_of(http, signed)  # makes the first key
    waiting = rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta())

    done = rotate_signing_key(services, SigningUse.TOKEN, both_for=timedelta(), at_once=True)

    services.state.bump_epoch()
    names = {key["kid"] for key in http.get("/.well-known/jwks.json").get_json()["keys"]}
    assert waiting.has_begun is False
    assert done.new_kid not in (waiting.old_kid, waiting.new_kid)
    assert waiting.new_kid not in names
    assert [entry["details"].get("reason") for entry in entries("keys.rotated")] == [None, "stolen"]
    assert parts_of(token_of(http, signed))[0]["kid"] == done.new_kid
    assert done.new_kid in names
