"""The API as a stranger meets it: plain HTTP, typed answers, one form of errors."""

import asyncio
import base64
import json

import msgspec
from server_kit import lines_of

import holdfast as hf
from holdfast.server.api.openapi import document


@hf.step
async def api_double(n: int) -> int:
    return 2 * n


@hf.workflow
async def api_doubles(n: int) -> int:
    return await api_double(n)


@hf.workflow
async def api_asks(name: str) -> str:
    answer = await hf.hook(f"api/ask {name}", type=str)
    return f"{name}: {answer}"


@hf.workflow
async def api_sleeps() -> None:
    await asyncio.sleep(3600)


async def post(http, url, body=None, **headers):
    async with http.post(url, json=body or {}, headers=headers) as response:
        return response.status, await response.json()


async def get(http, url, **query):
    async with http.get(url, params=query) as response:
        return response.status, await response.json()


async def test_a_run_from_start_to_end(serve, http):
    """Start, wait for the result, read the log; the same start again is the same run, another one is refused."""
    base = f"{serve().url}/v1"
    asked = {
        "workflow": "api_doubles",
        "args": {"n": 21},
        "run_id": "order/1 é",
        "attributes": {"tier": "gold"},
    }
    assert await post(http, f"{base}/runs", asked) == (201, {"run": "order/1 é", "duplicate": False})
    assert await post(http, f"{base}/runs", asked) == (200, {"run": "order/1 é", "duplicate": True})
    status, problem = await post(http, f"{base}/runs", asked | {"args": {"n": 22}})
    assert (status, problem["code"]) == (409, "run_exists")

    run = f"{base}/runs/order%2F1%20%C3%A9"
    assert await get(http, f"{run}/result", timeout=0) == (202, {"run": "order/1 é", "status": "pending"})
    async with hf.connect(base.removesuffix("/v1")) as app, app.worker():
        status, result = await get(http, f"{run}/result", timeout=20)
    assert (status, result) == (200, {"run": "order/1 é", "status": "completed", "value": 42})

    async with http.get(f"{run}/events") as response:
        assert response.content_type == "application/x-ndjson"
        log = [json.loads(line) for line in (await response.text()).splitlines()]
    assert [event["position"] for event in log] == [1, 2, 3, 4, 5, 6]
    assert (log[0]["type"], log[-1]["type"]) == ("run_created", "run_completed")
    async with http.get(f"{run}/events?after=4&limit=1&data=false") as response:
        assert [set(json.loads(line)) for line in (await response.text()).splitlines()] == [
            {"run", "position", "type", "at", "key"}
        ]
    assert (await get(http, run))[1]["status"] == "completed"
    assert (await get(http, f"{run}/verify"))[1] == {
        "run": "order/1 é",
        "sound": True,
        "events": 6,
        "differences": [],
    }
    found = await get(http, f"{base}/runs", attribute="tier=gold", status="completed")
    assert [row["id"] for row in found[1]["runs"]] == ["order/1 é"]


async def test_an_idempotency_key_makes_a_write_safe_to_send_again(serve, http):
    """The key is the run's id, the delivery's id, the batch's id."""
    base = f"{serve().url}/v1"
    key = {"Idempotency-Key": "k-1"}
    asked = {"workflow": "api_asks", "args": {"name": "x"}}
    assert await post(http, f"{base}/runs", asked, **key) == (201, {"run": "k-1", "duplicate": False})
    assert await post(http, f"{base}/runs", asked, **key) == (200, {"run": "k-1", "duplicate": True})

    woken = {"events": [{"type": "woken"}]}
    first = await post(http, f"{base}/runs/k-1/events", woken, **{"Idempotency-Key": "b-1"})
    assert first == await post(http, f"{base}/runs/k-1/events", woken, **{"Idempotency-Key": "b-1"})
    assert (first[0], first[1]["first"]) == (200, 2)

    async with hf.connect(base.removesuffix("/v1")) as app, app.worker():
        while not [hook async for hook in app.hooks()]:
            await asyncio.sleep(0.005)
        status, page = await get(http, f"{base}/hooks")
        assert (status, page["hooks"][0]["token"]) == (200, "api/ask x")
        payload = {"token": "api/ask x", "payload": "yes"}
        status, there = await post(http, f"{base}/hooks/resume", payload, **key)
        assert (status, there["run"], there["duplicate"]) == (200, "k-1", False)
        again = await post(http, f"{base}/hooks/resume", payload, **key)
        assert again == (200, there | {"duplicate": True})
        status, other = await post(http, f"{base}/hooks/resume", payload | {"payload": "no"}, **key)
        assert (status, other["code"]) == (409, "delivery_conflict")
        assert (await get(http, f"{base}/runs/k-1/result"))[1]["value"] == "x: yes"
    status, gone = await post(http, f"{base}/hooks/resume", payload)
    assert (status, gone["code"], gone["reason"]) == (410, "hook_not_found", "run_ended")
    status, gone = await post(http, f"{base}/hooks/resume", {"token": "nobody's"})
    assert (status, gone["code"], gone["reason"]) == (404, "hook_not_found", "unknown")


async def test_the_fenced_append_answers_by_type(serve, http):
    """Issue: 200 with duplicate, 400 fence missing, 404, 410, 412 with what was missed, 425 with Retry-After."""
    base = f"{serve().url}/v1/runs"
    note = {"type": "noted", "key": "note#1", "data": {"kind": "note", "content": "x"}}

    async def append(run, *events, after=None, **more):
        return await post(http, f"{base}/{run}/events", {"events": list(events), "after": after, **more})

    assert (await append("r", note, after=1))[1]["code"] == "run_not_found"
    status, answer = await append("r", {"type": "run_created", "data": {"workflow": "w"}}, after=0)
    assert (status, answer["first"], answer["last"]) == (200, 1, 1)
    step = [
        {"type": "step_scheduled", "key": "a#1", "data": {"args": {}}},
        {"type": "step_started", "key": "a#1", "data": {"attempt": 1}},
    ]
    assert (await append("r", {"type": "run_started"}, *step, after=1))[0] == 200
    done = {"type": "step_completed", "key": "a#1", "data": {"attempt": 1, "result": None}}
    retried = {"type": "step_retried", "key": "a#1", "data": {"attempt": 1, "due": 2**52, "error": {}}}
    assert (await append("r", retried))[0] == 200
    async with http.post(
        f"{base}/r/events",
        json={"events": [{"type": "step_started", "key": "a#1", "data": {"attempt": 2}}]},
    ) as early:
        assert (early.status, early.headers["Retry-After"]) == (425, "1")
        assert (await early.json())["code"] == "too_early"

    cancel = {"type": "cancel_requested", "data": {}}
    first = (await append("r", cancel))[1]
    again = await append("r", cancel)
    assert (again[0], again[1]["duplicate"], again[1]["first"]) == (200, True, first["first"])

    status, problem = await append("r", note)
    assert (status, problem["code"]) == (400, "fence_missing")
    status, problem = await append("r", note, after=1)
    assert (status, problem["code"], problem["position"]) == (412, "stale_log", 6)
    assert [row[:2] for row in problem["missed"]] == [
        *([2, "run_started"], [3, "step_scheduled"], [4, "step_started"]),
        *([5, "step_retried"], [6, "cancel_requested"]),
    ]
    status, answer = await append("r", note, after=5)
    assert (status, [row[:2] for row in answer["missed"]]) == (200, [[6, "cancel_requested"]])
    assert (await append("r", note, after=99))[1]["code"] == "invalid_append"
    assert (await append("r", {"type": "nonsense"}))[1]["code"] == "payload"
    assert (await append("r", {"type": "attributes_set", "key": "a#9"}, after=7))[1][
        "code"
    ] == "invalid_append"
    assert (await append("r", done | {"key": "zz#1"}))[1]["code"] == "command_missing"
    assert (await append("r", {"type": "run_cancelled", "data": {"by": "terminate"}}))[0] == 200
    status, problem = await append("r", note, after=8)
    assert (status, problem["code"]) == (410, "run_ended")


async def test_actions_say_whether_they_happened(serve, http):
    """Cancel, terminate, wake: done or not, and how the run stands; a run that is not there is 404."""
    base = f"{serve().url}/v1/runs"
    await post(http, base, {"workflow": "api_sleeps", "run_id": "s"})
    assert await post(http, f"{base}/s/wake") == (200, {"run": "s", "done": True, "status": "pending"})
    assert await post(http, f"{base}/s/cancel", {"reason": "r"}) == (
        *(200, {"run": "s", "done": True, "status": "pending"}),
    )
    ended = {"run": "s", "done": True, "status": "cancelled"}
    assert await post(http, f"{base}/s/terminate", {"reason": "now"}) == (200, ended)
    assert await post(http, f"{base}/s/terminate") == (200, ended | {"done": False})
    assert (await get(http, f"{base}/s/result"))[1] == {"run": "s", "status": "cancelled", "reason": "now"}
    for action in ("wake", "cancel", "terminate"):
        status, problem = await post(http, f"{base}/nobody/{action}")
        assert (status, problem["code"]) == (404, "run_not_found")


async def test_pages_of_runs_by_a_stable_cursor(serve, http):
    """Runs that start meanwhile do not shift the pages."""
    base = f"{serve().url}/v1/runs"
    for n in range(7):
        await post(http, base, {"workflow": "api_sleeps", "run_id": f"r{n}"})
    found, cursor = [], {}
    while True:
        _, page = await get(http, base, limit=3, **cursor)
        found += [row["id"] for row in page["runs"]]
        await post(http, base, {"workflow": "api_sleeps", "run_id": f"later{len(found)}"})
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == [f"r{n}" for n in reversed(range(7))]
    status, problem = await get(http, base, cursor="nonsense")
    assert (status, problem["code"]) == (400, "payload")


async def test_what_does_not_fit_is_refused_in_one_form(serve, http):
    """Bad JSON, unknown fields, wrong media, wrong methods, unknown paths, too large: code and message."""
    base = serve(body_limit=5000).url

    async def told(method, path, **options):
        async with http.request(method, base + path, **options) as response:
            assert response.content_type == "application/json"
            problem = await response.json()
            assert set(problem) == {"code", "message"}
            return response.status, problem["code"]

    json_body = {"Content-Type": "application/json"}
    assert await told("POST", "/v1/runs", data=b"{", headers=json_body) == (400, "payload")
    assert await told("POST", "/v1/runs", json={"workflow": "w", "arg": {}}) == (400, "payload")
    assert await told("POST", "/v1/runs", data=b"workflow=w") == (415, "media_type")
    assert await told("POST", "/v1/runs", json={"workflow": "x" * 6000}) == (413, "body_too_large")
    assert await told("GET", "/v1/runs?limit=0") == (400, "payload")
    assert await told("GET", "/v1/nothing") == (404, "not_found")
    assert await told("DELETE", "/v1/runs") == (405, "method_not_allowed")
    assert await told("GET", "/v1/runs/%FF") == (400, "payload")
    assert await told("GET", "/v1/trails") == (404, "not_found")


async def test_what_no_store_can_hold_is_the_senders_error(serve, http):
    """Numbers beyond 64 bits, half a surrogate pair: 400, and what came in the same group is not touched."""
    base = f"{serve().url}/v1"
    half = json.loads('"\\ud800"')
    for path, body in (
        ("store/read", {"run": "r", "after": 2**70}),
        ("store/head", {"run": half}),
        ("store/timers", {"limit": 2**80}),
        ("runs", {"workflow": half}),
        ("runs", {"workflow": "w", "run_id": half}),
        ("runs/r/events", {"events": [{"type": "run_created", "key": half}], "after": 0}),
        ("hooks/resume", {"token": half}),
    ):
        status, problem = await post(http, f"{base}/{path}", body)
        assert (status, problem["code"]) in ((400, "payload"), (400, "invalid_append")), (
            path,
            status,
            problem,
        )
    rows = [["run_created", "", json.dumps({"workflow": "w"})]]
    bad = [["run_created", half, "{}"]]
    group = [{"run": run, "drafts": rows, "batch": run, "after": 0} for run in ("r1", "r2")]
    group.insert(1, {"run": "r3", "drafts": bad, "batch": "b", "after": 0})
    status, answer = await post(http, f"{base}/store/write", {"appends": group})
    assert (status, [one["status"] for one in answer["outcomes"]]) == (200, [200, 400, 200])


async def test_what_is_nested_too_deeply_is_the_senders_error(serve, http):
    """Also of workers: what this process can take in, another one may not be able to read."""
    base = f"{serve().url}/v1"
    deep = []
    for _ in range(300):
        deep = [deep]
    note = {"type": "noted", "key": "note#1", "data": {"kind": "note", "content": "x", "raw": deep}}
    created = {"type": "run_created", "data": {"workflow": "w", "args": {"x": deep}}}
    for path, body in (
        ("runs", {"workflow": "w", "args": {"x": deep}}),
        ("hooks/resume", {"token": "t", "payload": deep}),
        ("runs/r/events", {"events": [created], "after": 0}),
        ("runs/r/events", {"events": [note], "after": 1}),
    ):
        status, problem = await post(http, f"{base}/{path}", body)
        assert (status, problem["code"]) == (400, "payload"), path
        assert "is nested too deeply" in problem["message"]

    def row(run, data):
        return {"run": run, "drafts": [["run_created", "", json.dumps(data)]], "batch": run, "after": 0}

    group = [row("r1", {"workflow": "w"}), row("r2", created["data"])]
    body = base64.b64encode(json.dumps(deep).encode()).decode()
    chunk = {"run": "r1", "name": "s", "parts": [["json", body, None]], "batch": "b"}
    _, answer = await post(http, f"{base}/store/write", {"appends": group, "chunks": [chunk]})
    assert [one["status"] for one in answer["outcomes"]] == [200, 400, 400], answer


async def test_events_come_as_they_are_committed_and_resume(serve, http):
    """SSE: live without polling, `Last-Event-ID` goes on behind a position, an ended run says so."""
    server = serve()
    url = f"{server.url}/v1/runs/live/events"
    await post(http, f"{server.url}/v1/runs", {"workflow": "api_doubles", "args": {"n": 1}, "run_id": "live"})
    sse = {"Accept": "text/event-stream"}
    async with http.get(url, headers=sse) as stream:
        lines = lines_of(stream)
        assert await anext(lines) == ("1", "run_created")
        async with hf.connect(server.url) as app, app.worker():
            rest = [line async for line in lines]
    assert [int(id) for id, _ in rest] == [2, 3, 4, 5, 6]
    async with http.get(url, headers=sse | {"Last-Event-ID": "4"}) as stream:
        assert [line async for line in lines_of(stream)] == rest[3:]
    async with http.get(url, headers=sse | {"Last-Event-ID": "6"}) as stream:
        assert stream.status == 204
    async with http.get(f"{url}?follow=true&after=5") as stream:
        assert [json.loads(line)["position"] async for line in stream.content] == [6]


async def test_trails_of_a_folder(serve, http, tmp_path):
    """The read side: list, search, and one whole."""
    from holdfast.trail import TrailFolder

    with TrailFolder(tmp_path / "trails").start("Fix the login", agent="ana") as trail:
        trail.note("It fails for names with a quote")
    base = f"{serve(trails=str(tmp_path / 'trails')).url}/v1/trails"
    assert [row["id"] for row in (await get(http, base))[1]["trails"]] == [trail.id]
    assert [row["title"] for row in (await get(http, base, search="quote"))[1]["trails"]] == ["Fix the login"]
    assert (await get(http, f"{base}/{trail.id}"))[1]["task"]["title"] == "Fix the login"
    assert (await get(http, f"{base}/traj_nobody"))[0] == 404


async def test_the_document_is_made_from_the_operations(serve, http):
    """OpenAPI 3.1: every route is in it, and every reference of it resolves."""
    status, told = await get(http, f"{serve().url}/openapi.json")
    assert (status, told["openapi"]) == (200, "3.1.0")
    assert told == msgspec.json.decode(document())
    names = set(told["components"]["schemas"])
    text = document().decode()
    used = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert used <= names
    assert {"/v1/runs", "/v1/runs/{run}/events", "/v1/hooks/resume", "/v1/store/write"} <= set(told["paths"])
