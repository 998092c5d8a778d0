"""Looks at every setting and every store, and says what to mend; compares rows and blobs."""

from gateway.doctor.blobs import Comparison, compare
from gateway.doctor.examination import CHECKS, Finding, examine

__all__ = ["CHECKS", "Comparison", "Finding", "compare", "examine"]
