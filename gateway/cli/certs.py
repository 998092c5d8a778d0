"""`fl-gateway certs`: issue and renew the certificates of the TLS front, by hand or every night at three."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable

import click
import schedule

from gateway.certificates import CertificateOutcome, Outcome, Renewal, issue_certificate, renew_certificates
from gateway.errors import ConfigError

RENEWAL_TIME = "03:00"
_LOOK_INTERVAL_S = 1.0


@click.group()
def certs() -> None:
    """Certificates of the TLS front (ACME, certbot)."""


@certs.command()
def run() -> None:
    """Renew now and every day at 03:00 local time until SIGTERM; a renewal under way is finished first."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    renew_daily(lambda: _print_renewal(renew_certificates(), as_json=True), stop)


@certs.command()
@click.option("--force", is_flag=True, help="Renew although nothing is due.")
@click.option("--json", "as_json", is_flag=True, help="Print one object a certificate, for machines.")
def renew(*, force: bool, as_json: bool) -> None:
    """Renew what is due; exit 1 if a certificate could not be renewed."""
    renewal = renew_certificates(force=force)
    _print_renewal(renewal, as_json=as_json)
    if not renewal.ok:
        raise SystemExit(1)


@certs.command()
@click.argument("domains", nargs=-1, required=True)
@click.option("--email", help="Contact of the account at the certificate authority.")
@click.option("--json", "as_json", is_flag=True, help="Print one object, for machines.")
def issue(*, domains: tuple[str, ...], email: str | None, as_json: bool) -> None:
    """Have a first certificate issued; nginx must serve port 80 (`fl-gateway nginx --bootstrap`)."""
    try:
        outcome = issue_certificate(domains, email=email)
    except ConfigError as error:
        raise click.UsageError(error.detail) from error
    _print(outcome, as_json=as_json)
    if outcome.outcome is Outcome.FAILED:
        raise SystemExit(1)


def renew_daily(job: Callable[[], object], stop: threading.Event) -> None:
    """Do the job now (a restart may have missed the hour) and every day at 03:00, until stopped."""
    diary = schedule.Scheduler()
    diary.every().day.at(RENEWAL_TIME).do(job)
    job()
    while not stop.wait(_LOOK_INTERVAL_S):
        diary.run_pending()


def _print_renewal(renewal: Renewal, *, as_json: bool) -> None:
    if not renewal.outcomes and not as_json:
        click.echo("There is no certificate yet: fl-gateway certs issue DOMAIN")
    for outcome in renewal.outcomes:
        _print(outcome, as_json=as_json)


def _print(outcome: CertificateOutcome, *, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps({"certificate": outcome.name, "outcome": outcome.outcome.value, **outcome.facts()})
        )
    elif outcome.outcome is Outcome.FAILED:
        said = f"failed ({outcome.reason}), see the log folder; valid until {outcome.not_after}"
        click.echo(f"{outcome.name}: {said}")
    else:
        said = {Outcome.RENEWED: "new certificate in use", Outcome.NOT_DUE: "not due"}[outcome.outcome]
        click.echo(f"{outcome.name}: {said}, valid until {outcome.not_after}")
