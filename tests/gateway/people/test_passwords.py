"""Passwords and one-time codes by themselves: policy, hashes, published vectors."""

from __future__ import annotations

import re
import statistics
import threading
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from staff import CHEAP

from gateway.auth.people.passwords import (
    LONGEST,
    SHORTEST,
    STRONG,
    BadPassword,
    Cost,
    Passwords,
    check_password,
    prepared,
)
from gateway.auth.people.second_factor import code_at, matching_step, new_totp_secret, totp_uri
from gateway.errors import Busy

RFC_6238 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # base32 of its ASCII secret 12345678901234567890


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("a" * 11, "12 to 128"),
        ("correct horse!" * 10, "12 to 128"),
        ("password1234", "tried first"),
        ("PassWord1234", "tried first"),
        ("abababababab", "tried first"),
        ("ada.lovelace1", "name"),
        ("xAda.Lovelacex", "name"),
        ("tabs\tand\nnewlines", "control"),
        ("\ud800 half a pair", "control"),
    ],
)
def test_what_is_guessed_first_is_no_password(password: str, why: str) -> None:
    """NIST SP 800-63B-4, 3.1.1.2: length, and a list of what is tried first; the refusal does not repeat it."""
    with pytest.raises(BadPassword, match=why) as refused:
        check_password(password, "ada.lovelace")

    assert password not in str(refused.value)


@pytest.mark.parametrize(
    "password",
    [
        "horse battery staple",
        "nur kleine buchstaben",
        "ünïcödé ist in ordnung",
        "密码可以是中文的没有问题啊",
        "9" * 3 + "x!" + "long enough",
    ],
)
def test_nothing_is_asked_of_a_password_s_composition(password: str) -> None:
    """No digit, no capital, no sign is demanded; blanks and any script are welcome."""
    check_password(password, "Ada")


@given(st.text(min_size=SHORTEST, max_size=LONGEST))
def test_the_same_password_from_another_keyboard_is_the_same(text: str) -> None:
    """RFC 8265: preparing is stable, so that what was set can be typed."""
    assert prepared(prepared(text)) == prepared(text)


def test_a_hash_says_how_it_was_made_and_costs_what_rfc_9106_recommends() -> None:
    """RFC 9106, section 4, second option: 3 passes over 64 MiB in 4 lanes, a salt of 128 bits, a tag of 256."""
    stored = Passwords().hash("a horse of another colour")

    assert (STRONG.time, STRONG.memory_kib, STRONG.lanes) == (3, 64 * 1024, 4)
    assert re.fullmatch(r"\$argon2id\$v=19\$m=65536,t=3,p=4\$[\w+/]{22}\$[\w+/]{43}", stored)


@pytest.mark.parametrize("stored", [None, "", "$argon2id$", "$2b$12$abc", "x" * 100])
def test_what_is_no_hash_of_ours_lets_nobody_in(stored: str | None) -> None:
    """A person without a password, and a row that somebody spoilt."""
    assert not Passwords(CHEAP).is_right("a horse of another colour", stored, is_known=False)


def test_a_name_that_nobody_has_takes_as_long_as_one_that_somebody_has() -> None:
    """The processor works as much for both, so that the time tells nothing."""
    passwords = Passwords(Cost(time=2, memory_kib=4096, lanes=1))
    stored = passwords.hash("a horse of another colour")
    passwords.is_right("warm up", None, is_known=False)

    def cost_of(kept: str | None) -> float:
        began = time.process_time()
        passwords.is_right("a guess that is wrong", kept, is_known=False)
        return time.process_time() - began

    pairs = [(cost_of(stored), cost_of(None)) for _ in range(15)]

    somebody, nobody = (statistics.median(side) for side in zip(*pairs, strict=True))
    assert 0.7 < somebody / nobody < 1.4


def test_few_hashes_run_at_a_time_and_few_wait() -> None:
    """Beyond its places the process says 503, before it spends anything."""
    passwords = Passwords(CHEAP, waiting=2)
    inside, leave = threading.Barrier(3), threading.Event()

    def stay() -> None:
        with passwords.place(is_known=False):
            inside.wait(10)
            leave.wait(10)

    threads = [threading.Thread(target=stay) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    try:
        with pytest.raises(Busy), passwords.place(is_known=False):
            pass
        with passwords.place(is_known=True):
            pass
    finally:
        leave.set()
        for thread in threads:
            thread.join()
    with passwords.place(is_known=False):
        pass


@pytest.mark.parametrize(
    ("at_s", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_codes_are_those_of_rfc_6238(at_s: int, code: str) -> None:
    """Appendix B, SHA-1, of which an app shows the last six digits."""
    assert code_at(RFC_6238, at_s // 30) == code[-6:]
    assert matching_step(RFC_6238, code[-6:], datetime.fromtimestamp(at_s, UTC)) == at_s // 30


@pytest.mark.parametrize("typed", ["", "28708", "2870822", "x", "287 082", " 287082 "])
def test_a_code_is_six_digits_with_or_without_blanks(typed: str) -> None:
    """Apps show a blank in the middle; nothing else is forgiven."""
    found = matching_step(RFC_6238, typed, datetime.fromtimestamp(59, UTC))

    assert found == (1 if typed.replace(" ", "") == "287082" else None)


def test_without_a_secret_no_code_is_right() -> None:
    """Nobody's codes are those of the secret that is compared for the time it takes."""
    now = datetime.fromtimestamp(59, UTC)

    assert matching_step(None, code_at("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", 1), now) is None


def test_a_secret_has_160_bits_and_goes_into_any_app() -> None:
    """RFC 4226, section 4, R6; the URI that authenticator apps read."""
    secret = new_totp_secret()

    assert re.fullmatch(r"[A-Z2-7]{32}", secret)
    assert secret != new_totp_secret()
    assert totp_uri(secret, "Ada L") == f"otpauth://totp/fl-gateway:Ada%20L?secret={secret}&issuer=fl-gateway"
