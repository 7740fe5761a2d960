"""Who may do what: tokens and scopes, names, origins, rates; and that secrets stay secret."""

import base64
import logging

import pytest

import holdfast as hf
from holdfast.errors import AccessDenied
from holdfast.server import tokens
from holdfast.store import open_store
from holdfast.store.rows import WorkerRow

RUN = {"workflow": "w", "run_id": "r"}


async def asked(http, method, url, **options):
    async with http.request(method, url, **options) as response:
        return response.status, (await response.json())["code"] if response.status >= 400 else None


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_lets_in_as_far_as_its_scope(serve, http, tmp_path):
    """read looks, write starts and signals, work is a worker; revoked, it is nothing at once."""
    url = serve(token_needed=True).url
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        made = {scope: await tokens.create(store, scope, f"for {scope}") for scope in tokens.SCOPES}
        start = {"json": RUN}
        woken = {"json": {"events": [{"type": "woken"}]}}
        note = {"json": {"events": [{"type": "noted", "key": "note#1"}], "after": 1}}
        claim = {"json": {"worker": "wrk_x", "workflows": []}}
        needs = [
            ("GET", "/v1/runs", {}, "read"),
            ("POST", "/v1/runs", start, "write"),
            ("POST", "/v1/runs/r/events", woken, "write"),
            ("POST", "/v1/runs/r/events", note, "work"),
            ("POST", "/v1/store/claim", claim, "work"),
            ("POST", "/v1/store/read", {"json": {"run": "r"}}, "read"),
        ]
        for method, path, options, needed in needs:
            assert await asked(http, method, url + path, **options) == (401, "access_denied")
            for scope, token in made.items():
                status, code = await asked(http, method, url + path, headers=bearer(token), **options)
                denied = tokens.SCOPES.index(scope) < tokens.SCOPES.index(needed)
                assert (status == 403) is denied, (path, scope)
                assert (code == "access_denied") is denied
        assert await store.drop_token(made["read"].split("_")[1])
        assert await asked(http, "GET", f"{url}/v1/runs", headers=bearer(made["read"])) == (
            401,
            "access_denied",
        )


async def test_a_token_is_kept_as_a_hash_and_never_logged(serve, http, tmp_path, caplog):
    """What lies in the store lets nobody in; a log says who called, not with what."""
    caplog.set_level(logging.DEBUG)
    url = serve(token_needed=True).url
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        token = await tokens.create(store, "read")
        (kept,) = await store.tokens()
        assert len(kept.hash) == 32
        assert await tokens.recognise(store, token) == kept
        for wrong in (token[:-1], token + "x", token.replace("hft", "hfx"), f"hft_{kept.id}_", "", "\udc80"):
            assert await tokens.recognise(store, wrong) is None
    assert await asked(http, "GET", f"{url}/v1/runs", headers=bearer(token)) == (200, None)
    assert await asked(http, "GET", f"{url}/v1/runs", headers=bearer(token + "x")) == (401, "access_denied")
    secret = token.split("_", 2)[2]
    for file in tmp_path.iterdir():
        if file.is_file():
            assert secret.encode() not in file.read_bytes()
    assert secret not in caplog.text


async def test_clients_and_workers_bring_their_token(serve, tmp_path, monkeypatch):
    """http://TOKEN@host, or HOLDFAST_TOKEN; who starts and signals needs no more than write."""
    url = serve(token_needed=True).url
    with pytest.raises(AccessDenied, match="holdfast token create"):
        async with hf.connect(url):
            pass
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        write, read = [await tokens.create(store, scope) for scope in ("write", "read")]
    async with hf.connect(url.replace("://", f"://{write}@")) as app:
        assert write not in app.store.url
        run = await app.start_raw("w", b"{}", run_id="r")
        assert await run.wake()
        assert await run.cancel("enough")
        assert await run.terminate()
        with pytest.raises(AccessDenied):
            await app.store.enlist(WorkerRow("wrk_x", 1, "h", 0))
    monkeypatch.setenv("HOLDFAST_TOKEN", read)
    async with hf.connect(url) as app:
        assert await app.run("r").status() == "cancelled"
        with pytest.raises(AccessDenied):
            await app.start_raw("w", b"{}")


async def test_a_browser_signs_in_by_the_password_prompt(serve, http, tmp_path):
    """Basic, with the token as the password: the page and its streams need nothing else."""
    url = serve(token_needed=True).url
    async with http.get(url) as response:
        assert (response.status, "Basic" in response.headers["WWW-Authenticate"]) == (401, True)
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        token = await tokens.create(store, "read")
    basic = {"Authorization": "Basic " + base64.b64encode(f"me:{token}".encode()).decode()}
    async with http.get(url, headers=basic) as response:
        assert response.status == 200
    assert await asked(http, "GET", f"{url}/v1/runs", headers={"Authorization": "Basic ???"}) == (
        *(401, "access_denied"),
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8470"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "192.168.1.5"}, 401),
        ({"X-Forwarded-For": "203.0.113.9"}, 401),
        ({"Forwarded": "for=203.0.113.9"}, 401),
    ],
)
async def test_without_a_token_only_this_machine_by_its_own_name(serve, http, headers, status):
    """A page that rebinds its name to 127.0.0.1, and a proxy that speaks for others, are not this machine."""
    url = serve().url
    async with http.get(f"{url}/v1/runs", headers=headers) as response:
        assert response.status == status
    async with http.get(url, headers=headers) as response:
        assert response.status == status


async def test_pages_of_other_sites_may_send_nothing(serve, http):
    """Cross-site requests: refused by their Origin; no CORS header unless the origin was allowed."""
    server = serve(origins=("https://good.example",))
    url = f"{server.url}/v1/runs"
    for origin, status in (("https://evil.example", 403), ("null", 403), ("https://good.example", 201)):
        async with http.post(url, json=RUN, headers={"Origin": origin}) as response:
            assert response.status == status
            allowed = response.headers.get("Access-Control-Allow-Origin")
            assert allowed == (origin if status == 201 else None)
    async with http.post(url, json=RUN, headers={"Origin": server.url}) as response:
        assert response.status == 200
    closed = serve()
    async with http.get(f"{closed.url}/v1/runs", headers={"Origin": "https://good.example"}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_who_asks_too_much_waits(serve, http):
    """429 with Retry-After; the Python client waits by itself. Who guesses at tokens gets few tries."""
    server = serve(rate=20.0, burst=3)
    answers = [await asked(http, "GET", f"{server.url}/v1/runs") for _ in range(8)]
    assert answers[0] == (200, None)
    assert (429, "too_many_requests") in answers
    async with hf.connect(server.url) as app:
        for _ in range(8):
            assert [run async for run in app.runs()] == []

    guarded = serve(token_needed=True)
    guesses = [
        await asked(http, "GET", f"{guarded.url}/v1/runs", headers=bearer(f"hft_{n}_x")) for n in range(12)
    ]
    assert guesses[0] == (401, "access_denied")
    assert guesses[-1] == (429, "too_many_requests")
