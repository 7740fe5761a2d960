"""The payload type of a hint: plainly where the hint tells every type, tagged where it does not."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from operator import call
from typing import Any

import msgspec

from ..errors import PayloadError
from .fields import field_names, fields_of, is_dataclass, restore
from .form import TAG_BYTES, Refused, type_name
from .plain import KEEPING, SORTING, dumps, from_plain, loads, to_plain
from .shape import Shape
from .tags import Tags


class PayloadType:
    """How the values of one hint are written and read. Get it with `payload_type(hint)`.

    `where` names the value in messages:
    "charge#1 result: expected `int`, got `str` - at `$.amount`".
    """

    __slots__ = (
        *("_closed", "_decoder", "_encode", "_exact", "_fits", "_floats", "_read_member", "_tags", "hint"),
    )

    def __init__(self, hint: Any) -> None:
        self.hint = hint
        exact, loose = Shape(hint, exact=True), Shape(hint, exact=False)
        self._tags = Tags(exact.classes)
        self._exact, self._fits = exact.check, loose.check
        self._floats = exact.floats
        self._decoder: msgspec.json.Decoder[Any] | None = None
        try:
            self._decoder = msgspec.json.Decoder(hint, dec_hook=from_plain)
        except (TypeError, NameError):
            pass  # msgspec cannot tell a union of two dataclasses apart; tags can
        self._read_member: Callable[[bytes], Any] | None = None
        self._closed = exact.closed and self._decoder is not None
        # Sorting in msgspec reorders dicts as well, so a hint with both goes by tags.
        self._closed = self._closed and not (exact.sets and exact.dicts)
        self._encode = (SORTING if exact.sets else KEEPING).encode

    def encode(self, value: object, where: str) -> bytes:
        """The value as JSON. A value that JSON cannot carry raises PayloadError.

        A value of another type than the hint's may pass here: `decode` refuses it, which callers
        always run next, because workflow code sees decoded values only.
        """
        try:
            if self._closed and self._exact(value):
                raw = self._encode(value)
                if raw.find(TAG_BYTES) < 0 and not (self._floats and b"null" in raw):
                    return raw
                # Perhaps NaN, which msgspec writes as null, or a key that looks like a tag.
                plain = msgspec.to_builtins(value, str_keys=True, enc_hook=to_plain)
                return dumps(self._tags.write(plain))
        except (ValueError, TypeError, RecursionError, Refused):
            pass  # lone surrogates, endless digits, sets that cannot be sorted: tags take them
        try:
            return dumps(self._tags.write(value))
        except Refused as refused:
            at = f" - at `${refused.path}`" if refused.path else ""
            raise PayloadError(f"{where}: cannot be stored: {refused.reason}{at}") from None
        except RecursionError:
            raise PayloadError(
                f"{where}: cannot be stored: it is nested too deeply or contains itself"
            ) from None

    def decode(self, raw: bytes | msgspec.Raw, where: str) -> Any:
        """The value that `raw` holds, checked against the hint."""
        text = raw if type(raw) is bytes else bytes(raw)
        if self._decoder is not None and text.find(TAG_BYTES) < 0:
            try:
                return self._decoder.decode(text)
            except msgspec.ValidationError as error:
                raise _mismatch(where, error) from None
            except (msgspec.DecodeError, ValueError, RecursionError):
                pass  # perhaps a lone surrogate; if it is not JSON at all, the next line says so
        try:
            return self._fit(self._tags.read(loads(text)))
        except Refused as refused:
            raise PayloadError(f"{where}: cannot be read: {refused.reason}") from None
        except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
            raise _mismatch(where, error) from None

    def decode_member(self, body: bytes) -> Any:
        """What the member `value` of a JSON object holds, read in one go; UNSET where that cannot be.

        Then it is to be decoded by itself, for the error or the tags.
        """
        read = self._read_member
        if read is None:
            read = self._read_member = _reader_of_member(self)
        if body.find(TAG_BYTES) >= 0:
            return msgspec.UNSET
        try:
            return read(body).value
        except (msgspec.DecodeError, ValueError, RecursionError):
            return msgspec.UNSET

    def _fit(self, value: Any) -> Any:
        """The value, or what the hint makes of it: a dataclass of plain JSON, a list of a tuple."""
        if self._decoder is None:
            return _fit_by_hand(self.hint, value)
        if self._fits(value):
            return value
        converted = msgspec.convert(value, self.hint, dec_hook=from_plain, str_keys=True)
        if self._fits(converted):
            return converted
        # An instance with a wrong field: taken apart, msgspec names the path or mends the field.
        apart = self._tags.read(self._tags.write(value), apart=True)
        converted = msgspec.convert(apart, self.hint, dec_hook=from_plain, str_keys=True)
        if self._closed:
            return converted
        raise msgspec.ValidationError(f"expected {type_name(self.hint)}, got {type_name(type(value))}")


def _fit_by_hand(hint: Any, value: Any) -> Any:
    """`_fit` for hints that msgspec cannot read, because only tags tell their values apart."""
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    kinds = [payload_type(arg) for arg in args if arg is not ...]
    if origin in (typing.Union, types.UnionType):
        for kind in kinds:
            if kind._decoder is not None and kind._fits(value):
                return value
        for kind in kinds:
            try:
                return kind._fit(value)
            except (msgspec.ValidationError, TypeError, ValueError):
                pass  # the next one may take it
    elif origin in (list, set, frozenset) and isinstance(value, list | origin):
        return origin(kinds[0]._fit(item) for item in value)
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = kinds * len(value) if ... in args else kinds
        return tuple(kind._fit(item) for kind, item in zip(kinds, value, strict=True))
    elif origin is dict and type(value) is dict:
        return {kinds[0]._fit(key): kinds[1]._fit(item) for key, item in value.items()}
    elif is_dataclass(origin) and isinstance(value, dict | origin):
        cls: Any = origin
        given = value if isinstance(value, dict) else dict(fields_of(value))
        hints = dict.fromkeys(field_names(cls) or (), Any) | typing.get_type_hints(cls)
        return restore(
            cls if isinstance(value, dict) else type(value),
            {name: payload_type(hints[name])._fit(item) for name, item in given.items()},
        )
    elif isinstance(origin, type) and isinstance(value, origin):
        return value
    raise msgspec.ValidationError(f"expected {type_name(hint)}, got {type_name(type(value))}")


def _mismatch(where: str, error: Exception) -> PayloadError:
    text = str(error)
    return PayloadError(f"{where}: {text[:1].lower()}{text[1:]}")


def payload_type(hint: Any) -> PayloadType:
    """The payload type of a hint; the same object for the same hint."""
    if hint is Any or hint is inspect.Parameter.empty or hint is object:
        return UNTYPED
    try:
        return _payload_type(hint)
    except TypeError:  # not hashable, such as Annotated[int, []]
        return PayloadType(hint)


@functools.lru_cache(maxsize=4096, typed=True)
def _payload_type(hint: Any) -> PayloadType:
    return PayloadType(hint)


def reader_at_once(types: Mapping[str, PayloadType]) -> Callable[[bytes], list[Any] | None] | None:
    """A function that reads a JSON object with just these members in one go, where all their hints allow it.

    It gives their values in order, and None for what it cannot read: then they are to be read one by one, for
    the errors, the defaults and the tags.
    """
    fields = [(name, kind.hint, msgspec.UNSET) for name, kind in types.items() if kind._decoder is not None]
    if len(fields) < len(types):
        return None
    try:
        struct = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, gc=False)
        decode = msgspec.json.Decoder(struct, dec_hook=from_plain).decode
    except (TypeError, NameError, ValueError):
        return None

    def read(raw: bytes) -> list[Any] | None:
        if raw.find(TAG_BYTES) >= 0:
            return None
        try:
            values = list(msgspec.structs.astuple(decode(raw)))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        for value in values:
            if value is msgspec.UNSET:
                return None
        return values

    return read


def writer_at_once(
    types: Mapping[str, PayloadType], least: int
) -> Callable[[tuple[Any, ...]], bytes | None] | None:
    """The reverse: a function that writes values as a JSON object with these members, the first `least` or more.

    It gives None for values that are to be written one by one: for the tags, and for the errors.
    """
    kinds = list(types.values())
    if not all(kind._closed and kind._encode == KEEPING.encode for kind in kinds):
        return None
    try:
        struct = msgspec.defstruct("Arguments", [(name, Any, msgspec.UNSET) for name in types], gc=False)
    except (TypeError, ValueError):
        return None
    checks, encode = [kind._exact for kind in kinds], KEEPING.encode
    floats = any(kind._floats for kind in kinds)

    def write(values: tuple[Any, ...]) -> bytes | None:
        if len(values) < least or not all(map(call, checks, values)):
            return None
        try:
            raw = encode(struct(*values))
        except (ValueError, TypeError, RecursionError):
            return None
        return None if raw.find(TAG_BYTES) >= 0 or (floats and b"null" in raw) else raw

    return write


class _Nothing(msgspec.Struct):
    value: msgspec.UnsetType = msgspec.UNSET


def _reader_of_member(kind: PayloadType) -> Callable[[bytes], Any]:
    if kind._decoder is not None:
        try:
            struct = msgspec.defstruct("Member", [("value", kind.hint)], gc=False)
            return msgspec.json.Decoder(struct, dec_hook=from_plain).decode
        except (TypeError, NameError, ValueError):
            pass
    return lambda _: _Nothing()


def digest(raw: bytes) -> str:
    """A fingerprint of a payload: two dicts with their keys in another order have the same."""
    if raw.count(b'":') > 1:
        try:
            raw = SORTING.encode(msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeEncodeError, ValueError):
            from . import surrogates  # with json (2 ms), for lone surrogates only

            raw = surrogates.dumps_sorted(raw)
    import hashlib  # takes 2 ms, and only stores ask for a digest

    return hashlib.blake2b(raw, digest_size=8).hexdigest()


UNTYPED = PayloadType(Any)
"""For values without a hint."""
