"""What stops the demo: one base class, and each error says what to do."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on."""

    code = "DEMO_FAILED"


class UnplannableRun(DemoError):
    """The options do not make a run that can be planned."""

    code = "DEMO_UNPLANNABLE"


class GatewayNotReady(DemoError):
    """The gateway's process ended, or did not say `ready`, in time."""

    code = "DEMO_NOT_READY"

    def __init__(self, reason: str, log_path: str) -> None:
        super().__init__(f"The gateway did not start ({reason}); its words are in {log_path}")
        self.log_path = log_path


class UnexpectedAnswer(DemoError):
    """The gateway answered something else than the interface promises."""

    code = "DEMO_UNEXPECTED_ANSWER"

    def __init__(self, method: str, path: str, status: int, said: str) -> None:
        super().__init__(f"{method} {path} answered {status}: {said}")
        self.status = status


class NotInTime(DemoError):
    """Something that had to happen did not happen in time."""

    code = "DEMO_NOT_IN_TIME"

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(f"{what} did not happen within {timeout_s:.0f} s")


class ClaimFailed(DemoError):
    """Something that the demo set out to show is not so."""

    code = "DEMO_CLAIM_FAILED"
