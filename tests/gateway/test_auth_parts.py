"""Scopes, secrets and rate limit windows by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.scopes import BUNDLES, Role, ScopeRefused, granted, scopes_of
from gateway.auth.secrets import SecretKind, digest, matches, new_secret


def test_roles_are_the_bundles_of_the_design() -> None:
    """DESIGN: roles are bundles of scopes."""
    assert {role.value: " ".join(scopes) for role, scopes in BUNDLES.items()} == {
        "participant": "training:participate model:download",
        "edge": "training:participate model:download round:aggregate",
        "operator": "client:manage client:register round:manage",
        "dpo": "privacy:export privacy:erase privacy:manage privacy:hold",
        "auditor": "audit:read",
        "siem": "audit:read",
    }


@given(role=st.sampled_from(Role), wish=st.text())
def test_no_wish_gets_more_than_the_role(role: Role, wish: str) -> None:
    """Whatever is asked for: a subset of the bundle, or a refusal."""
    try:
        got = granted(role, wish)
    except ScopeRefused:
        return

    assert set(got) <= set(BUNDLES[role])
    assert got


def test_a_stored_scope_that_is_none_any_more_opens_nothing() -> None:
    """Also a wildcard or a number that somebody put into the table."""
    assert scopes_of("audit:read privacy:* 7 old:scope") == {"audit:read"}


@pytest.mark.parametrize("kind", SecretKind)
def test_secrets_have_256_bits_and_a_prefix(kind: SecretKind) -> None:
    """A leak scanner finds them; no two are alike."""
    one, other = new_secret(kind), new_secret(kind)

    assert one.startswith("flg_")
    assert one.startswith(kind.value)
    assert len(one) == len(kind.value) + 43
    assert one != other


def test_a_secret_matches_its_digest_alone() -> None:
    """And where nothing is stored, nothing matches."""
    secret = new_secret(SecretKind.CLIENT_SECRET)

    assert matches(secret, digest(secret))
    assert not matches(secret + "x", digest(secret))
    assert not matches(secret, None)
    assert not matches("", None)
