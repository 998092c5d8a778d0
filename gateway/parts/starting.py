"""What every start does before it takes work."""

from __future__ import annotations

from audit.siem.sinks import parse_sinks
from compliance.keyring.keys import SigningUse
from gateway.desk_settings import approvals_of, calendar_of
from gateway.key_rotation import begin_announced
from gateway.log_key import log_keys
from gateway.messaging.webhook import check_webhook
from gateway.metrics.readers import parse_readers
from gateway.notices.targets import check_targets
from gateway.publishing import check_target
from gateway.rounds.recovery import unite_spends
from gateway.services import Services
from gateway.witnessing import witnesses_of


def recover(services: Services) -> None:
    """What every start does before it takes work: state, key store and database agree again (RULES 1, 2)."""
    parse_sinks(services.config.siem_sinks)  # a wrong sink is told at start, not by a silent SIEM
    check_webhook(services.config)
    check_target(services.config)
    check_targets(services.config, services.clock)
    parse_readers(services.config.metrics)
    calendar_of(services.config)
    approvals_of(services.config)
    witnesses_of(services.config)
    services.keystore.apply_state()
    unite_spends(services)
    for use in SigningUse:
        if use is not SigningUse.LOG:
            services.keystore.signing_key(use)  # made now: jwks.json is whole from the first answer on
    if not services.config.log_key:
        log_keys(services).first()
    begin_announced(services)
