"""Certificates stay fresh by themselves: certbot renews them, nginx takes them up (specification 6.2).

certbot runs in a child process, one certificate at a time: its locks, handlers and exits stay out of ours,
and each certificate has an outcome of its own, read from the files and not from certbot's words.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

from cryptography import x509

from gateway.config import Config, environment_for_children, load_config
from gateway.errors import ConfigError

JsonValue = str | list[str] | None
Record = Callable[[str, Mapping[str, JsonValue]], None]

_CERTBOT = "import sys; from certbot.main import main; sys.exit(main(sys.argv[1:]))"
_DOMAIN = r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}"


class Outcome(StrEnum):
    """What came of one certificate."""

    RENEWED = "renewed"  # a new certificate is in use, the first one included
    NOT_DUE = "not_due"
    FAILED = "failed"  # the old certificate is still in use


class Reason(StrEnum):
    """Which step failed; certbot's own words stay in its log, on this machine."""

    CERTBOT = "certbot"
    TIMEOUT = "timeout"
    DEPLOY_HOOK = "deploy_hook"


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """Where certificates live, who issues them, and how nginx learns of a new one.

    Args:
        directory: certbot's config, work and log directories lie in it, and what we remember ourselves.
        webroot: the directory whose `.well-known/acme-challenge` nginx serves on port 80.
        deploy_hook: the shell command after which nginx uses the new certificate.
    """

    directory: Path
    acme_server: str
    webroot: Path
    deploy_hook: str = "nginx -s reload"
    timeout_s: float = 300.0

    @classmethod
    def from_config(cls, config: Config) -> CertificateSettings:
        """The settings in force; the webroot is the same as `fl-gateway nginx` writes."""
        directory = Path(config.certificates_dir).absolute()
        return cls(directory, config.acme_server, directory / "webroot", config.certificate_deploy_hook)

    def live(self, name: str) -> Path:
        """The certificate that nginx is to use now."""
        return self.directory / "config" / "live" / name / "cert.pem"

    def deployed(self, name: str) -> Path:
        """A copy of the certificate for which the deploy hook last succeeded."""
        return self.directory / "deployed" / f"{name}.pem"

    def recorded(self, name: str) -> Path:
        """A copy of the certificate that last got its audit entry."""
        return self.directory / "recorded" / f"{name}.pem"

    def names(self) -> list[str]:
        """The certificates that certbot keeps here."""
        return sorted(path.stem for path in (self.directory / "config" / "renewal").glob("*.conf"))


@dataclass(frozen=True, slots=True)
class CertificateOutcome:
    """What came of one certificate; `domains`, `serial` (hex) and `not_after` are of the one in place now."""

    name: str
    outcome: Outcome
    domains: tuple[str, ...]
    serial: str | None = None
    not_after: str | None = None
    reason: Reason | None = None

    def facts(self) -> dict[str, JsonValue]:
        """What the audit entry and the command line say about it."""
        facts = {"domains": list(self.domains), "serial": self.serial, "not_after": self.not_after}
        return {**facts, "reason": self.reason.value} if self.reason else dict(facts)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What came of one look at all certificates."""

    outcomes: tuple[CertificateOutcome, ...]

    @property
    def ok(self) -> bool:
        """Whether no certificate failed."""
        return all(outcome.outcome is not Outcome.FAILED for outcome in self.outcomes)


def renew_certificates(
    settings: CertificateSettings | None = None, record: Record | None = None, *, force: bool = False
) -> Renewal:
    """Renew every certificate that is due, have nginx take it up, and write down what came of it.

    Safe to run again after a crash: a certificate that was renewed but not taken up or not recorded is found.

    Args:
        settings: those of the environment when not given.
        record: takes (event type, details); the gateway's audit log when not given.
        force: renew although nothing is due.
    """
    chosen = settings or CertificateSettings.from_config(load_config())
    journal = record or _audit_log()
    arguments = ["renew", "--no-random-sleep-on-renew", *(["--force-renewal"] if force else [])]
    return Renewal(tuple(_attempt(chosen, journal, name, arguments) for name in chosen.names()))


def issue_certificate(
    domains: Sequence[str],
    settings: CertificateSettings | None = None,
    record: Record | None = None,
    *,
    email: str | None = None,
) -> CertificateOutcome:
    """Have a first certificate issued for the domains; nginx must serve the webroot on port 80 already.

    The certificate bears the name of the first domain. One that exists and is not due is left alone.
    """
    for domain in domains:
        if not re.fullmatch(_DOMAIN, domain):
            raise ConfigError(f"{domain!r} is no domain name: give one such as fl.example.com, in lower case")
    if not domains:
        raise ConfigError("a certificate needs at least one domain name")
    chosen = settings or CertificateSettings.from_config(load_config())
    chosen.webroot.mkdir(parents=True, exist_ok=True)
    arguments = ["certonly", "--keep-until-expiring", "--webroot", "--webroot-path", str(chosen.webroot)]
    arguments += ["--email", email, "--no-eff-email"] if email else ["--register-unsafely-without-email"]
    arguments += [part for domain in domains for part in ("--domain", domain)]
    return _attempt(chosen, record or _audit_log(), domains[0], arguments)


def _attempt(
    settings: CertificateSettings, record: Record, name: str, arguments: Sequence[str]
) -> CertificateOutcome:
    """One certificate, with its intent before and its end after (RULES 2)."""
    intent: dict[str, JsonValue] = {"intent_id": str(uuid4()), "target": name}
    record("intent.certificate", {**intent, "phase": "intended"})
    reason = _run_certbot(settings, name, arguments)
    outcome = _read_outcome(settings, name, reason)
    if outcome.outcome is Outcome.RENEWED:
        record("certificate.renewed", outcome.facts())
        _remember(settings, name)
    elif outcome.outcome is Outcome.FAILED:
        record("certificate.failed", outcome.facts())
    done = outcome.outcome is not Outcome.FAILED
    record("intent.certificate", {**intent, "phase": "done" if done else "failed"})
    return outcome


def _read_outcome(settings: CertificateSettings, name: str, failed: Reason | None) -> CertificateOutcome:
    """The outcome as the files tell it: which certificate is in place, taken up, recorded."""
    live = _read(settings.live(name))
    if live is None:
        return CertificateOutcome(name, Outcome.FAILED, (name,), reason=failed or Reason.CERTBOT)
    if live != _read(settings.deployed(name)) and not _deploy(settings, name):
        return _outcome(name, Outcome.FAILED, live, Reason.DEPLOY_HOOK)
    if live != _read(settings.recorded(name)):
        return _outcome(name, Outcome.RENEWED, live)
    return _outcome(name, Outcome.FAILED if failed else Outcome.NOT_DUE, live, failed)


def _outcome(name: str, outcome: Outcome, pem: bytes, reason: Reason | None = None) -> CertificateOutcome:
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    domains = tuple(names.get_values_for_type(x509.DNSName))
    not_after = certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    return CertificateOutcome(name, outcome, domains, f"{certificate.serial_number:x}", not_after, reason)


def _run_certbot(settings: CertificateSettings, name: str, arguments: Sequence[str]) -> Reason | None:
    """Run certbot on one certificate; what it prints is dropped, its log file keeps it."""
    folders = {kind: settings.directory / kind for kind in ("config", "work", "logs", "deployed", "recorded")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-c", _CERTBOT, *arguments, "--cert-name", name]
    command += ["--non-interactive", "--agree-tos", "--server", settings.acme_server]
    command += ["--config-dir", str(folders["config"]), "--work-dir", str(folders["work"])]
    command += ["--logs-dir", str(folders["logs"])]
    command += ["--disable-hook-validation", "--deploy-hook", _hook(settings, name)]
    return _run(command, settings, failure=Reason.CERTBOT)


def _deploy(settings: CertificateSettings, name: str) -> bool:
    """Run the deploy hook again for a certificate that nginx has not taken up: certbot tries only once."""
    lineage = str(settings.live(name).parent)
    command = ["/bin/sh", "-c", _hook(settings, name)]
    return _run(command, settings, failure=Reason.DEPLOY_HOOK, RENEWED_LINEAGE=lineage) is None


def _hook(settings: CertificateSettings, name: str) -> str:
    """The deploy hook and the note that it succeeded: certbot calls a renewal with a failed hook good."""
    note = shlex.quote(str(settings.deployed(name)))
    return f'({settings.deploy_hook}) && cp "$RENEWED_LINEAGE/cert.pem" {note}'


def _run(
    command: Sequence[str], settings: CertificateSettings, *, failure: Reason, **variables: str
) -> Reason | None:
    """Run a child in a session of its own; on a time-out the whole session ends, hooks included."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment_for_children() | variables,
    )
    try:
        return failure if child.wait(settings.timeout_s) else None
    except subprocess.TimeoutExpired:
        return Reason.TIMEOUT
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _remember(settings: CertificateSettings, name: str) -> None:
    """Note which certificate has its entry, after the entry: a crash between makes two, never none."""
    live = _read(settings.live(name))
    if live is not None:
        settings.recorded(name).write_bytes(live)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _audit_log() -> Record:
    """The gateway's own audit log, imported late: recording needs the whole gateway, renewing does not."""
    from gateway.cli.wiring import certificate_recorder

    return certificate_recorder()
