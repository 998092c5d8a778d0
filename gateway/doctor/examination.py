"""Every check with the settings that it answers for; a test holds the list against all settings there are."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditError
from compliance.errors import ComplianceError
from gateway.config import Config
from gateway.doctor import (
    issuers,
    keys,
    notices,
    provider,
    published,
    rights,
    settings,
    sinks,
    stores,
    witnesses,
)
from gateway.doctor.errors import Ailing, Passed, Risky
from gateway.errors import GatewayError
from gateway.storage.database import kind_of


@dataclass(frozen=True, slots=True)
class Check:
    """One look: it says what is well, or raises with what to mend.

    Args:
        name: what is looked at.
        look: looks.
        answers_for: the settings, by their names in `Config`.
    """

    name: str
    look: Callable[[Config], str]
    answers_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `is_risky` warns of what works, and is less safe than it could be."""

    name: str
    is_good: bool
    said: str
    is_risky: bool = False


CHECKS = (
    Check(
        "database",
        stores.database,
        (
            "database_url",
            "sequencer_database_url",
            "owner_database_url",
            "database_pool",
            "statement_timeout_s",
        ),
    ),
    Check("rights", rights.database_rights, ("database_url", "sequencer_database_url")),
    Check("key store", stores.key_store, ("keystore_url",)),
    Check("state", stores.state, ("state_url", "log_origin")),
    Check("master key", keys.master_key, ("master_key", "kms_endpoint_url")),
    Check("log key", keys.log_key, ("log_key", "kms_endpoint_url")),
    Check(
        "blobs",
        stores.blobs,
        (
            "blob_url",
            "s3_endpoint_url",
            "s3_region",
            "s3_access_key_id",
            "s3_secret_access_key",
            "s3_encryption",
            "s3_kms_key_id",
        ),
    ),
    Check("published log", published.published_log, ("tlog_publish", "tlog_public")),
    Check("witnesses", witnesses.witnesses, ("witnesses", "witness_quorum", "witness_interval_s")),
    Check("queue", stores.queue, ("queue_url",)),
    Check("cache", stores.cache, ("cache_url", "cache_ttl_s", "cache_model_bytes", "model_download")),
    Check("SIEM sinks", sinks.siem_sinks, ("siem_sinks",)),
    Check("webhook", settings.webhook, ("webhook_url", "webhook_secret")),
    Check(
        "notices",
        notices.notices,
        ("notices", "notices_secret", "notices_smtp_password"),
    ),
    Check("privacy requests", settings.privacy_requests, ("timezone", "holidays", "erasure_approvals")),
    Check("retention", settings.retention, ("retention", "retention_apply")),
    Check("metrics", settings.metrics, ("metrics",)),
    Check("public URL", settings.public_url, ("public_url", "issuer")),
    Check("TLS front", settings.tls_front, ("trusted_proxy",)),
    Check("trusted issuers", issuers.trusted_issuers, ("trusted_issuers",)),
    Check("OpenID provider", provider.openid_provider, ("openid_provider",)),
    Check("rate limits", settings.rate_limits, ("rate_limits",)),
    Check("evaluation", settings.evaluation, ("evaluate", "evaluate_timeout_s")),
    Check(
        "certificates", settings.certificates, ("certificates_dir", "acme_server", "certificate_deploy_hook")
    ),
    Check(
        "aggregation",
        settings.aggregation,
        ("engine", "engine_threads", "controller", "dpo_contact", "crash_at"),
    ),
    Check("limits", settings.limits, settings.NUMBERS),
)


def examine(config: Config) -> list[Finding]:
    """Every check, one after the other; none of them stops the next."""
    return [_found(check, config) for check in CHECKS]


def _found(check: Check, config: Config) -> Finding:
    try:
        return Finding(check.name, True, check.look(config))
    except Passed as passed:
        return Finding(check.name, True, str(passed))
    except Risky as risk:
        return Finding(check.name, True, str(risk), is_risky=True)
    except (Ailing, GatewayError, AuditError, ComplianceError) as error:
        said = str(error)
    except SQLAlchemyError as error:
        said = f"it does not answer ({kind_of(error)}): look at {' and '.join(_names(check)[:1])}"
    except OSError as error:
        kind = errno.errorcode.get(error.errno or 0, type(error).__name__)
        said = f"a file or folder cannot be used ({kind}): look at {_names(check)[0]}"
    return Finding(check.name, False, said)


def _names(check: Check) -> list[str]:
    return [f"FLG_{name.upper()}" for name in check.answers_for]
