"""Clients that act for people: the question, the code with PKCE, and refresh tokens (RFC 6749, 7636, 9207, 9700)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from refused.at_the_api import invalid_token
from refused.browsing import AUTHORIZE, REDIRECT, Pkce, consent, hidden_fields, new_pkce, wish
from refused.case import ACCESS_REFUSED, TOKEN_REFUSED, Ask, Case
from refused.scene import ISSUER, TOKEN, Scene, later

from gateway.auth.clients import Move, NewClient, move_client
from gateway.auth.people.accounts import Move as PersonMove
from gateway.auth.people.accounts import move_person

REUSED = "token.reused"
_FAMILY = frozenset({"authorization_codes", "tokens"})


# The question


def asked(scene: Scene, wished: dict[str, Any], method: str = "GET") -> Ask:
    """The browser of who is signed in, sent here by a client."""
    assert scene.browser
    return Ask(method, AUTHORIZE, {"query_string": wished, "base_url": ISSUER}, has_session=True)


def shown(section: str = "RFC 6749, 4.1.2.1", **other: Any) -> Case:
    """Nothing that an answer could be sent to: the person is told, and no redirect follows."""

    def of(scene: Scene) -> Ask:
        return asked(scene, _changed(wish(scene.tool().client_id, new_pkce()), other))

    return Case(section, 400, None, of, entry=ACCESS_REFUSED, reason="AUTHORIZATION_REQUEST_REFUSED")


def sent_back(error: str, section: str, **other: Any) -> Case:
    """The client hears of it, with the state and with who says so."""

    def of(scene: Scene) -> Ask:
        return asked(scene, _changed(wish(scene.tool().client_id, new_pkce()), other))

    return Case(section, 303, error, of, entry=ACCESS_REFUSED)


def _changed(wished: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (wished | other).items() if value is not None}


def to(redirect_uri: str) -> Case:
    """A redirect URI that is nearly the registered one."""
    return shown("RFC 9700, 2.1", redirect_uri=redirect_uri)


def _state_not_utf8(scene: Scene) -> Ask:
    """A byte that is no text: handed back as another text, it would be another state."""
    good = urlencode(wish(scene.tool().client_id, new_pkce()) | {"state": ""})
    return Ask(
        "GET", AUTHORIZE, {"query_string": f"{good}canary%FFcanary", "base_url": ISSUER}, has_session=True
    )


def _of_a_client_without_people(scene: Scene) -> Ask:
    return asked(scene, wish(scene.client().client_id, new_pkce()))


def _denied(scene: Scene) -> Ask:
    return _answered(scene, decision="deny")


def _answered(scene: Scene, base: dict[str, Any] | None = None, **other: str) -> Ask:
    """The form of the question, sent back."""
    wished = wish(scene.tool().client_id, new_pkce())
    page = scene.browser.get(AUTHORIZE, query_string=wished, base_url=ISSUER)
    form = hidden_fields(page.text) | {"decision": "allow"} | other
    return Ask("POST", AUTHORIZE, {"data": form, "base_url": ISSUER, **(base or {})}, has_session=True)


def _from_elsewhere(scene: Scene) -> Ask:
    return _answered(scene, {"headers": {"Origin": "https://evil.example"}})


def _forged() -> Case:
    return Case("RFC 6819, 4.4.1.10", 403, None, lambda scene: _answered(scene, form_token="canary-of-a-forged-one"),
                entry=ACCESS_REFUSED, reason="FORM_REFUSED")  # fmt: skip


# The code


def code_of(scene: Scene, new: NewClient, pkce: Pkce, **other: str) -> str:
    """A code that the person allowed the client, a moment ago."""
    return scene.code(consent(scene.browser, wish(new.client_id, pkce, **other), base_url=ISSUER))


def exchanged(scene: Scene, new: NewClient, shown: str, pkce: Pkce | str | None, **other: Any) -> Ask:
    """The client exchanges the code."""
    verifier = pkce.verifier if isinstance(pkce, Pkce) else pkce
    form = {
        "grant_type": "authorization_code",
        "code": shown,
        "redirect_uri": REDIRECT,
        "code_verifier": verifier,
    }
    return scene.ask(TOKEN, _changed(form, other), auth=(new.client_id, new.client_secret))


def with_code(error: str, section: str, **other: Any) -> Case:
    """A good exchange, but for what is given."""

    def of(scene: Scene) -> Ask:
        new, own = scene.tool(), new_pkce()
        return exchanged(scene, new, code_of(scene, new, own), own, **other)

    return Case(section, 400, error, of)


def good_exchange(scene: Scene) -> Ask:
    """A request that is granted."""
    new, pkce = scene.tool(), new_pkce()
    return exchanged(scene, new, code_of(scene, new, pkce), pkce)


def _reused(scene: Scene) -> Ask:
    ask = good_exchange(scene)
    assert scene.send(ask).status_code == 200
    return ask


def _of_another(scene: Scene) -> Ask:
    pkce = new_pkce()
    return exchanged(scene, scene.tool(), code_of(scene, scene.tool(), pkce), pkce)


def _too_late(scene: Scene) -> Ask:
    ask = good_exchange(scene)
    scene.clock.advance(later(seconds=61))
    return ask


def _of_a_plain_challenge(scene: Scene) -> Ask:
    """Who saw the challenge shows it as the verifier, as `plain` would have it."""
    new, pkce = scene.tool(), new_pkce()
    return exchanged(scene, new, code_of(scene, new, pkce), pkce.challenge)


def _other_redirect(scene: Scene) -> Ask:
    """Another URI that is registered too."""
    other, pkce = f"{REDIRECT}/other", new_pkce()
    new = scene.tool(REDIRECT, other)
    return exchanged(scene, new, code_of(scene, new, pkce), pkce, redirect_uri=other)


def _without_people(scene: Scene) -> Ask:
    return exchanged(scene, scene.client(), "flg_code_canary-of-a-code", new_pkce())


def _after_suspension(scene: Scene) -> Ask:
    new, pkce = scene.tool(), new_pkce()
    ask = exchanged(scene, new, code_of(scene, new, pkce), pkce)
    move_person(scene.services, scene.user_id, PersonMove.SUSPEND)
    move_person(scene.services, scene.user_id, PersonMove.RESUME)
    return ask


# Refresh tokens


def refresh_token_of(scene: Scene, new: NewClient, **other: str) -> str:
    """A refresh token that was never used."""
    pkce = new_pkce()
    answer = scene.send(exchanged(scene, new, code_of(scene, new, pkce, **other), pkce)).get_json()
    scene.canary(answer["access_token"])
    return scene.canary(str(answer["refresh_token"]))


def refreshed(scene: Scene, new: NewClient, token: str | None, **other: str) -> Ask:
    form = _changed({"grant_type": "refresh_token", "refresh_token": token}, other)
    return scene.ask(TOKEN, form, auth=(new.client_id, new.client_secret))


def good_refresh(scene: Scene, **other: str) -> Ask:
    """A request that is granted."""
    new = scene.tool()
    return refreshed(scene, new, refresh_token_of(scene, new), **other)


def _refreshed_in_the_url_too(scene: Scene) -> Ask:
    ask = good_refresh(scene)
    told = {"refresh_token": ask.sent["data"]["refresh_token"]}
    return Ask(ask.method, ask.path, ask.sent | {"query_string": told})


def _refreshed_twice(scene: Scene) -> Ask:
    ask = good_refresh(scene)
    assert scene.send(ask).status_code == 200
    return ask


def _refreshed_by_another(scene: Scene) -> Ask:
    return refreshed(scene, scene.tool(), refresh_token_of(scene, scene.tool()))


def _refreshed_too_late(scene: Scene) -> Ask:
    ask = good_refresh(scene)
    scene.clock.advance(later(seconds=scene.services.config.refresh_ttl_s + 1))
    return ask


def _access_token_in_its_place(scene: Scene) -> Ask:
    new = scene.tool()
    return refreshed(scene, new, scene.token(new))


def _refreshed_after_revocation(scene: Scene) -> Ask:
    new = scene.tool()
    token = refresh_token_of(scene, new)
    scene.send(scene.ask("/oauth/revoke", {"token": token}, auth=(new.client_id, new.client_secret)))
    return refreshed(scene, new, token)


def _refreshed_after_suspension(scene: Scene) -> Ask:
    ask = good_refresh(scene)
    move_person(scene.services, scene.user_id, PersonMove.SUSPEND)
    move_person(scene.services, scene.user_id, PersonMove.RESUME)
    return ask


def _of_a_revoked_client(scene: Scene) -> Ask:
    new = scene.tool()
    ask = refreshed(scene, new, refresh_token_of(scene, new))
    move_client(scene.services, new.client_id, Move.REVOKE)
    return ask


def refused(of: Callable[[Scene], Ask], section: str, **more: Any) -> Case:
    return Case(section, 400, "invalid_grant", of, **more)


def _suspended_person_s_token(scene: Scene) -> Ask:
    new, pkce = scene.tool(), new_pkce()
    answer = scene.send(exchanged(scene, new, code_of(scene, new, pkce), pkce)).get_json()
    token = scene.canary(answer["access_token"])
    assert scene.send(scene.ask_api(token)).status_code == 200
    move_person(scene.services, scene.user_id, PersonMove.SUSPEND)
    move_person(scene.services, scene.user_id, PersonMove.RESUME)
    return scene.ask_api(token)


_INJECTED = "RFC 9700, 4.5"
_ONCE = "RFC 6749, 4.1.2"
_PKCE = "RFC 7636, 4.6"
_ROTATED = "RFC 9700, 4.14.2"

CASES = {
    "an unknown client asks a person": shown(client_id="00000000-0000-4000-8000-000000000000"),
    "a client without redirect URIs asks a person": Case(
        "RFC 6749, 3.1.2.2",
        400,
        None,
        _of_a_client_without_people,
        entry=ACCESS_REFUSED,
        reason="AUTHORIZATION_REQUEST_REFUSED",
    ),
    "no redirect_uri": shown("RFC 6749, 3.1.2.3", redirect_uri=None),
    "two redirect_uri": shown("RFC 6749, 3.1", redirect_uri=[REDIRECT, REDIRECT]),
    "another redirect_uri": to("https://evil.example/"),
    "a redirect_uri that begins with the registered one": to(f"{REDIRECT}/more"),
    "the beginning of the registered one": to(REDIRECT.rpartition("/")[0]),
    "a redirect_uri with a slash more": to(f"{REDIRECT}/"),
    "a redirect_uri in another case": to(REDIRECT.replace("tool", "Tool")),
    "a redirect_uri with a port": to(REDIRECT.replace(".example", ".example:443")),
    "a redirect_uri with a fragment": to(f"{REDIRECT}#here"),
    "a redirect_uri with a query": to(f"{REDIRECT}?next=https://evil.example"),
    "a redirect_uri with a user": to(REDIRECT.replace("//", "//evil.example@")),
    "a redirect_uri with dots": to(f"{REDIRECT}/../sign-in"),
    "a redirect_uri written with percents": to(REDIRECT.replace("sign", "%73ign")),
    "a redirect_uri over http": to(REDIRECT.replace("https", "http")),
    "the implicit grant": sent_back("unsupported_response_type", "RFC 9700, 2.1.2", response_type="token"),
    "a hybrid of code and token": sent_back(
        "unsupported_response_type", "RFC 9700, 2.1.2", response_type="code token"
    ),
    "an id_token": sent_back("unsupported_response_type", "RFC 6749, 3.1.1", response_type="id_token"),
    "no response_type": sent_back("invalid_request", "RFC 6749, 3.1.1", response_type=None),
    "an answer in the fragment": sent_back("invalid_request", "RFC 9700, 2.1.2", response_mode="fragment"),
    "no code_challenge": sent_back("invalid_request", "RFC 9700, 2.1.1", code_challenge=None),
    "PKCE downgraded to plain": sent_back(
        "invalid_request", "RFC 9700, 2.1.1", code_challenge_method="plain"
    ),
    "no code_challenge_method, which means plain": sent_back(
        "invalid_request", "RFC 7636, 4.3", code_challenge_method=None
    ),
    "a code_challenge that is too short": sent_back(
        "invalid_request", "RFC 7636, 4.2", code_challenge="short"
    ),
    "an unknown scope at the question": sent_back("invalid_scope", "RFC 6749, 4.1.2.1", scope="canary:scope"),
    "a scope beyond the client's role at the question": sent_back(
        "invalid_scope", "RFC 6749, 4.1.2.1", scope="audit:read"
    ),
    "a parameter given twice at the question": sent_back(
        "invalid_request", "RFC 6749, 3.1", scope=["round:manage", "client:manage"]
    ),
    "a state that is not UTF-8": Case(
        "RFC 6749, appendix B", 400, None, _state_not_utf8, entry=ACCESS_REFUSED, reason="INVALID_REQUEST"
    ),
    "a blank for a scope at the question": sent_back("invalid_scope", "RFC 6749, 3.3", scope=" "),
    "the person says no": Case("RFC 6749, 4.1.2.1", 303, "access_denied", _denied, entry=ACCESS_REFUSED),
    "a forged answer of the person": _forged(),
    "an answer sent by another site": Case(
        "RFC 6819, 4.4.1.10", 403, None, _from_elsewhere, entry=ACCESS_REFUSED, reason="FORM_REFUSED"
    ),
    "a code exchanged twice": refused(_reused, _ONCE, changes=_FAMILY, alarm=REUSED),
    "an unknown code": with_code("invalid_grant", "RFC 6749, 5.2", code="flg_code_canary-of-nobody"),
    "no code": with_code("invalid_request", "RFC 6749, 4.1.3", code=None),
    "a code without end": with_code("invalid_grant", "RFC 6749, 5.2", code="canary" * 1000),
    "a code of another client": refused(_of_another, _INJECTED),
    "a code whose minute is over": refused(_too_late, _ONCE),
    "an exchange without redirect_uri": with_code("invalid_grant", "RFC 6749, 4.1.3", redirect_uri=None),
    "an exchange for another redirect_uri": with_code(
        "invalid_grant", "RFC 6749, 4.1.3", redirect_uri="https://evil.example/"
    ),
    "an exchange for another registered redirect_uri": refused(_other_redirect, "RFC 6749, 4.1.3"),
    "no code_verifier": with_code("invalid_request", "RFC 7636, 4.5", code_verifier=None),
    "a wrong code_verifier": with_code("invalid_grant", _PKCE, code_verifier="canary-of-a-verifier-" * 3),
    "the challenge as code_verifier": refused(_of_a_plain_challenge, _PKCE),
    "a code_verifier that is too short": with_code(
        "invalid_request", "RFC 7636, 4.1", code_verifier="canary-short"
    ),
    "a code_verifier with other characters": with_code(
        "invalid_request", "RFC 7636, 4.1", code_verifier="canary ü " * 8
    ),
    "a client without redirect URIs exchanges a code": Case(
        "RFC 6749, 5.2", 400, "unauthorized_client", _without_people
    ),
    "a code of a person who was suspended since": refused(_after_suspension, "RFC 6749, 5.2"),
    "a refresh token used twice": refused(_refreshed_twice, _ROTATED, changes=_FAMILY, alarm=REUSED),
    "a refresh token of another client": refused(_refreshed_by_another, "RFC 6749, 6"),
    "a refresh token whose time is over": refused(_refreshed_too_late, "RFC 6749, 5.2"),
    "a revoked refresh token": refused(_refreshed_after_revocation, "RFC 7009, 2.1"),
    "a refresh token of a person who was suspended since": refused(
        _refreshed_after_suspension, "RFC 6749, 5.2"
    ),
    "a refresh token of a revoked client": Case(
        "RFC 6749, 5.2",
        401,
        "invalid_client",
        _of_a_revoked_client,
        'Basic realm="fl-gateway", charset="UTF-8"',
        TOKEN_REFUSED,
        "CLIENT_NOT_ACTIVE",
    ),
    "an unknown refresh token": refused(
        lambda scene: refreshed(scene, scene.tool(), "flg_refresh_canary-of-nobody"), "RFC 6749, 5.2"
    ),
    "an access token as a refresh token": refused(_access_token_in_its_place, "RFC 6749, 5.2"),
    "no refresh token": Case(
        "RFC 6749, 6", 400, "invalid_request", lambda scene: refreshed(scene, scene.tool(), None)
    ),
    "a refresh token in the URL, beside the form": Case(
        "RFC 6749, 3.2", 400, "invalid_request", _refreshed_in_the_url_too
    ),
    "more scope than the person allowed": Case(
        "RFC 6749, 6",
        400,
        "invalid_scope",
        lambda scene: good_refresh(scene, scope="client:manage audit:read"),
    ),
    "a blank for a scope of a refresh": Case(
        "RFC 6749, 3.3", 400, "invalid_scope", lambda scene: good_refresh(scene, scope=" ")
    ),
    "a refresh token at the API": invalid_token(
        lambda scene: scene.ask_api(refresh_token_of(scene, scene.tool())), "RFC 6749, 1.5"
    ),
    "a code at the API": invalid_token(
        lambda scene: scene.ask_api(code_of(scene, scene.tool(), new_pkce())), "RFC 6750, 3.1"
    ),
    "a token of a person who was suspended since": invalid_token(_suspended_person_s_token),
}
