"""`fl-gateway privacy`: data-protection requests at the machine itself, and checks of what was handed out."""

from __future__ import annotations

import click

from gateway.cli.lazy import LazyGroup

_COMMANDS = {
    "commitment-key": (
        "gateway.cli.privacy.carrying_out:commitment_key",
        "Hand over, once, the key by which the person shows that the receipt of REQUEST_ID is about them.",
    ),
    "erase": (
        "gateway.cli.privacy.carrying_out:erase",
        "Erase the person behind a client or an account (Art. 17); exit 1 while something must stay.",
    ),
    "export": (
        "gateway.cli.privacy.carrying_out:export",
        "Write everything that is kept of the person behind a client or an account (Art. 15, 20).",
    ),
    "hold": (
        "gateway.cli.privacy.hold:hold",
        "Legal holds: what must be kept although it would be erased or run out (Art. 17(3)).",
    ),
    "lift": (
        "gateway.cli.privacy.lift:lift",
        "Lift a restriction that was carried out, or end an objection that the person withdrew.",
    ),
    "link": (
        "gateway.cli.privacy.link:link",
        "Make a link to the package of REQUEST_ID: it opens once, without a token, until the package is removed.",
    ),
    "records": (
        "gateway.cli.privacy.evidence:records",
        "Write the record of processing activities (Art. 30), made from the data map.",
    ),
    "report": (
        "gateway.cli.privacy.evidence:report",
        "Report what model VERSION may claim, with the ledger, proofs from the log, and a signature.",
    ),
    "requests": (
        "gateway.cli.privacy.requests:requests",
        "The requests themselves: their states, their owners, their clock.",
    ),
    "retention": (
        "gateway.cli.privacy.retention:retention",
        "How long each kind of data is kept (FLG_RETENTION).",
    ),
    "verify": (
        "gateway.cli.privacy.verify:verify",
        "Check a package, an erasure receipt, a statement or a privacy report; exit 1 if it was changed.",
    ),
}


@click.group(cls=LazyGroup, deferred=_COMMANDS)
def privacy() -> None:
    """Data-protection requests (GDPR)."""
