"""Data protection: subjects and their keys, sealing, access and erasure requests, receipts, evidence.

Importing this package stays light: what a name needs is loaded when the name is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compliance.errors import ComplianceError, NotNow, SubjectErasing
    from compliance.gdpr import GDPRCompliantFL
    from compliance.keyring.keys import KeyState, SigningUse
    from compliance.keyring.keystore import KeyStore
    from compliance.keyring.sealing import SubjectSealer
    from compliance.parts import DeskParts, Disclosure
    from compliance.places import ErasedCount, ExportFile, ExportFolder, ExportTable, Place
    from compliance.requests.cases import Case, RequestType, Status
    from compliance.requests.desk import PrivacyDesk

_HOMES = {
    "Case": "requests.cases",
    "ComplianceError": "errors",
    "DeskParts": "parts",
    "Disclosure": "parts",
    "ErasedCount": "places",
    "ExportFile": "places",
    "ExportFolder": "places",
    "ExportTable": "places",
    "GDPRCompliantFL": "gdpr",
    "KeyState": "keyring.keys",
    "KeyStore": "keyring.keystore",
    "NotNow": "errors",
    "Place": "places",
    "PrivacyDesk": "requests.desk",
    "RequestType": "requests.cases",
    "SigningUse": "keyring.keys",
    "Status": "requests.cases",
    "SubjectErasing": "errors",
    "SubjectSealer": "keyring.sealing",
}

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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
