"""The subject of a client's certificate in one spelling, to be compared as a text (RFC 8705, section 2.1.2)."""

from __future__ import annotations

from gateway.errors import BadRequest

LONGEST_DN = 1024


class SubjectDnRefused(BadRequest):
    """What should be the subject of a certificate is none."""

    code, title = "SUBJECT_DN_INVALID", "The certificate's subject cannot be read"

    def __init__(self) -> None:
        super().__init__(
            "The subject must be as RFC 4514 writes it, such as CN=silo-a,O=Hospital,C=DE with no blank after a comma: "
            "see `openssl x509 -in FILE -noout -subject -nameopt RFC2253`"
        )


def checked_subject_dn(text: str) -> str:
    """The subject as it is compared.

    Raises:
        SubjectDnRefused: it is empty, too long, or not in the form of RFC 4514.
    """
    from cryptography.x509 import Name, NameOID

    extra = {"emailAddress": NameOID.EMAIL_ADDRESS, "serialNumber": NameOID.SERIAL_NUMBER}
    try:
        name = Name.from_rfc4514_string(text[: LONGEST_DN + 1], extra)
    except ValueError:
        raise SubjectDnRefused from None
    if len(text) > LONGEST_DN or not list(name):
        raise SubjectDnRefused
    return name.rfc4514_string()
