"""The demo: silos learn digits through a real gateway, with differential privacy, an audit and an erasure."""

from __future__ import annotations
