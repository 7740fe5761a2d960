"""Data classes of every make, taken apart into fields and put together again.

Dataclasses, `msgspec.Struct`, attrs classes, named tuples and pydantic models.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import msgspec


@functools.lru_cache(maxsize=4096)
def field_names(cls: Any) -> tuple[str, ...] | None:
    """The fields of a data class; None for any other class."""
    if is_dataclass(cls):
        import dataclasses  # whoever made this class has imported it already

        return tuple(field.name for field in dataclasses.fields(cls))
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(field.name for field in cls.__attrs_attrs__)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return tuple(cls._fields)
    return tuple(cls.model_fields) if is_pydantic(cls) else None


def fields_of(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of an instance that are set, and what a pydantic model took in addition."""
    cls: Any = type(value)
    for name in field_names(cls) or ():
        item = getattr(value, name, msgspec.UNSET)
        if item is not msgspec.UNSET:
            yield name, item
    yield from (getattr(value, "__pydantic_extra__", None) or {}).items()


def restore(cls: Any, fields: dict[str, Any]) -> Any:
    """An instance of a dataclass or attrs class with these fields, frozen or not."""
    hooked = hasattr(cls, "__post_init__") or hasattr(cls, "__attrs_post_init__")
    if hooked or len(fields) < len(field_names(cls) or ()):
        # Fields that are new since, and what is no field, come from the class itself.
        names = {key: key.lstrip("_") if hasattr(cls, "__attrs_attrs__") else key for key in fields}
        taken = inspect.signature(cls).parameters
        made = cls(**{names[key]: item for key, item in fields.items() if names[key] in taken})
    else:
        made = cls.__new__(cls)
    for key, item in fields.items():
        object.__setattr__(made, key, item)
    return made


def is_dataclass(cls: Any) -> bool:
    return hasattr(cls, "__dataclass_fields__")


def is_pydantic(cls: Any) -> bool:
    return hasattr(cls, "model_validate") and hasattr(cls, "model_construct")
