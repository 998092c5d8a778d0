"""What a client does with a token that it has: end it (RFC 7009), ask what it is (RFC 7662)."""

from gateway.auth.endpoints.introspection import Introspection
from gateway.auth.endpoints.revocation import Revocation

__all__ = ["Introspection", "Revocation"]
