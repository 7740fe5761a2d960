"""Payloads: values as JSON text and back, led by type hints.

    prices = payload_type(dict[str, Decimal])
    raw = prices.encode({"a": Decimal("1.50")}, "charge#1 result")      # b'{"a":"1.50"}'
    prices.decode(raw, "charge#1 result")                               # {'a': Decimal('1.50')}

There are two ways to write a value:

- *Plainly*, as msgspec does it: when the hint tells every type (it is closed) and the value has
  exactly these types. One call in, one call out.
- *Tagged*, in all other cases (no hint, `Any` inside, a subclass, NaN, a lone surrogate): what JSON
  lacks becomes `{"$type": "datetime", "value": "2026-01-31T09:00:00"}`, and instances of data
  classes carry "module:qualname". A tag names a data class or an enum and nothing else: reading
  sets fields, calls no other function and never unpickles. It may import a module.

Every hint reads both, because people send plain JSON from the command line. Where a value is not of
the hinted type but converts to it without loss (a tuple for `list[int]`), the hint wins; where it
does not, `decode` refuses it. So callers decode what they encoded before they hand it on.

Dicts keep their order and sets are sorted: a value has the same bytes under every hash seed.

Inside: `payload` (the front) asks `shape` what a hint says and goes by `plain` or by `tags`; these rest on
`scalars`, `paths` and `surrogates` (values), on `fields` and `names` (classes) and on `form` (the tag).
`bounds` says what is too large or too deep to be kept; callers ask it where they accept something.
"""

from .bounds import (
    DEFAULT_LIMIT,
    MAX_DEPTH,
    check_bounds,
    check_depth,
    check_size,
    is_within,
    small,
    too_deep,
)
from .names import class_name, find_class, main_name
from .payload import (
    UNTYPED,
    PayloadType,
    digest,
    payload_type,
    reader_at_once,
    writer_at_once,
)

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_DEPTH",
    "UNTYPED",
    "PayloadType",
    "check_bounds",
    "check_depth",
    "check_size",
    "class_name",
    "digest",
    "find_class",
    "is_within",
    "main_name",
    "payload_type",
    "reader_at_once",
    "small",
    "too_deep",
    "writer_at_once",
]
