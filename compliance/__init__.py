"""Data protection: subjects and their keys, sealing, access and erasure requests, receipts, evidence."""

from __future__ import annotations

from compliance.errors import ComplianceError, NotNow, SubjectErasing
from compliance.gdpr import GDPRCompliantFL
from compliance.keyring.keys import KeyState, SigningUse
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from compliance.parts import DeskParts, Disclosure
from compliance.places import ErasedCount, ExportFile, ExportFolder, ExportTable, Place
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.desk import PrivacyDesk

__all__ = [
    "Case",
    "ComplianceError",
    "DeskParts",
    "Disclosure",
    "ErasedCount",
    "ExportFile",
    "ExportFolder",
    "ExportTable",
    "GDPRCompliantFL",
    "KeyState",
    "KeyStore",
    "NotNow",
    "Place",
    "PrivacyDesk",
    "RequestType",
    "SigningUse",
    "Status",
    "SubjectErasing",
    "SubjectSealer",
]
