"""The keys of an outside issuer: found by its name, kept by age, followed when they change, never fetched in floods."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from services.authority import Authority
from services.issuer import OPENID, RFC8414, OutsideIssuer, issuing, new_key, sign

from gateway.auth.issuers import IssuerAway, Provider
from gateway.auth.issuers.errors import ExchangeFailed
from gateway.auth.issuers.exchange import LONGEST_ANSWER, Line
from gateway.auth.issuers.keys import AGAIN_S, LONGEST_BACK_OFF_S, MOST_WAITING, STALE_S, USUAL_AGE_S
from gateway.auth.issuers.metadata import endpoint_of, fetch_metadata, fetch_published, metadata_urls
from gateway.auth.jose import BadJwt, read_jwt


@dataclass(slots=True)
class Seconds:
    """A clock of seconds that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[OutsideIssuer]:
    """An issuer with one key."""
    with issuing() as running:
        yield running


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def provider(issuer: OutsideIssuer, clock: Seconds, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """It waits long for an answer, since a late one is another case, and a busy machine makes it late."""
    monkeypatch.setattr("gateway.auth.issuers.keys.PATIENCE_S", 20.0)
    return Provider(issuer.name, timeout_s=20.0, clock=clock)


def eventually(fact: Callable[[], bool]) -> bool:
    """Whether it becomes so within twenty seconds."""
    deadline = time.monotonic() + 20
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.005)
    return fact()


# Finding them


@pytest.mark.parametrize(
    ("issuer", "openid", "rfc8414"),
    [
        ("https://a.example", f"https://a.example{OPENID}", f"https://a.example{RFC8414}"),
        ("https://a.example/", f"https://a.example{OPENID}", f"https://a.example{RFC8414}"),
        ("https://a.example/r/fl", f"https://a.example/r/fl{OPENID}", f"https://a.example{RFC8414}/r/fl"),
        (
            "https://a.example:8443/r/",
            f"https://a.example:8443/r{OPENID}",
            f"https://a.example:8443{RFC8414}/r",
        ),
    ],
)
def test_metadata_is_looked_for_where_both_standards_put_it(issuer: str, openid: str, rfc8414: str) -> None:
    """OpenID Connect Discovery 1.0, section 4; RFC 8414, section 3.1."""
    assert metadata_urls(issuer) == (openid, rfc8414)


def test_an_issuer_that_has_only_the_metadata_of_rfc_8414_is_found() -> None:
    """With a path, which goes behind the well-known part."""
    with issuing(path="/realms/fl") as issuer:
        told = {"issuer": issuer.name, "jwks_uri": f"{issuer.url}/jwks"}
        issuer.answers[f"/realms/fl{OPENID}"] = (404, {}, b"")
        issuer.answers[f"{RFC8414}/realms/fl"] = (200, {}, json.dumps(told).encode())

        assert Provider(issuer.name).key("one")


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"issuer": "https://other.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
    ],
)
def test_metadata_of_another_issuer_is_refused(
    issuer: OutsideIssuer, metadata: dict[str, Any], why: str
) -> None:
    """RFC 8414, section 3.3: the name must be exactly the one that was looked up."""
    issuer.metadata = metadata

    with closing(Line()) as line, pytest.raises(ExchangeFailed, match=why):
        fetch_metadata(line, issuer.name)


@pytest.mark.parametrize(
    "uri", [None, "http://gateway.example/jwks", "file:///etc/passwd", "https://a@b.example/", 7, "//x"]
)
def test_keys_are_fetched_by_https_or_from_this_machine(issuer: OutsideIssuer, uri: object) -> None:
    """Metadata that names another kind of place is refused before anything is asked there."""
    issuer.metadata = {"jwks_uri": uri}

    with closing(Line()) as line, pytest.raises(ExchangeFailed, match="no usable jwks_uri"):
        fetch_published(line, issuer.name, None, ("ES256",))


def test_an_issuer_elsewhere_cannot_point_at_this_machine() -> None:
    """Plain http is for an issuer on this machine: another one must not make us ask what listens here (SSRF)."""
    here, there = "http://127.0.0.1:8500/v1/kv", "https://keys.example/jwks"
    metadata = {"issuer": "https://idp.example", "jwks_uri": here, "token_endpoint": there}

    with pytest.raises(ExchangeFailed, match="no usable jwks_uri"):
        endpoint_of(metadata, "jwks_uri")

    assert endpoint_of(metadata, "token_endpoint") == there
    assert endpoint_of(metadata | {"issuer": "http://127.0.0.1:9000"}, "jwks_uri") == here


def test_keys_come_over_tls_that_the_operator_s_authority_vouches_for(tmp_path: Path) -> None:
    """`ca_file`: with it the issuer is believed; by another authority, or under another name, it is not."""
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    pair = authority.pair("localhost")
    with issuing(tls=(str(pair.certificate), str(pair.key))) as issuer:

        def keys(ca_file: Path | None, name: str) -> object:
            with closing(Line(str(ca_file or ""))) as line:
                uri = f"{name}/jwks"
                return fetch_published(line, name, uri, ("ES256",)).keys.keys()

        assert keys(authority.ca_file, issuer.name) == {"one"}
        for ca_file, name in (
            (other.ca_file, issuer.name),
            (None, issuer.name),
            (authority.ca_file, issuer.name.replace("localhost", "127.0.0.1")),
        ):
            with pytest.raises(ExchangeFailed, match="certificate is not accepted"):
                keys(ca_file, name)


# Keeping them


def test_keys_are_fetched_once_and_kept(issuer: OutsideIssuer, provider: Provider) -> None:
    """Not when the gateway starts, and not twice."""
    assert not issuer.asked

    found = [provider.key("one") for _ in range(100)]

    assert all(found)
    assert issuer.asked == {OPENID: 1, "/jwks": 1}
    assert provider.metadata()["issuer"] == issuer.name


@pytest.mark.parametrize(
    ("header", "age_s"),
    [
        (None, USUAL_AGE_S),
        ("max-age=1200, public", 1200),
        ("max-age=1", 60),
        ("no-store", 60),
        ("public, max-age=99999999", 86_400),
        ("max-age=x", USUAL_AGE_S),
    ],
)
def test_keys_are_refreshed_by_age_while_nobody_waits(
    issuer: OutsideIssuer, provider: Provider, clock: Seconds, header: str | None, age_s: float
) -> None:
    """The issuer's max-age counts within bounds (RFC 9111); the request that finds them old uses them."""
    issuer.jwks_headers = {"Cache-Control": header} if header else {}
    assert provider.key("one")

    clock.now += age_s - 1
    assert provider.key("one")
    assert issuer.asked["/jwks"] == 1
    clock.now += 1
    began = time.monotonic()
    with issuer.lock:  # it answers nobody
        assert provider.key("one")

    assert time.monotonic() - began < 5
    assert eventually(lambda: issuer.asked["/jwks"] == 2)


def test_a_key_that_the_issuer_removed_is_gone_after_the_refresh(
    issuer: OutsideIssuer, provider: Provider, clock: Seconds
) -> None:
    """Also when it removes all of them, as after a theft."""
    assert provider.key("one")
    issuer.keys = []

    clock.now += USUAL_AGE_S
    assert provider.key("one")  # and this starts the refresh

    assert eventually(lambda: provider.key("one") is None)


def test_stale_keys_serve_for_a_while_when_the_issuer_is_away(
    issuer: OutsideIssuer, provider: Provider, clock: Seconds
) -> None:
    """For an hour beyond their age; then nobody can say whether a token is good."""
    assert provider.key("one")
    issuer.answers["/jwks"] = (503, {}, b"")

    clock.now += USUAL_AGE_S + STALE_S - 1
    assert provider.key("one")
    assert eventually(lambda: issuer.asked["/jwks"] == 2)
    clock.now += LONGEST_BACK_OFF_S

    with pytest.raises(IssuerAway):
        provider.key("one")


def test_an_issuer_that_comes_back_is_used_again(
    issuer: OutsideIssuer, provider: Provider, clock: Seconds
) -> None:
    """Down at the start; the wait between two tries doubles up to a minute, and nothing is asked in between."""
    issuer.answers["/jwks"] = (503, {}, b"")
    waits = []
    for _ in range(9):
        with pytest.raises(IssuerAway):
            provider.key("one")
        asked, began = issuer.asked["/jwks"], clock.now
        while issuer.asked["/jwks"] == asked:
            clock.now += 0.5
            with pytest.raises(IssuerAway):
                provider.key("one")
        waits.append(clock.now - began)
    del issuer.answers["/jwks"]
    clock.now += LONGEST_BACK_OFF_S

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert provider.key("one")


# Following them


def test_a_new_key_is_followed_at_once(issuer: OutsideIssuer, provider: Provider, clock: Seconds) -> None:
    """A token with a key that is not known makes the gateway look again, without a restart."""
    assert provider.key("one")
    issuer.keys.append(new_key("two"))
    clock.now += AGAIN_S

    assert provider.key("two")
    assert issuer.asked["/jwks"] == 2


def test_a_thousand_made_up_key_names_cost_one_fetch(
    issuer: OutsideIssuer, provider: Provider, clock: Seconds
) -> None:
    """And one more each ten seconds: no stranger decides how often the issuer is asked."""
    assert provider.key("one")

    for _ in range(1000):
        assert provider.key(str(uuid4())) is None
    clock.now += AGAIN_S
    for _ in range(1000):
        assert provider.key(str(uuid4())) is None

    assert issuer.asked["/jwks"] == 2
    assert provider.key("one")


def test_many_threads_at_once_cost_one_fetch(issuer: OutsideIssuer, provider: Provider) -> None:
    """One flies, the others wait for it."""
    issuer.delay_s = 0.05

    with ThreadPoolExecutor(MOST_WAITING) as pool:
        found = list(pool.map(lambda _: provider.key("one"), range(MOST_WAITING)))

    assert all(found)
    assert issuer.asked["/jwks"] == 1


def test_while_the_issuer_is_away_a_new_key_is_not_called_wrong(
    issuer: OutsideIssuer, provider: Provider, clock: Seconds
) -> None:
    """503 and not 401: its token may be as good as any."""
    assert provider.key("one")
    issuer.answers["/jwks"] = (503, {}, b"")
    clock.now += AGAIN_S

    with pytest.raises(IssuerAway):
        provider.key("two")
    assert provider.key("one")


def test_a_jwt_that_names_no_key_goes_with_the_only_one(
    issuer: OutsideIssuer, provider: Provider, clock: Seconds
) -> None:
    """ID tokens may (OpenID Connect Core, section 10.1); a change of that key is followed, and two keys are none."""
    provider.verify(read_jwt(sign(issuer.keys[0], {}, kid=None)))
    strange = read_jwt(sign(new_key("one"), {}, kid=None))
    for _ in range(100):
        with pytest.raises(BadJwt):
            provider.verify(strange)
    assert issuer.asked["/jwks"] == 1
    issuer.keys = [new_key("two")]
    clock.now += AGAIN_S

    provider.verify(read_jwt(sign(issuer.keys[0], {}, kid=None)))
    issuer.keys.append(new_key("three"))
    clock.now += USUAL_AGE_S + STALE_S

    with pytest.raises(BadJwt):
        provider.verify(read_jwt(sign(issuer.keys[0], {}, kid=None)))


# An issuer in trouble


def test_an_issuer_that_hangs_holds_up_few(issuer: OutsideIssuer, provider: Provider) -> None:
    """Beyond eight waiting threads nobody waits."""
    many = MOST_WAITING * 3

    with ThreadPoolExecutor(many) as pool:
        with issuer.lock:  # it answers nobody
            asking = [pool.submit(provider.key, "one") for _ in range(many)]
            at_once = list(islice(as_completed(asking, timeout=10), many - MOST_WAITING))
        failures = [one.exception() for one in asking]

    assert all(isinstance(one.exception(), IssuerAway) for one in at_once)
    assert failures.count(None) == MOST_WAITING
    assert issuer.asked[OPENID] == 1


def test_an_issuer_that_hangs_holds_up_nobody_for_long(
    issuer: OutsideIssuer, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is given up before the exchange is."""
    monkeypatch.setattr("gateway.auth.issuers.keys.PATIENCE_S", 0.3)
    began = time.monotonic()

    with issuer.lock, pytest.raises(IssuerAway):
        provider.key("one")

    assert time.monotonic() - began < 10


def _redirect(issuer: OutsideIssuer) -> None:
    issuer.answers["/jwks"] = (302, {"Location": f"{issuer.url}/elsewhere"}, b"")


def _too_long(issuer: OutsideIssuer) -> None:
    issuer.answers["/jwks"] = (200, {}, b'{"keys": []}' + b" " * LONGEST_ANSWER)


def _many_keys(issuer: OutsideIssuer) -> None:
    issuer.answers["/jwks"] = (200, {}, json.dumps({"keys": [{}] * 129}).encode())


def _twice(issuer: OutsideIssuer) -> None:
    issuer.answers["/jwks"] = (200, {}, b'{"keys": [], "keys": []}')


def _trickle(issuer: OutsideIssuer) -> None:
    issuer.trickle_s = 0.05  # more than ten seconds for all of it


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (_redirect, "302"),
        (_too_long, "too long"),
        (_many_keys, "too many keys"),
        (_twice, "twice"),
        (lambda issuer: issuer.answers.update({"/jwks": (200, {}, b"<html>")}), "no JSON"),
        (lambda issuer: issuer.answers.update({"/jwks": (200, {}, b"[" * 100_000)}), "no JSON"),
        (lambda issuer: issuer.answers.update({"/jwks": (200, {}, b"[]")}), "no JSON object"),
        (lambda issuer: issuer.answers.update({"/jwks": (200, {}, b'{"keys": 7}')}), "no key set"),
        (lambda issuer: issuer.answers.update({"/jwks": (200, {"Content-Length": "99"}, b"{}")}), "in time"),
        (_trickle, "in time"),
    ],
    ids=["redirect", "long", "many", "twice", "html", "deep", "list", "number", "short", "trickle"],
)
def test_an_answer_in_trouble_ends_in_time_and_is_no_answer(
    issuer: OutsideIssuer, trouble: Callable[[OutsideIssuer], None], why: str
) -> None:
    """Whole exchanges have a deadline and a limit, and no redirect is followed."""
    trouble(issuer)
    timeout_s = 0.3 if why == "in time" else 10.0  # what comes at once must not be late on a busy machine
    began = time.monotonic()

    with closing(Line(timeout_s=timeout_s)) as line, pytest.raises(ExchangeFailed, match=why):
        fetch_published(line, issuer.name, f"{issuer.url}/jwks", ("ES256",))

    assert time.monotonic() - began < timeout_s + 4
    assert not issuer.asked["/elsewhere"]


def test_headers_that_trickle_end_in_time() -> None:
    """Each byte comes soon enough, and all of them together do not."""

    def trickle(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer, suppress(OSError):
            peer.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(100):
                peer.sendall(b"x")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server, closing(Line(timeout_s=0.3)) as line:
        thread = threading.Thread(target=trickle, args=(server,))
        thread.start()
        began = time.monotonic()

        with pytest.raises(ExchangeFailed, match="in time"):
            line.get(f"http://127.0.0.1:{server.getsockname()[1]}/jwks")

        assert time.monotonic() - began < 5
        thread.join()


def test_an_issuer_that_is_not_there_is_named_without_a_word_of_the_request() -> None:
    """What went wrong, for the log and the doctor."""
    with closing(Line()) as line, pytest.raises(ExchangeFailed, match="refused"):
        line.get("http://127.0.0.1:1/jwks?secret=x")


def test_a_host_that_no_resolver_takes_is_a_failed_exchange() -> None:
    """Metadata may name one: the thread that fetches must not die of it, nor a request be a 500."""
    with closing(Line()) as line, pytest.raises(ExchangeFailed):
        line.get(f"https://{'a' * 64}.example/jwks")
