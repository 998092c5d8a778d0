"""What `FLG_OPENID_PROVIDER` says: where people may sign in instead, and how this gateway proves itself there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gateway.auth.issuers.settings import check_url
from gateway.auth.jwk import OUTSIDE_ALGORITHMS
from gateway.config import Config
from gateway.errors import ConfigError

SETTING = "FLG_OPENID_PROVIDER"
_FORM = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
_SECRET = re.compile(r"[\x20-\x7e]{1,1024}")
Url = Annotated[str, StringConstraints(max_length=1024), AfterValidator(check_url)]
ClientId = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[\x20-\x7e]+$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")]


def _known(name: str) -> str:
    if name not in OUTSIDE_ALGORITHMS:
        raise ValueError(f"must be one of {', '.join(OUTSIDE_ALGORITHMS)}")
    return name


@dataclass(frozen=True, slots=True, config=_FORM)
class ProviderSettings:
    """An OpenID provider, and this gateway as its client.

    Args:
        issuer: its name, exactly as its metadata says it.
        client_id: what it calls this gateway.
        client_secret: the gateway's secret there; better in a file.
        client_secret_file: a file with that secret, read anew each time.
        name: what the button on the sign-in page calls it.
        scopes: what is asked for; `openid` is enough.
        algorithms: with which it may sign; RS256 is the rule at OpenID providers.
        ca_file: PEM file of the authorities for its certificate; empty: the machine's.
    """

    issuer: Url
    client_id: ClientId
    client_secret: str = field(default="", repr=False)
    client_secret_file: str = ""
    name: Annotated[str, StringConstraints(min_length=1, max_length=60)] = "your organisation"
    scopes: Annotated[tuple[Word, ...], Field(min_length=1, max_length=16)] = ("openid",)
    algorithms: Annotated[tuple[Annotated[str, AfterValidator(_known)], ...], Field(min_length=1)] = (
        OUTSIDE_ALGORITHMS
    )
    ca_file: str = ""

    def secret(self) -> str:
        """The secret.

        Raises:
            ConfigError: its file cannot be read, or does not hold one line.
        """
        if not self.client_secret_file:
            return self.client_secret
        try:
            found = Path(self.client_secret_file).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"{SETTING}: client_secret_file cannot be read") from None
        if not _SECRET.fullmatch(found):
            raise ConfigError(f"{SETTING}: client_secret_file must hold one line")
        return found


_FORMS = TypeAdapter(ProviderSettings)


def read_provider(config: Config) -> ProviderSettings | None:
    """The OpenID provider of the settings, or None.

    Raises:
        ConfigError: the setting is no JSON object, or a member is missing, unknown or has a bad value; it is named,
            and no value is repeated.
    """
    return _parsed(config.openid_provider)


@lru_cache(maxsize=4)
def _parsed(text: str) -> ProviderSettings | None:
    if not text.strip():
        return None
    try:
        json.loads(text, object_pairs_hook=_each_once)
        found = _FORMS.validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)[:3]
        raise ConfigError("; ".join(_told(fault) for fault in faults)) from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{SETTING} must be a JSON object with each member once") from None
    if bool(found.client_secret) is bool(found.client_secret_file):
        raise ConfigError(f"{SETTING} needs client_secret or client_secret_file, and not both")
    if "openid" not in found.scopes:
        raise ConfigError(f"{SETTING}.scopes must have openid")
    return found


def _told(fault: Mapping[str, Any]) -> str:
    place = "".join(f".{step}" for step in fault["loc"])
    return f"{SETTING}{place}: {fault['msg'].removeprefix('Value error, ')}"


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError
