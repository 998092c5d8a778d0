"""TLS to a SIEM: 1.2 or later, its certificate verified and its host name checked; ours is shown if there is one."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from audit.siem.errors import SinkDown


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of one sink; empty: the machine's authorities, and no certificate of ours."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def context(self, sink: str) -> ssl.SSLContext:
        """What a connection needs; read anew for each, so that a renewed file is used without a restart."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None, password=_no_password)
        except OSError as error:  # ssl.SSLError is one
            why = "ca_file, cert_file or key_file is not a PEM file that can be used"
            raise SinkDown(sink, why) from error
        return context


def _no_password() -> str:
    """An encrypted key fails instead of asking a terminal."""
    return ""


def words_of(error: OSError) -> str:
    """What a failed connection is, in words that repeat nothing that was sent."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message.rstrip('.')})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({(error.reason or 'no reason given').lower().replace('_', ' ')})"
    return error.strerror or "it cannot be reached"
