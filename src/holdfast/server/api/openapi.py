"""The OpenAPI document, made from the operations and their types, so that it cannot say anything else."""

from __future__ import annotations

import functools
import inspect
from importlib.metadata import version
from typing import Any

import msgspec

from ...errors import HoldfastError
from ...store.http.wire.problems import Problem
from ..refusal import STATUS
from .operation import KEY_LIMIT, OPERATIONS, Operation, parameters

_REFS = "#/components/schemas/{name}"
_ALWAYS = {
    401: "no token, or not a known one",
    403: "the token's scope is too small",
    429: "too many requests",
}
_STORE = "the store cannot do its work now: send it again later"


@functools.cache
def document() -> bytes:
    """The document as JSON."""
    types: list[Any] = [Problem]
    for operation in OPERATIONS:
        kinds = (operation.takes, operation.gives, *operation.also.values())
        types += [kind for kind in kinds if kind not in (None, str)]
        if operation.query is not None:
            types += parameters(operation.query).values()
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFS)
    names = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in sorted(OPERATIONS, key=lambda one: one.path.startswith("/v1/store/")):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, names)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Holdfast",
                "version": version("holdfast"),
                "description": "Durable workflows: runs, their logs, hooks and streams; and, under /v1/store, "
                "what workers need.",
            },
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "basic": {"type": "http", "scheme": "basic"},
                },
            },
            "security": [{"bearer": []}, {"basic": []}, {}],
        }
    )


def _key(kind: Any) -> str:
    return repr(kind)


def _describe(operation: Operation, names: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(operation.handler) or ""
    first, _, rest = text.partition(". ")
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": " ".join(first.split()).rstrip("."),
        "description": " ".join(f"{rest} Needs the scope `{operation.scope}`.".split()),
        "parameters": [*_path_parameters(operation), *_query_parameters(operation, names)],
        "responses": _responses(operation, names),
    }
    if operation.keyed:
        described["parameters"].append(_idempotency_key())
    if operation.takes is not None:
        content = {"application/json": {"schema": names[_key(operation.takes)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]


def _query_parameters(operation: Operation, names: dict[str, Any]) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    return [
        {"name": name, "in": "query", "required": False, "schema": names[_key(hint)]}
        for name, hint in parameters(operation.query).items()
    ]


def _idempotency_key() -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same key says that it is the same request, sent again.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": KEY_LIMIT,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
        },
    }


def _responses(operation: Operation, names: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if operation.gives is not None:
        schema = {"type": "string"} if operation.gives is str else names[_key(operation.gives)]
        content = {media: {"schema": schema} for media in operation.media}
        responses["200"] = {"description": "done", "content": content}
    for status, kind in operation.also.items():
        responses[str(status)] = {
            "description": {201: "created", 202: "not yet"}[status],
            "content": {"application/json": {"schema": names[_key(kind)]}},
        }
    if "text/event-stream" in operation.media:
        responses["204"] = {"description": "the end was reached: there is nothing beyond it"}
    problems = {**_ALWAYS, 503: _STORE, 421: "called by a name that is not this server's"}
    for error in operation.errors:
        for status in _statuses(error):
            problems[status] = "; ".join(filter(None, [problems.get(status), f"`{error.code}`"]))
    if operation.query is not None or operation.takes is not None or operation.path.count("{"):
        problems.setdefault(400, "`payload`")
    if operation.takes is not None or operation.method != "GET":
        problems |= {413: "the body is too large", 415: "the body is not application/json"}
    schema = {"$ref": _REFS.format(name="Problem")}
    for status, meaning in sorted(problems.items()):
        responses[str(status)] = {"description": meaning, "content": {"application/json": {"schema": schema}}}
    return responses


def _statuses(error: type[HoldfastError]) -> list[int]:
    return [404, 410] if error.code == "hook_not_found" else [STATUS.get(error.code, 503)]
