"""Measures for Prometheus, read from the database when they are asked for, so that every process tells the same."""

from gateway.metrics.collecting import Measures
from gateway.metrics.readers import Readers, parse_readers

__all__ = ["Measures", "Readers", "parse_readers"]
