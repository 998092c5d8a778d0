"""Bearer tokens: found, judged, ended, purged. Opaque by default; JWTs (RFC 9068) for clients that wish them.

An API key is a bearer token too, which carries `client:register` alone.
"""

from gateway.auth.tokens.ending import (
    end_family,
    end_token,
    end_tokens_of_client,
    end_tokens_of_user,
    keep_cap,
    shut_out,
)
from gateway.auth.tokens.finding import find, find_own
from gateway.auth.tokens.keys import own_keys, published_keys, token_key
from gateway.auth.tokens.purging import purge_expired, run_purger
from gateway.auth.tokens.seen import mark_seen
from gateway.auth.tokens.signed import TYPE as JWT_TYPE
from gateway.auth.tokens.signed import hash_of_jwt
from gateway.auth.tokens.stored import insert_token
from gateway.auth.tokens.token import ACTIVE, AuthenticatedClient, BearerToken, TokenKind

__all__ = [
    "ACTIVE",
    "JWT_TYPE",
    "AuthenticatedClient",
    "BearerToken",
    "TokenKind",
    "end_family",
    "end_token",
    "end_tokens_of_client",
    "end_tokens_of_user",
    "find",
    "find_own",
    "hash_of_jwt",
    "insert_token",
    "keep_cap",
    "mark_seen",
    "own_keys",
    "published_keys",
    "purge_expired",
    "run_purger",
    "shut_out",
    "token_key",
]
