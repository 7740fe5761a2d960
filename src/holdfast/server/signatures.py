"""Whether a request was signed by who knows the secret; pure functions over headers and the body as it came.

Each scheme signs the body's bytes, and two of them a time, which must be near: so a request that somebody recorded
cannot be sent again later. Signatures are compared in constant time. GitHub signs no time and no delivery id.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import msgspec

from ..webhooks import Signature


def signed(
    verify: Signature, secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: int
) -> bool:
    """Whether one of the secrets signed this; `now` in seconds since 1970."""
    check = _SCHEMES[verify.scheme]
    return any(check(secret, headers, body, now, verify.tolerance) for secret in secrets)


def signed_id(verify: Signature, headers: Mapping[str, str], body: bytes) -> str | None:
    """The delivery's id as this scheme gives it."""
    if verify.scheme == "stripe":
        return _stripe_id(body)
    return headers.get("x-github-delivery" if verify.scheme == "github" else "webhook-id")


def _github(secret: str, headers: Mapping[str, str], body: bytes, _now: int, _tolerance: int) -> bool:
    return _same(headers.get("x-hub-signature-256", ""), f"sha256={_mac(secret.encode(), body).hex()}")


def _stripe(secret: str, headers: Mapping[str, str], body: bytes, now: int, tolerance: int) -> bool:
    parts = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
    time = next((value for name, _, value in parts if name == "t"), "")
    expected = _mac(secret.encode(), time.encode() + b"." + body).hex()
    fits = any(_same(value, expected) for name, _, value in parts if name == "v1")
    return fits and _near(time, now, tolerance)


def _standard(secret: str, headers: Mapping[str, str], body: bytes, now: int, tolerance: int) -> bool:
    id, time = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return False
    if not key:
        return False
    mac = _mac(key, f"{id}.{time}.".encode() + body)
    expected = f"v1,{base64.b64encode(mac).decode()}"
    fits = any(_same(given, expected) for given in headers.get("webhook-signature", "").split(" "))
    return fits and bool(id) and _near(time, now, tolerance)


_Check = Callable[[str, Mapping[str, str], bytes, int, int], bool]
_SCHEMES: dict[str, _Check] = {"github": _github, "stripe": _stripe, "standard-webhooks": _standard}


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, sha256).digest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _near(time: str, now: int, tolerance: int) -> bool:
    return time.isascii() and time.isdecimal() and len(time) < 17 and abs(int(time) - now) <= tolerance


class _StripeEvent(msgspec.Struct):
    id: str | None = None


def _stripe_id(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_StripeEvent).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
