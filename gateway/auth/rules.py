"""Who may do what, in one table: each route's proof, scopes, owner and limit; what is not in it is served to nobody.

The door (`gateway.auth.admission`), the OpenAPI document's security and docs/authorisation.md are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from flask import Flask, current_app, request

from gateway.auth.scopes import Scope
from gateway.services import current_services

EXTENSION = "fl_gateway_rules"


class Proof(StrEnum):
    """What the sender of a request proves itself with.

    A token, and a person where scopes are named, are checked at the door; the others by the view.
    """

    TOKEN = "token"  # noqa: S105 - a kind of proof
    CLIENT = "client"
    PERSON = "person"
    NONE = "none"


class Owner(StrEnum):
    """Whose objects a route shows or changes; another's answer 404, since the query itself names the owner."""

    EVERYONE = "everyone"
    OWN_CLIENT = "own client"
    OWN_UPDATES = "own updates"
    OWN_INVITATIONS = "own invitations"
    OWN_ANSWERS = "own answers"
    OWN_TOKENS = "own tokens"
    OWN_ACCOUNT = "own account"


class LimitClass(StrEnum):
    """What `FLG_RATE_LIMITS` names: the first four count a client's requests, the others failed proofs."""

    MODELS = "models"
    UPDATES = "updates"
    ROUNDS = "rounds"
    REGISTER = "register"
    AUTH_FAILURES = "auth_failures"
    AUTH_ADDRESSES = "auth_addresses"
    SIGN_INS = "sign_ins"
    ACCOUNT_SIGN_INS = "account_sign_ins"
    ACCOUNT_CODES = "account_codes"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its caller.

    Args:
        proof: what the caller proves itself with.
        scopes: a token, or a person, with any of these may pass.
        owner: whose objects it shows or changes.
        limit: the class that counts its requests.
        open_by: the setting that lets everybody pass, without a token.
    """

    proof: Proof
    scopes: tuple[Scope, ...] = ()
    owner: Owner = Owner.EVERYONE
    limit: LimitClass | None = None
    open_by: str | None = None

    def scopes_needed(self) -> tuple[Scope, ...]:
        """The scopes that count under this application's settings; none: no token is looked at."""
        is_open = self.open_by is not None and bool(getattr(current_services().config, self.open_by))
        return () if is_open else self.scopes


class RouteWithoutRule(RuntimeError):
    """Routes that have no row in the table: who adds a route says who may call it."""

    def __init__(self, endpoints: list[str]) -> None:
        super().__init__(f"add a row to RULES of gateway/auth/rules.py for: {', '.join(sorted(endpoints))}")


def _page(*scopes: Scope) -> Rule:
    return Rule(Proof.PERSON, scopes)


def _token(
    *scopes: Scope, owner: Owner = Owner.EVERYONE, limit: LimitClass | None = None, open_by: str | None = None
) -> Rule:
    return Rule(Proof.TOKEN, scopes, owner, limit, open_by)


_OPEN = Rule(Proof.NONE)
_CLIENT = Rule(Proof.CLIENT)
_PERSON = Rule(Proof.PERSON, owner=Owner.OWN_ACCOUNT)
_OPERATOR = _token(Scope.ROUND_MANAGE)
_CLIENTS = _token(Scope.CLIENT_MANAGE)
_LOG = _token(Scope.AUDIT_READ)
_PUBLISHED = _token(Scope.AUDIT_READ, open_by="tlog_public")
_ROUNDS = _token(Scope.TRAINING_PARTICIPATE, Scope.ROUND_MANAGE, limit=LimitClass.ROUNDS)
_OWN_UPDATE = _token(Scope.TRAINING_PARTICIPATE, owner=Owner.OWN_UPDATES)
_CASES = _token(Scope.PRIVACY_EXPORT, Scope.PRIVACY_ERASE, Scope.PRIVACY_MANAGE)
_HOLDS = _token(Scope.PRIVACY_HOLD)
_EVIDENCE = _token(Scope.AUDIT_READ, Scope.PRIVACY_EXPORT)
_DESK = _page(Scope.PRIVACY_EXPORT, Scope.PRIVACY_ERASE, Scope.PRIVACY_MANAGE)

RULES: Mapping[str, Rule] = {
    "health.show_health": _OPEN,
    "health.show_ready": _OPEN,
    "health.show_openapi": _OPEN,
    "metrics.show_metrics": _OPEN,
    "well_known.show_authorization_server": _OPEN,
    "well_known.show_protected_resource": _OPEN,
    "well_known.show_authorization_server_of": _OPEN,
    "well_known.show_protected_resource_of": _OPEN,
    "well_known.show_keys": _OPEN,
    "authorization.ask": Rule(Proof.PERSON),
    "authorization.answer": Rule(Proof.PERSON),
    "oauth.issue_token": _CLIENT,
    "oauth.revoke_token": Rule(Proof.CLIENT, owner=Owner.OWN_TOKENS),
    "oauth.introspect_token": Rule(Proof.CLIENT, owner=Owner.OWN_TOKENS),
    "clients.register": _token(Scope.CLIENT_REGISTER, owner=Owner.OWN_ANSWERS, limit=LimitClass.REGISTER),
    "clients.put_public_key": _token(
        Scope.TRAINING_PARTICIPATE, owner=Owner.OWN_CLIENT, limit=LimitClass.REGISTER
    ),
    "clients.show_clients": _CLIENTS,
    "clients.show_client": _CLIENTS,
    "clients.revoke_client": _CLIENTS,
    "rounds.show_rounds": _ROUNDS,
    "rounds.show_current": _ROUNDS,
    "rounds.show_round": _ROUNDS,
    "rounds.create_round": _OPERATOR,
    "rounds.close": _OPERATOR,
    "round_control.pause_round": _OPERATOR,
    "round_control.resume_round": _OPERATOR,
    "round_control.extend_round": _OPERATOR,
    "round_control.show_intake": _OPERATOR,
    "round_control.stop": _OPERATOR,
    "round_control.start_again": _OPERATOR,
    "invitations.show_invitations": _token(
        Scope.TRAINING_PARTICIPATE, owner=Owner.OWN_INVITATIONS, limit=LimitClass.ROUNDS
    ),
    "updates.send_update": _token(
        Scope.TRAINING_PARTICIPATE, owner=Owner.OWN_ANSWERS, limit=LimitClass.UPDATES
    ),
    "updates.show_update": _OWN_UPDATE,
    "updates.show_receipt": _OWN_UPDATE,
    "models.register_model": _OPERATOR,
    "models.promote_model": _OPERATOR,
    "models.show_models": _token(Scope.MODEL_DOWNLOAD, Scope.ROUND_MANAGE),
    "models.download_model": _token(Scope.MODEL_DOWNLOAD, Scope.ROUND_MANAGE, limit=LimitClass.MODELS),
    "audit.show_entries": _LOG,
    "audit.show_entry": _LOG,
    "audit.show_checkpoint": _LOG,
    "audit.show_inclusion": _LOG,
    "audit.show_consistency": _LOG,
    "audit.download_bundle": _LOG,
    "audit_stream.show_stream": _LOG,
    "revealing.reveal_entry": _token(Scope.AUDIT_REVEAL),
    "tlog.show_checkpoint": _PUBLISHED,
    "tlog.show_tile": _PUBLISHED,
    "console.show_home": _PERSON,
    "console.show_sign_in": _OPEN,
    "console.send_sign_in": _OPEN,
    "console.send_sign_out": _PERSON,
    "static.show_static": _OPEN,
    "console_rounds.show_rounds": _page(Scope.ROUND_MANAGE),
    "console_rounds.show_round": _page(Scope.ROUND_MANAGE),
    "console_rounds.move": _page(Scope.ROUND_MANAGE),
    "console_clients.show_clients": _page(Scope.CLIENT_MANAGE),
    "console_clients.show_client": _page(Scope.CLIENT_MANAGE),
    "console_clients.move": _page(Scope.CLIENT_MANAGE),
    "console_models.show_models": _page(Scope.ROUND_MANAGE, Scope.AUDIT_READ, Scope.PRIVACY_EXPORT),
    "console_log.show_log": _page(Scope.AUDIT_READ),
    "console_log.show_entry": _page(Scope.AUDIT_READ),
    "console_log.show_proof": _page(Scope.AUDIT_READ),
    "console_log.send_reveal": _page(Scope.AUDIT_REVEAL),
    "console_requests.show_requests": _DESK,
    "console_requests.show_new": _DESK,
    "console_requests.send_new": _DESK,
    "console_requests.show_request": _DESK,
    "console_requests.send_reveal": _page(Scope.PRIVACY_MANAGE),
    "console_requests.send_move": _page(Scope.PRIVACY_MANAGE),
    "console_requests.download_package": _page(Scope.PRIVACY_EXPORT),
    "console_requests.make_link": _page(Scope.PRIVACY_EXPORT),
    "console_requests.download_statement": _DESK,
    "console_requests.download_receipt": _page(Scope.PRIVACY_ERASE),
    "console_requests.download_proof": _page(Scope.PRIVACY_ERASE),
    "console_requests.hand_over_key": _page(Scope.PRIVACY_ERASE),
    "console_holds.show_holds": _page(Scope.PRIVACY_HOLD),
    "console_holds.show_new": _page(Scope.PRIVACY_HOLD),
    "console_holds.send_new": _page(Scope.PRIVACY_HOLD),
    "console_holds.show_hold": _page(Scope.PRIVACY_HOLD),
    "console_holds.send_move": _page(Scope.PRIVACY_HOLD),
    "console_health.show_health": _page(Scope.ROUND_MANAGE, Scope.AUDIT_READ),
    "provider.show_provider": _OPEN,
    "provider.show_return": _OPEN,
    "privacy.open_request": _CASES,
    "privacy.show_requests": _CASES,
    "privacy.show_request": _CASES,
    "privacy.show_statement": _CASES,
    "packages.download_package": _token(Scope.PRIVACY_EXPORT),
    "packages.make_link": _token(Scope.PRIVACY_EXPORT),
    "links.show_link": _OPEN,
    "links.fetch_by_link": _OPEN,
    "erasures.show_receipt": _token(Scope.PRIVACY_ERASE),
    "erasures.show_proof": _token(Scope.PRIVACY_ERASE),
    "erasures.hand_over_key": _token(Scope.PRIVACY_ERASE),
    "privacy.move_request": _token(Scope.PRIVACY_MANAGE),
    "restrictions.lift": _token(Scope.PRIVACY_MANAGE),
    "holds.place_hold": _HOLDS,
    "holds.show_holds": _HOLDS,
    "holds.show_hold": _HOLDS,
    "holds.review_hold": _HOLDS,
    "holds.release_hold": _HOLDS,
    "evidence.show_budget": _EVIDENCE,
    "evidence.show_report": _EVIDENCE,
    "evidence.show_records": _EVIDENCE,
}


def install_rules(app: Flask) -> None:
    """Give the application the table."""
    app.extensions[EXTENSION] = dict(RULES)


def check_rules(app: Flask) -> None:
    """Refuse to start with a route that nobody made a rule for.

    Raises:
        RouteWithoutRule: there is one.
    """
    if missing := {rule.endpoint for rule in app.url_map.iter_rules()} - rules_of(app).keys():
        raise RouteWithoutRule(list(missing))


def rules_of(app: Flask) -> dict[str, Rule]:
    """The application's table; a test that adds a route adds its row here."""
    rules: dict[str, Rule] = app.extensions[EXTENSION]
    return rules


def rule_in_force() -> Rule:
    """The rule of the route that this request is for.

    Raises:
        RouteWithoutRule: it has none, and is served to nobody.
    """
    rule = rules_of(current_app).get(request.endpoint or "")
    if rule is None:
        raise RouteWithoutRule([request.endpoint or "no route"])
    return rule
