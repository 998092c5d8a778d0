"""Scopes, secrets and rate limit windows by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.rate_limits import Limit, Windows, parse_limits
from gateway.auth.scopes import BUNDLES, Role, ScopeRefused, granted, scopes_of
from gateway.auth.secrets import SecretKind, digest, matches, new_secret
from gateway.config import Config
from gateway.errors import ConfigError


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


def test_the_default_limits_are_those_of_the_api() -> None:
    """API.md, Common."""
    assert parse_limits(Config().rate_limits) == {
        "models": Limit(10, 60),
        "updates": Limit(5, 60),
        "rounds": Limit(20, 60),
        "register": Limit(100, 60),
        "auth_failures": Limit(30, 60),
    }


@pytest.mark.parametrize(
    "text", ["updates", "updates=5", "updates=0/minute", "updates=5/week", "updates=-1/day", "="]
)
def test_a_limit_of_another_form_is_a_config_error(text: str) -> None:
    """A typing error must not mean `no limit`."""
    with pytest.raises(ConfigError, match="FLG_RATE_LIMITS"):
        parse_limits(text)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=60))
def test_nobody_gets_more_than_the_limit_in_a_window(steps: list[tuple[str, float]]) -> None:
    """In each window at most `count` requests pass, and a client never spends another one's."""
    windows, now_s = Windows(Limit(3, 60)), 0.0
    passed: dict[str, list[float]] = {}
    for key, pause_s in steps:
        now_s += pause_s
        if not windows.count(key, now_s).is_over:
            passed.setdefault(key, []).append(now_s)

    for times in passed.values():
        began_s = times[0]
        in_window = 0
        for at in times:
            if at >= began_s + 60:
                began_s, in_window = at, 0
            in_window += 1
            assert in_window <= 3


def test_the_memory_of_windows_is_bounded() -> None:
    """A flood of made-up clients costs a bounded memory."""
    windows = Windows(Limit(3, 60), most=100)

    for number in range(1000):
        windows.count(number, 0.0)

    assert len(windows) <= 100
