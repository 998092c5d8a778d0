"""The `fl-gateway` command: each group in its own module, loaded only when it is asked for."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {
    "audit": "gateway.cli.audit:audit",
    "backup": "gateway.cli.backup:backup",
    "certs": "gateway.cli.certs:certs",
    "client": "gateway.cli.client:client",
    "db": "gateway.cli.db:db",
    "demo": "gateway.cli.demo:demo",
    "doctor": "gateway.cli.doctor:doctor",
    "forward": "gateway.cli.serve:forward",
    "intake": "gateway.cli.intake:intake",
    "keys": "gateway.cli.keys:keys",
    "model": "gateway.cli.model:model",
    "nginx": "gateway.cli.nginx:nginx",
    "notices": "gateway.cli.notices:notices",
    "privacy": "gateway.cli.privacy:privacy",
    "restore": "gateway.cli.backup:restore",
    "round": "gateway.cli.round:round_",
    "sequence": "gateway.cli.serve:sequence",
    "serve": "gateway.cli.serve:serve",
    "siem": "gateway.cli.siem:siem",
    "witness": "gateway.cli.witness:witness",
    "user": "gateway.cli.user:user",
    "worker": "gateway.cli.serve:worker",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named: `--help` of one does not load the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own form
        """Every command, in order."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fl-gateway", prog_name="fl-gateway")
def main() -> None:
    """A compliance and audit gateway for federated learning."""
