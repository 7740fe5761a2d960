"""Schemathesis: what the document allows and what it does not, thrown at a real server; bounded.

Each operation gets generated requests, valid ones and broken ones. What must hold: no 5xx, no status or media
type that the document does not name, no body that its schema refuses, and nothing that the schema forbids is
taken.
"""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from server_kit import ServerThread

import holdfast as hf
from holdfast.chunks import Part
from holdfast.server.api.openapi import document

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


async def _read_trails_in_one_thread() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    await asyncio.to_thread(int)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    folder = tmp_path_factory.mktemp("openapi")
    server = ServerThread(f"sqlite:///{folder}/store.db", rate=0.0, trails=str(folder / "trails"))
    # Two threads that are made when they are needed are there before the first test: for reading trails (another
    # would come whenever the first has not yet said that it is idle), and for checkpoints beside large writes.
    server.run(_read_trails_in_one_thread())
    with pytest.raises(hf.RunNotFound):
        server.run(server.app.store.write_stream("nobody", "large", [Part("bytes", b"x" * 100_000)]))
    yield server
    server.stop()


schema = schemathesis.openapi.from_dict(json.loads(document()))
BOUNDED: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


@schema.exclude(path_regex="^/v1/store/").parametrize()
@settings(max_examples=5, **BOUNDED)
def test_the_server_does_what_its_document_says(case: Any, server: ServerThread) -> None:
    if case.query.get("follow") in (True, "true", 1, "1"):
        case.query["follow"] = "false"  # such an answer ends with its run
    if case.path.endswith("/result") and _number(case.query.get("timeout", 30)) is not None:
        case.query["timeout"] = "0"
    case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=20)


# Without the stream of news, which never ends; and without the examples for each limit, which cost a minute.
@schema.include(path_regex="^/v1/store/").exclude(path="/v1/store/news").parametrize()
@settings(max_examples=5, phases=[Phase.generate], **BOUNDED)
def test_so_does_the_contract_of_the_store(case: Any, server: ServerThread) -> None:
    case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=20)


def _number(text: Any) -> float | None:
    """What a query's number is, where it is one that is allowed."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 <= value <= 60 else None
