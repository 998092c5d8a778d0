"""The log published as tiles in a folder or a bucket (`FLG_TLOG_PUBLISH`), beside the sequencer."""

from __future__ import annotations

from gateway.publishing.publishing import run_publisher
from gateway.publishing.targets import check_target, open_target

__all__ = ["check_target", "open_target", "run_publisher"]
