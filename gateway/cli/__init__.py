"""The `fl-gateway` command: each group in its own module, loaded only when it is asked for."""

from __future__ import annotations

import click

from gateway.cli.lazy import LazyGroup

_COMMANDS = {
    "audit": ("gateway.cli.audit:audit", "The audit log."),
    "backup": (
        "gateway.cli.backup:backup",
        "Write the database and its blobs into one file, beside a running gateway.",
    ),
    "certs": ("gateway.cli.certs:certs", "Certificates of the TLS front (ACME, certbot)."),
    "client": ("gateway.cli.client:client", "The clients of the federation: who may come in, and as what."),
    "db": ("gateway.cli.db:db", "The databases' schema and roles."),
    "demo": (
        "gateway.cli.demo:demo",
        "Train with silos, audit the run, find a forgery, erase a silo: in about a minute, on this machine.",
    ),
    "doctor": (
        "gateway.cli.doctor:doctor",
        "Check settings and stores, and say what to mend; exit 1 if anything is to be mended.",
    ),
    "forward": ("gateway.cli.serve:forward", "Deliver the log to every SIEM sink."),
    "intake": ("gateway.cli.intake:intake", "Whether updates and new rounds are taken at all."),
    "keys": (
        "gateway.cli.keys:keys",
        "The keys of the gateway: the master key, and those that sign the log, receipts, packages and tokens.",
    ),
    "model": ("gateway.cli.model:model", "Models and their versions."),
    "nginx": (
        "gateway.cli.nginx:nginx",
        "Write the nginx configuration of the TLS front, for nginx's http block.",
    ),
    "notices": (
        "gateway.cli.notices:notices",
        "Notices by e-mail or webhook: of deadlines, budgets, lags and certificates.",
    ),
    "privacy": ("gateway.cli.privacy:privacy", "Data-protection requests (GDPR)."),
    "restore": (
        "gateway.cli.backup:restore",
        "Restore the backup FILE into an empty database; what was erased or spent since then stays so.",
    ),
    "round": ("gateway.cli.round:round_", "Training rounds."),
    "sequence": ("gateway.cli.serve:sequence", "Order new audit entries into the log and sign checkpoints."),
    "serve": (
        "gateway.cli.serve:serve",
        "Run the gateway: web, worker, sequencer and forwarder in one process tree.",
    ),
    "siem": ("gateway.cli.siem:siem", "The SIEM sinks: where the log's events go."),
    "user": ("gateway.cli.user:user", "The people of the staff: who may sign in, and as what."),
    "witness": (
        "gateway.cli.witness:witness",
        "Cosign another's log as long as it only grows; prints its key and `ready http://…`.",
    ),
    "worker": (
        "gateway.cli.serve:worker",
        "Freeze cohorts, aggregate, publish; see privacy requests through.",
    ),
}


@click.group(cls=LazyGroup, deferred=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fl-gateway", prog_name="fl-gateway")
def main() -> None:
    """A compliance and audit gateway for federated learning."""
