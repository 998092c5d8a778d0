"""The checks that need nobody else: forms, ranges, and what does not go together."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import fields
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.auth.fronts import parse_fronts
from gateway.auth.rate_limits import parse_limits
from gateway.config import Config
from gateway.desk_settings import approvals_of, calendar_of
from gateway.doctor.errors import Ailing
from gateway.messaging.webhook import check_webhook
from gateway.metrics.readers import parse_readers
from gateway.retention import terms_of

_ELSEWHERE = {
    "database_pool",
    "statement_timeout_s",
    "cache_ttl_s",
    "cache_model_bytes",
    "engine_threads",
    "erasure_approvals",
    "evaluate_timeout_s",
    "witness_quorum",
    "witness_interval_s",
}
NUMBERS = tuple(
    field.name for field in fields(Config) if field.type in ("int", "float") and field.name not in _ELSEWHERE
)
_HOOK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def webhook(config: Config) -> str:
    """Its URL and its secret can be used."""
    check_webhook(config)
    return "invitations are posted" if config.webhook_url else "none: clients ask for their invitations"


def metrics(config: Config) -> str:
    """Who may read the metrics can be read."""
    readers = parse_readers(config.metrics)
    if readers.are_all:
        return "everybody may read them"
    return f"shown to {config.metrics}" if readers.networks else "off"


def privacy_requests(config: Config) -> str:
    """The days that the clock of privacy requests counts, and how many approve an erasure."""
    calendar, approvals = calendar_of(config), approvals_of(config)
    days = "every day counts" if calendar.holidays is None else f"{len(calendar.holidays)} holidays"
    return f"terms in {config.timezone}, {days}; {approvals} approve an erasure"


def retention(config: Config) -> str:
    """The terms fit each other and what must be kept."""
    terms = terms_of(config.retention)
    if not terms:
        return "every kind of data is kept until its person is erased"
    told = ", ".join(f"{name} {term.most.days} days" for name, term in terms.items())
    return f"{told}; {'removed daily' if config.retention_apply else 'a dry run daily: FLG_RETENTION_APPLY is off'}"


def public_url(config: Config) -> str:
    """Absolute, and https unless it is this machine; the issuer as RFC 8414 wants it."""
    for name, url in (("FLG_PUBLIC_URL", config.public_url), ("FLG_ISSUER", config.issuer)):
        if url:
            _insist_url(name, url)
    if not config.public_url:
        return "empty: links are made from each request's host"
    has_front = config.trusted_proxy.strip().lower() not in ("", "false")
    if urlsplit(config.public_url).scheme == "https" and not has_front:
        raise Ailing(
            "FLG_PUBLIC_URL is https, and FLG_TRUSTED_PROXY is off: all clients look like the TLS front"
        )
    return config.public_url


def tls_front(config: Config) -> str:
    """Who is believed can be read, and is not everybody."""
    fronts = parse_fronts(config.trusted_proxy)
    if fronts.are_here:
        return "on this machine"
    if fronts.networks:
        return f"in {len(fronts.networks)} networks"
    return "none: nobody is believed about address, scheme and client certificate"


def rate_limits(config: Config) -> str:
    """They can be read."""
    where = "in Redis, for all replicas" if config.cache_url else "by each process for itself"
    return f"{len(parse_limits(config.rate_limits))} classes, counted {where}"


def evaluation(config: Config) -> str:
    """The hook's module can be found; it is not run."""
    if not config.evaluate:
        return "none: models get no accuracy"
    if not _HOOK.fullmatch(config.evaluate):
        raise Ailing("FLG_EVALUATE must have the form module:function")
    if config.evaluate_timeout_s <= 0:
        raise Ailing("FLG_EVALUATE_TIMEOUT_S must be more than 0")
    module = config.evaluate.partition(":")[0]
    try:
        is_there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise Ailing(
            f"FLG_EVALUATE names the module {module}, which Python does not find: look at PYTHONPATH"
        )
    return config.evaluate


def certificates(config: Config) -> str:
    """The ACME directory is https; the hook's program is there where certificates are renewed."""
    if urlsplit(config.acme_server).scheme != "https":
        raise Ailing("FLG_ACME_SERVER must be an https URL")
    program = config.certificate_deploy_hook.split(" ")[0]
    found = not program or shutil.which(program)
    return "ready" if found else f"{program} is not on this machine: nothing would take a renewed certificate"


def aggregation(config: Config) -> str:
    """An engine that there is, and no crash point left over from a test."""
    if config.engine != "local":
        raise Ailing("FLG_ENGINE must be local: this version carries out no other engine")
    if config.engine_threads < 1:
        raise Ailing("FLG_ENGINE_THREADS must be at least 1")
    if config.crash_at:
        raise Ailing("FLG_CRASH_AT is set: the process kills itself at that point, which is for tests alone")
    named = "" if config.controller else "; FLG_CONTROLLER is empty, and answers under Art. 15 name nobody"
    return f"local, {config.engine_threads} threads{named}"


def limits(config: Config) -> str:
    """No number is negative, and what must be more than nothing is."""
    may_be_nothing = {"blob_grace_s", "upload_grace_s", "upload_least_bytes_per_s"}
    for name in NUMBERS:
        value = getattr(config, name)
        if value < 0 or (value == 0 and name not in may_be_nothing):
            raise Ailing(f"FLG_{name.upper()} must be more than 0")
    if config.upload_threads + config.poll_threads >= config.web_threads:
        raise Ailing("FLG_WEB_THREADS must be more than FLG_UPLOAD_THREADS and FLG_POLL_THREADS together")
    return "in range"


def _insist_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise Ailing(f"{name} must be an absolute URL without query and fragment")
    if parts.scheme == "http" and not _is_here(parts.hostname):
        raise Ailing(f"{name} must be https: tokens would go over the line in clear")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
