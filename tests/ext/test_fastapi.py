"""Holdfast in an application of FastAPI: what users hold, over real HTTP where it counts."""

import asyncio
import threading

import aiohttp
import httpx2 as httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from patience import PATIENCE
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

import holdfast as hf
from holdfast.ext.fastapi import Holdfast
from holdfast.server import Settings, tokens


@hf.step(name="ext.double")
async def double(number: int) -> int:
    return 2 * number


@hf.workflow(name="ext.order")
async def order(number: int) -> str:
    paid = hf.webhook(respond="manual")
    hf.set_attributes(url=paid.url)
    request = await paid
    await request.respond(hf.Response.json({"twice": await double(number)}))
    return request.text()


def shop(url, **options):
    """An application as somebody writes it."""
    durable = Holdfast(url, **options)
    api = FastAPI(lifespan=durable.lifespan)

    @api.post("/orders/{number}")
    async def place(number: int, app: hf.App = Depends(durable)) -> dict[str, str]:
        run = await app.start(order, number, run_id=f"order-{number}")
        return {"run": run.id, "url": (await run.info()).attributes["url"]}

    @api.get("/orders/{number}")
    async def look(number: int, app: hf.App = Depends(durable)) -> str:
        return await app.run(f"order-{number}").result(PATIENCE)

    return durable, api


def test_an_order_with_the_test_client(tmp_path):
    """Started by an endpoint, paid by a webhook, looked at with a token; twice, as after a restart."""
    durable, api = shop(f"sqlite:///{tmp_path}/app.db", public_url="http://testserver")
    with TestClient(api) as client:
        placed = client.post("/orders/7").json()
        assert placed["url"].startswith("http://testserver/holdfast/webhooks/whk_")
        answer = client.post(placed["url"], content=b"cash")
        assert (answer.status_code, answer.json()) == (200, {"twice": 14})
        assert client.get("/orders/7").json() == "cash"
        assert client.post(placed["url"]).status_code == 410
        assert client.get("/holdfast/v1/runs").status_code == 401
        assert client.get("/holdfast/openapi.json").status_code == 401
        assert client.get("/holdfast/").status_code in (401, 404)
        token = client.portal.call(tokens.create, durable.app.store, "read")
        bearer = {"Authorization": f"Bearer {token}"}
        (run,) = client.get("/holdfast/v1/runs", headers=bearer).json()["runs"]
        assert (run["id"], run["status"]) == ("order-7", "completed")
        assert client.get("/holdfast/v1/runs/order-7", headers=bearer).status_code == 200
        assert client.post("/holdfast/v1/runs/order-7/cancel", headers=bearer, json={}).status_code == 403
        assert client.get("/holdfast/", headers=bearer).status_code == 404
        assert client.get("/holdfast/openapi.json", headers=bearer).json()["openapi"].startswith("3.1")
    with pytest.raises(hf.StoreError, match="not started"):
        _ = durable.app
    with TestClient(api) as client:
        assert client.get("/orders/7").json() == "cash"
        assert [getattr(route, "path", "") for route in api.routes].count("/holdfast") == 1
    assert not [route for route in api.routes if isinstance(route, Mount)]


async def test_the_same_in_this_loop(tmp_path):
    """Without a network; a mount at the root takes nothing from it; a lifespan of one's own."""
    durable = Holdfast(
        "memory://", settings=Settings(), prefix="/durable", public_url="http://localhost/base/"
    )
    api = FastAPI()
    api.mount("/", PlainTextResponse("root"))
    transport = httpx.ASGITransport(api, client=("127.0.0.1", 5))
    async with (
        durable.lifespan(api),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        run = await (await durable()).start(order, 4, run_id="a/b")
        url = (await run.info()).attributes["url"]
        assert url.startswith("http://localhost/base/durable/webhooks/whk_")
        assert (await http.get("/durable/v1/runs/a%2Fb")).json()["id"] == "a/b"
        assert (await http.put(url.replace("/base", ""), content=b"x")).json() == {"twice": 8}
        assert (await http.get("/elsewhere")).text == "root"
        with pytest.raises(hf.StoreError, match="already"):
            async with durable.lifespan(api):
                pass
    assert (await http_get(api, "/durable/v1/runs")) == "root"


async def http_get(api, path):
    transport = httpx.ASGITransport(api, client=("127.0.0.1", 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.get(path)).text


async def test_without_a_worker_others_do_the_work(tmp_path):
    """A web process that starts and signals, and a worker elsewhere; over real HTTP, with uvicorn's own stop."""
    store = f"sqlite:///{tmp_path}/app.db"
    _, api = shop(store, worker=False)
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with hf.connect(store) as app, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await app.start_raw("ext.order", b'{"number": 3}', run_id="order-3")
            async with app.worker(public_url=f"http://127.0.0.1:{port}/holdfast"):
                while "url" not in (info := await app.run("order-3").info()).attributes:
                    await asyncio.sleep(0.01)
                async with http.post(info.attributes["url"], data=b"cheque") as answer:
                    assert await answer.json() == {"twice": 6}
            async with http.get("/orders/3") as answer:
                assert await answer.json() == "cheque"
            async with http.get("/holdfast/v1/runs") as answer:
                assert answer.status == 401
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("prefix", ["", "holdfast", "/holdfast/", "/"])
def test_a_prefix_is_a_path(prefix):
    with pytest.raises(hf.DefinitionError, match="prefix"):
        Holdfast("memory://", prefix=prefix)
