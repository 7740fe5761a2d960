"""Workflows and steps as the process knows them: name, function, arguments, result, options.

A definition binds a call's arguments to parameter names and writes them as one JSON object, so that
`charge(21)` and `charge(amount=21)` are the same command, and a new parameter with a default is no change.

Names: a definition's default name is the function's `__qualname__` without its module, so a script that runs
as `__main__` and is imported later is the same. Two *different* functions of one name are refused when the
second is used, with both places; the same function defined again (a reload, a notebook cell) replaces the
first.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast

import msgspec

from .codec import UNTYPED, PayloadType, payload_type, reader_at_once, writer_at_once
from .errors import DefinitionError, PayloadError

P = ParamSpec("P")
R = TypeVar("R")
_raw_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_name_text = msgspec.json.Encoder().encode


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before attempt n + 1: `initial * factor ** (n - 1)` seconds, at most `maximum`.

    `jitter` is the share of it that is random (0.2: between 80 % and 120 %), so that many runs which failed
    together do not come back together. The delay that was drawn is recorded in the log.

    Example:
        @hf.step(retries=5, backoff=hf.Backoff(initial=1, maximum=300))
    """

    initial: float = 0.2
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.2

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after attempt `attempt` (1, 2 …); `chance` is a random number in [0, 1)."""
        try:
            plain = self.initial * self.factor ** (attempt - 1)
        except OverflowError:
            plain = self.maximum
        return min(plain, self.maximum) * (1 + self.jitter * (2 * chance - 1))


class Options(msgspec.Struct, frozen=True):
    """What a step's decorator sets. Times are in seconds."""

    retries: int = 3
    backoff: Backoff = Backoff()
    timeout: float | None = None
    heartbeat: float | None = None


def seconds(value: float | timedelta, what: str) -> float:
    """A duration as seconds. Raises DefinitionError for a negative one."""
    result = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not result >= 0:
        raise DefinitionError(f"{what}: expected a duration of 0 or more, got {value!r}")
    return result


class Arguments:
    """How a function's arguments are bound, written and read; types are resolved at first use."""

    def __init__(self, fn: Callable[..., Any], where: str) -> None:
        self._fn = fn
        self._where = where
        self._signature = inspect.signature(fn)
        self._parameters = list(self._signature.parameters.values())
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._positional = [p.name for p in self._parameters if p.kind in positional]
        self._required = sum(p.kind in positional and p.default is p.empty for p in self._parameters)
        keyword = inspect.Parameter.KEYWORD_ONLY
        self._plain = not any(p.kind is keyword and p.default is p.empty for p in self._parameters)
        self._prefix = {p.name: _name_text(p.name) + b":" for p in self._parameters}
        self._types: dict[str, PayloadType] | None = None
        self._in_order: list[tuple[bytes, PayloadType]] = []
        self._returns: PayloadType = UNTYPED
        self._at_once: Callable[[bytes], Any] | None = None
        self._write_at_once: Callable[[tuple[Any, ...]], bytes | None] | None = None

    def _resolve(self) -> dict[str, PayloadType]:
        hints = _hints(self._fn, self._where)
        types: dict[str, PayloadType] = {}
        for p in self._parameters:
            hint = hints.get(p.name, Any)
            if p.kind is p.VAR_POSITIONAL:
                hint = tuple[hint, ...]  # type: ignore[valid-type]
            elif p.kind is p.VAR_KEYWORD:
                hint = dict[str, hint]  # type: ignore[valid-type]
            types[p.name] = payload_type(hint)
        self._returns = payload_type(hints.get("return", Any))
        self._types = types
        self._in_order = [(self._prefix[name], types[name]) for name in self._positional]
        if self._plain and len(self._positional) == len(self._parameters):
            self._at_once = reader_at_once(types)
        if self._plain:
            self._write_at_once = writer_at_once(
                {name: types[name] for name in self._positional}, self._required
            )
        return types

    @cached_property
    def returns(self) -> PayloadType:
        """The type of the result."""
        if self._types is None:
            self._resolve()
        return self._returns

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The call's arguments as a JSON object by parameter name; defaults are not written.

        Raises PayloadError where they do not fit the signature or cannot be written.
        """
        write = self._write_at_once
        if write is not None and not kwargs and (raw := write(args)) is not None:
            return raw
        types = self._resolve() if self._types is None else self._types
        if not kwargs and self._plain and self._required <= len(args) <= len(self._positional):
            try:
                written = [
                    prefix + kind.encode(value, "")
                    for (prefix, kind), value in zip(self._in_order, args, strict=False)
                ]
                return b"{%b}" % b",".join(written)
            except PayloadError:
                pass  # told below, by name
        try:
            named = self._signature.bind(*args, **kwargs).arguments.items()
        except TypeError as error:
            raise PayloadError(f"{self._where}{self._signature}: {error}") from None
        parts = [
            self._prefix[name] + types[name].encode(value, f"{self._where} argument {name}")
            for name, value in named
        ]
        return b"{" + b",".join(parts) + b"}"

    def decode(self, raw: bytes) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the function takes them. Raises PayloadError with expected, got and path."""
        types = self._resolve() if self._types is None else self._types
        if self._at_once is not None and (values := self._at_once(raw)) is not None:
            return values, {}
        try:
            parts = _raw_parts(raw)
        except msgspec.DecodeError as error:
            by_hand = _parts_by_hand(raw)
            if by_hand is None:
                raise PayloadError(f"{self._where} arguments: {error}") from None
            parts = by_hand
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for p in self._parameters:
            part = parts.pop(p.name, None)
            if part is None:
                if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                    raise PayloadError(f"{self._where} argument {p.name}: expected a value, got none")
                continue
            value = types[p.name].decode(part, f"{self._where} argument {p.name}")
            if p.kind is p.VAR_POSITIONAL:
                args.extend(value)
            elif p.kind is p.VAR_KEYWORD:
                kwargs.update(value)
            elif p.kind is p.POSITIONAL_ONLY or (p.kind is p.POSITIONAL_OR_KEYWORD and not kwargs):
                if len(args) == self._positional.index(p.name):
                    args.append(value)
                else:
                    kwargs[p.name] = value
            else:
                kwargs[p.name] = value
        if parts:
            raise PayloadError(f"{self._where}{self._signature} has no parameter {', '.join(sorted(parts))}")
        return args, kwargs

    def same(self, raw: bytes, other: bytes) -> bool:
        """Whether two written argument objects mean the same call with today's types and defaults (law L7)."""
        if raw == other:
            return True
        try:
            first, second = self._bound(raw), self._bound(other)
            return first == second
        except PayloadError:
            return False

    def _bound(self, raw: bytes) -> dict[str, Any]:
        args, kwargs = self.decode(raw)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _parts_by_hand(raw: bytes) -> dict[str, msgspec.Raw] | None:
    """The members of a JSON object in which strings hold lone surrogates; None where it is no JSON object."""
    import json  # rarely needed, and 2 ms of `import holdfast`

    try:
        parts = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(parts, dict):
        return None
    return {name: msgspec.Raw(json.dumps(part).encode()) for name, part in parts.items()}


def _hints(fn: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except NameError as error:
        # Types that are local to the function that defines this one: look into its closure's names too.
        local = inspect.getclosurevars(fn).nonlocals
        try:
            return typing.get_type_hints(fn, localns=dict(local), include_extras=True)
        except NameError:
            raise DefinitionError(
                f"{where}: {error}; its annotations name a type that is not visible in its module "
                "(move the type to module level, or drop `from __future__ import annotations`)"
            ) from None


class Definition(Generic[P, R]):
    """What a workflow and a step have in common."""

    kind = "definition"

    def __init__(self, fn: Callable[P, Any], name: str | None) -> None:
        if not inspect.isroutine(fn) or inspect.isbuiltin(fn):
            raise DefinitionError(f"@{self.kind}: expected a function, got {fn!r}")
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DefinitionError(f"{fn.__qualname__}: a generator cannot be a {self.kind}")
        self.fn = fn
        self.name = name or fn.__qualname__
        if not self.name or "#" in self.name or not self.name.isprintable() or len(self.name) > 255:
            raise DefinitionError(
                f"{fn.__qualname__}: a {self.kind}'s name is 1–255 printable characters without '#', "
                f"got {self.name!r}"
            )
        self.is_async = inspect.iscoroutinefunction(fn)
        self.arguments = Arguments(fn, self.name)
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    @property
    def place(self) -> str:
        """Where the function is written: 'app.py:12'."""
        return f"{self.code.co_filename}:{self.code.co_firstlineno}"

    @property
    def code(self) -> CodeType:
        """The function's code."""
        return cast(FunctionType, inspect.unwrap(self.fn)).__code__

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} at {self.place}>"


def _same_function(one: Definition[..., Any], other: Definition[..., Any]) -> bool:
    """Whether two definitions of one name are one function, defined again.

    A script that runs as `__main__` and is imported later has the same file; cells of a notebook have files
    of their own but share the module `__main__`.
    """
    same_file = one.code.co_filename == other.code.co_filename
    return same_file or one.fn.__module__ == other.fn.__module__ == "__main__"


D = TypeVar("D", bound=Definition[..., Any])


class Registry(Generic[D]):
    """The definitions of one kind in this process, by name."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._known: dict[str, list[D]] = {}
        self.shared: set[str] = set()
        """The names that two different functions have."""

    def add(self, definition: D) -> None:
        """Note a definition; the same function defined again replaces the older."""
        others = self._known.get(definition.name, [])
        kept = [other for other in others if not _same_function(other, definition)]
        self._known[definition.name] = [*kept, definition]
        (self.shared.add if kept else self.shared.discard)(definition.name)

    def check(self, definition: D) -> None:
        """Refuse a name that two different functions share. Raises DefinitionError with both places."""
        if definition.name in self.shared:
            places = " and ".join(other.place for other in self._known[definition.name])
            raise DefinitionError(
                f"two {self._kind}s are called {definition.name!r}: {places}; "
                f"give one of them another name with @{self._kind}(name=…)"
            )

    def get(self, name: str) -> D | None:
        """The definition of this name, or None. Raises DefinitionError where two share it."""
        known = self._known.get(name)
        if not known:
            return None
        self.check(known[-1])
        return known[-1]

    def names(self) -> list[str]:
        """All names, in the order of definition."""
        return list(self._known)
