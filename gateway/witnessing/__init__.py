"""The gateway asks its witnesses (`FLG_WITNESSES`) to cosign each new checkpoint, beside the sequencer."""

from __future__ import annotations

from gateway.witnessing.addresses import WitnessAddress, witnesses_of
from gateway.witnessing.asking import Asker, Finding, Standing
from gateway.witnessing.part import run_witnesses

__all__ = ["Asker", "Finding", "Standing", "WitnessAddress", "run_witnesses", "witnesses_of"]
