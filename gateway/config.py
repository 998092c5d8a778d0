"""Every setting of the gateway, read once from `FLG_*`, `FLG_*_FILE` and `fl-gateway.toml`; nothing else reads them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic_core import SchemaValidator, ValidationError, core_schema

from gateway.errors import ConfigError

PREFIX = "FLG_"
_FORMS = {  # of pydantic_core itself: pydantic takes its time to load, and each command reads the settings
    "int": core_schema.int_schema(),
    "float": core_schema.float_schema(),
    "bool": core_schema.bool_schema(),
    "str": core_schema.str_schema(),
}


def _setting(default: Any, doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"doc": doc, "secret": secret})


@dataclass(frozen=True, slots=True)
class Config:
    """The settings, each under its environment name without `FLG_` and in lower case."""

    database_url: str = _setting("sqlite:///./fl-gateway.db", "Main database (SQLAlchemy URL)", secret=True)
    sequencer_database_url: str = _setting(
        "",
        "The same database for the sequencer, as a role that may write the log; empty: as above",
        secret=True,
    )
    owner_database_url: str = _setting(
        "", "The same database for `db upgrade` and `db grant`, as its owner; empty: as above", secret=True
    )
    database_pool: int = _setting(
        10, "Connections that a process keeps to PostgreSQL; as many again under load"
    )
    statement_timeout_s: float = _setting(60.0, "PostgreSQL ends a statement after this time; 0: never")
    blob_url: str = _setting(
        "file:./blobs", "Where updates and models are kept: `file:DIR` or `s3://BUCKET/PREFIX`"
    )
    s3_endpoint_url: str = _setting("", "S3 endpoint of another make than Amazon's; empty: Amazon's")
    s3_region: str = _setting("us-east-1", "S3 region")
    s3_access_key_id: str = _setting("", "S3 access key id; empty: boto3's own search", secret=True)
    s3_secret_access_key: str = _setting("", "S3 secret access key", secret=True)
    s3_encryption: str = _setting("", "Encryption by the S3 server: empty, `AES256` or `aws:kms`")
    s3_kms_key_id: str = _setting("", "Key of `aws:kms`; empty: the account's default")
    model_download: str = _setting(
        "proxy",
        "How model bytes go out: `proxy`, `accel` (nginx sends the file) or `redirect` (presigned S3 URL)",
    )
    queue_url: str = _setting(
        "", "RabbitMQ, `amqp://USER:PASSWORD@HOST/VHOST` or `amqps://…`; empty: the outbox table", secret=True
    )
    cache_url: str = _setting(
        "", "Redis, `redis://…` or `rediss://…`; empty: memory of each process", secret=True
    )
    cache_ttl_s: int = _setting(3600, "How long a model's bytes stay in Redis")
    cache_model_bytes: int = _setting(64 << 20, "Largest model that is kept in the cache")
    webhook_url: str = _setting("", "Where each invitation is posted to; empty: clients ask for theirs")
    webhook_secret: str = _setting("", "Key of the webhook's HMAC-SHA256 signature", secret=True)
    notices: str = _setting(
        "",
        "Who is told of deadlines, budgets, lags and certificates: `smtps://HOST?from=ADDRESS&to=ADDRESS`, `smtp://…`, "
        "`https://…`, parted by blanks; empty: nobody (docs/notices.md)",
        secret=True,
    )
    notices_secret: str = _setting(
        "", "Key of the HMAC-SHA256 signature of notices that go to a webhook", secret=True
    )
    notices_smtp_password: str = _setting(
        "", "Password of the mail server's user in `FLG_NOTICES`", secret=True
    )
    notices_siem_lag_s: float = _setting(
        900.0, "A SIEM sink whose next entry is older than this is told of in a notice"
    )
    metrics: str = _setting(
        "loopback",
        "Who may read `/metrics`: `loopback` (this machine), `public` (everybody), `off`, or networks, comma-separated",
    )
    dpo_contact: str = _setting("", "Contact of the data-protection officer, for the record of Art. 30")
    keystore_url: str = _setting(
        "sqlite:///./keys/subjects.db", "Key store, apart from the database", secret=True
    )
    state_url: str = _setting("file:./keys/state", "Facts that only grow and are never restored: `file:DIR`")
    master_key: str = _setting(
        "",
        "Master key: 64 hex digits, `file:PATH` or `aws-kms:KEY_ID`; while it is rotated, several parted by commas, "
        "the new one first; empty: `./keys/master.key` is made",
        secret=True,
    )
    engine: str = _setting("local", "Aggregation engine: `local` (threads of the worker)")
    engine_threads: int = _setting(2, "Threads of the local engine")
    issuer: str = _setting("", "Issuer of own tokens and receipts; empty: the public URL")
    public_url: str = _setting("", "Absolute URL of the gateway, for links outside HTTP answers")
    log_origin: str = _setting(
        "", "Origin line of checkpoints; empty: made at first start and kept in the state"
    )
    log_key: str = _setting(
        "", "Key that signs checkpoints: `file:PEM` or `aws-kms:KEY_ID`; empty: made in the key store"
    )
    kms_endpoint_url: str = _setting(
        "", "KMS endpoint of another make than Amazon's; empty: Amazon's, in `FLG_S3_REGION`"
    )
    tlog_publish: str = _setting(
        "", "Where the log is published as C2SP tiles: `file:DIR` or `s3://BUCKET/PREFIX`; empty: nowhere"
    )
    tlog_public: bool = _setting(False, "Let everybody read `/tlog/`; otherwise it needs `audit:read`")
    witnesses: str = _setting(
        "", "Comma-separated witnesses that cosign checkpoints, each `URL VKEY` (a blank between them)"
    )
    witness_quorum: int = _setting(
        1, "Cosignatures that a checkpoint must bear before it is published as witnessed"
    )
    witness_interval_s: float = _setting(
        1.0, "Pause between two checkpoints that witnesses are asked to cosign"
    )
    siem_sinks: str = _setting(
        "file:./siem.jsonl",
        "Comma-separated SIEM sinks: `file:PATH`, `syslog+tls://HOST:PORT`, `syslog+tcp://…`, `hec+https://…`, "
        "`elastic+https://…`, each with `?OPTION=…&…` (docs/siem.md)",
    )
    evaluate: str = _setting("", "The operator's evaluation of a model: `module:function`")
    evaluate_timeout_s: float = _setting(300.0, "Time limit of one evaluation")
    trusted_issuers: str = _setting(
        "",
        "Outside issuers whose tokens are taken: a JSON list of objects (docs/outside-issuers.md)",
        secret=True,
    )
    openid_provider: str = _setting(
        "", "OpenID provider through which people sign in: a JSON object (docs/people.md)", secret=True
    )
    token_ttl_s: int = _setting(900, "Life of an access token")
    refresh_ttl_s: int = _setting(
        86_400, "How long a tool may act for a person after each consent; refresh tokens end then"
    )
    registration_ttl_s: int = _setting(30 * 86_400, "Life of a registration token")
    tokens_per_client: int = _setting(100, "Live tokens of one client; a new one ends the oldest beyond it")
    session_ttl_s: int = _setting(8 * 3600, "A person signs in anew after this time")
    session_idle_s: int = _setting(1800, "A person who did nothing for this time signs in anew")
    rate_limits: str = _setting(
        "models=10/minute;updates=5/minute;rounds=20/minute;register=100/minute;auth_failures=30/minute;"
        "auth_addresses=300/minute;sign_ins=10/minute;account_sign_ins=30/hour;account_codes=30/day",
        "Requests per client and route class, and failed proofs; a class not named keeps its default "
        "(docs/authorisation.md)",
    )
    max_update_bytes: int = _setting(4 << 30, "Largest update or model body accepted")
    blob_grace_s: float = _setting(3600.0, "A blob that no row names is removed after this time")
    max_json_bytes: int = _setting(1 << 20, "Largest JSON body accepted")
    web_threads: int = _setting(16, "Request threads of a web process")
    poll_threads: int = _setting(
        6, "Long polls, log streams (half as many) and waits at the same time; more get 503 with Retry-After"
    )
    upload_threads: int = _setting(8, "Uploads at the same time; more get 503 with Retry-After")
    upload_grace_s: float = _setting(30.0, "After this time an upload must keep the least pace")
    upload_least_bytes_per_s: int = _setting(1024, "The least pace of an upload; a slower one gets 408")
    sequencer_interval_s: float = _setting(0.05, "Pause between two batches of the sequencer")
    worker_interval_s: float = _setting(0.1, "Pause between two looks of the worker")
    receipt_max_delay_s: int = _setting(86_400, "Promise of a receipt: in the log within this time")
    controller: str = _setting("", "Name and contact of the controller, for answers under Art. 15")
    timezone: str = _setting(
        "UTC",
        "The controller's time zone, such as `Europe/Berlin`: the terms of privacy requests count its days",
    )
    holidays: str = _setting(
        "",
        "Days without work, comma-separated (`2026-12-25`) or a file with one a line; then a term ends on a working "
        "day; empty: every day counts",
    )
    backup_days: int = _setting(
        35, "For so many days a backup may hold what an erasure made unreadable; its receipt says until when"
    )
    erasure_approvals: int = _setting(1, "How many people must approve an erasure: 1 or 2")
    retention: str = _setting(
        "",
        "How long each kind of data is kept, such as `updates=180d; requests=730d..1825d` "
        "(docs/holds-and-retention.md); empty: until erasure",
    )
    retention_apply: bool = _setting(
        False,
        "Whether the daily run of FLG_RETENTION removes what is over; false: it only says what would go",
    )
    trusted_proxy: str = _setting(
        "false",
        "Whose word counts for address, scheme and client certificate: `false` (nobody's), `true` (a TLS front on "
        "this machine), or the front's networks, comma-separated",
    )
    certificates_dir: str = _setting("./certificates", "Configuration, work and log directories of certbot")
    acme_server: str = _setting("https://acme-v02.api.letsencrypt.org/directory", "ACME directory URL")
    certificate_deploy_hook: str = _setting(
        "nginx -s reload", "Command that makes nginx take a renewed certificate"
    )
    crash_at: str = _setting("", "Named point where the process kills itself; for crash tests alone")

    @property
    def quorum_shown(self) -> int:
        """How many cosignatures a checkpoint bears that readers are shown: none where nobody is asked for one."""
        return self.witness_quorum if self.witnesses else 0


def load_config(environ: Mapping[str, str] | None = None, toml_path: Path | None = None) -> Config:
    """The settings in force: the environment first, then the TOML file, then the defaults.

    Args:
        environ: the environment; `os.environ` when not given.
        toml_path: the file; `./fl-gateway.toml` when not given, and no error when that is missing.

    Raises:
        ConfigError: an unknown name in the file, an unreadable file, or a value of the wrong form.
    """
    env = os.environ if environ is None else environ
    values = {**_from_toml(toml_path), **_from_environment(env)}
    return Config(**{name: _typed(name, raw) for name, raw in values.items()})


def environment_for_children() -> dict[str, str]:
    """This process's environment without the gateway's settings: other programs need none of its secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def forget_settings() -> None:
    """Take the settings out of this process's environment: they have been read, and some are secret."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]


def _names() -> frozenset[str]:
    return frozenset(f.name for f in fields(Config))


def _from_toml(path: Path | None) -> dict[str, Any]:
    chosen = path or Path("fl-gateway.toml")
    if path is None and not chosen.exists():
        return {}
    try:
        table = tomllib.loads(chosen.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{chosen} cannot be read: {error}") from error
    for name in table:
        if name not in _names():
            raise ConfigError(f"{chosen} sets {name}, which is no setting; the docs list them all")
    return table


def _from_environment(env: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _names():
        direct, by_file = env.get(PREFIX + name.upper()), env.get(f"{PREFIX}{name.upper()}_FILE")
        if direct is not None and by_file is not None:
            raise ConfigError(f"{PREFIX}{name.upper()} and its _FILE form are both set: keep one")
        if by_file is not None:
            found[name] = _read_secret(name, by_file)
        elif direct is not None:
            found[name] = direct
    return found


def _read_secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{PREFIX}{name.upper()}_FILE cannot be read: {error.strerror}") from error


def _typed(name: str, raw: Any) -> Any:
    kind = str(Config.__annotations__[name])
    try:
        return SchemaValidator(_FORMS[kind]).validate_python(raw)
    except ValidationError as error:
        # The value itself is not repeated: it may be a secret.
        raise ConfigError(f"{PREFIX}{name.upper()} must be a {kind}") from error
