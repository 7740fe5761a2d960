"""Tokens of callers: made, kept as a hash, and recognised.

    hft_7f3k9m2x4q8w_yJx…      the id, by which it is found, and 256 random bits

The secret is random and long, so one round of SHA-256 is all that its hash needs: there is nothing to guess.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from ..errors import PayloadError
from ..store.base import Store
from ..store.rows import AccessToken

SCOPES = ("read", "write", "work")
"""Each may do what those before it may. read: look; write: start, resume, cancel; work: be a worker."""
_PREFIX = "hft"
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


def allows(scope: str, wanted: str) -> bool:
    """Whether who has `scope` may do what needs `wanted`."""
    return SCOPES.index(scope) >= SCOPES.index(wanted)


async def create(store: Store, scope: str, note: str = "") -> str:
    """Make a token and keep its hash. What is returned is shown once and cannot be had again.

    Raises PayloadError for a scope that does not exist.
    """
    if scope not in SCOPES:
        raise PayloadError(f"scope: expected one of {', '.join(SCOPES)}, got {scope!r}")
    id = "".join(secrets.choice(_LETTERS) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    await store.put_token(AccessToken(id, scope, _hash(secret), store.clock.now(), note))
    return f"{_PREFIX}_{id}_{secret}"


async def recognise(store: Store, text: str) -> AccessToken | None:
    """The token that this text is, compared in constant time; None for what is none."""
    prefix, _, rest = text.partition("_")
    id, _, secret = rest.partition("_")
    there = {token.id: token for token in await store.tokens()}.get(id)
    same = hmac.compare_digest(_hash(secret), there.hash if there is not None else bytes(32))
    return there if there is not None and same and prefix == _PREFIX else None


def _hash(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
