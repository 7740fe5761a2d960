"""A workflow's arguments from the words of a command line.

Each word is JSON, by position, or NAME=JSON by name. Where the parameter's hint is `str`, a bare word is
taken as it is, and so is one for a hint that reads text (a date, an id, an enum).
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Sequence
from typing import Any

from ..codec import payload_type
from ..errors import PayloadError
from ..workflow import Workflow
from .problem import Problem, did_you_mean

_NAMED = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
_NO_HINT = (Any, object, inspect.Parameter.empty)


def read_arguments(workflow: Workflow[..., object], words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the workflow takes them. Raises Problem and PayloadError."""
    signature = inspect.signature(workflow.fn)
    parameters = list(signature.parameters.values())
    hints = _hints(workflow)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        match = _NAMED.fullmatch(word)
        if match is not None and (match[1] in named or open_ended):
            hint = hints.get(match[1], Any)
            kwargs[match[1]] = read_word(match[2], hint, f"argument {match[1]}")
            continue
        parameter = _next_positional(parameters, len(args))
        if parameter is None:
            raise _too_many(workflow, signature, word, named, match)
        if match is not None and hints.get(parameter.name, Any) is not str:
            hint = did_you_mean(match[1], named) or f"it takes {signature}"
            raise Problem(f"{workflow.name} has no parameter {match[1]!r}", hint=hint)
        args.append(read_word(word, hints.get(parameter.name, Any), f"argument {parameter.name}"))
    return _checked(workflow, signature, args, kwargs)


def read_word(word: str, hint: Any, where: str) -> Any:
    """Plain JSON values of a word; bare text where the hint takes text."""
    try:
        value = json.loads(word, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        if hint is str or (word[:1] not in ("{", "[", '"') and _reads_text(hint, word)):
            return word
        raise Problem(
            f"{where}: {word!r:.80} is not JSON: {error}",
            hint=f"""text needs quotes of its own: '{json.dumps(word, ensure_ascii=False):.60}'""",
        ) from None
    return word if hint is str and not isinstance(value, str) else value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _reads_text(hint: Any, word: str) -> bool:
    if hint in _NO_HINT:
        return False
    try:
        payload_type(hint).decode(json.dumps(word).encode(), "")
    except PayloadError:
        return False
    return True


def _hints(workflow: Workflow[..., object]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(workflow.fn)
    except (NameError, TypeError):  # told by the codec, with the remedy, where it matters
        return {}


def _next_positional(parameters: list[inspect.Parameter], count: int) -> inspect.Parameter | None:
    takes = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if count < len(takes):
        return takes[count]
    return next((p for p in parameters if p.kind is p.VAR_POSITIONAL), None)


def _too_many(
    workflow: Workflow[..., object], signature: inspect.Signature, word: str, named: Any, match: Any
) -> Problem:
    if word.startswith("--"):
        return Problem(f"no such option {word}", hint="`holdfast run --help` lists them")
    if match is not None:
        hint = did_you_mean(match[1], named) or f"it takes {signature}"
        return Problem(f"{workflow.name} has no parameter {match[1]!r}", hint=hint)
    return Problem(f"{workflow.name}: too many arguments from {word!r:.80} on", hint=f"it takes {signature}")


def _checked(
    workflow: Workflow[..., object], signature: inspect.Signature, args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Bind the plain values, and have the codec make of them what the hints say."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise Problem(f"{workflow.name}: {error}", hint=f"it takes {signature}") from None
    return workflow.arguments.decode(json.dumps(bound.arguments).encode())
