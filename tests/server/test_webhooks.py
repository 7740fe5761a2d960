"""Webhooks: from the code that opens one, over a real server, to the code that reads the request; and back."""

import asyncio
import base64
import hashlib
import hmac
import io
import json
import time

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.replay import replay_run
from holdfast.testing import Rehearsal
from holdfast.webhooks import PUBLIC_URL

GITHUB, STRIPE, STANDARD = "github-secret", "whsec_stripe", "whsec_" + base64.b64encode(b"k" * 24).decode()


@hf.workflow(name="hook.read")
async def read(count: int = 1) -> list[hf.Request]:
    hook = hf.webhook(metadata={"for": "ana"})
    return [await hook for _ in range(count)]


@hf.step(name="hook.answer", retries=3)
async def answer(request: hf.Request, text: str) -> None:
    await request.respond(hf.Response.text(f"{text}, attempt {hf.step_info().attempt}", status=201))
    if text == "twice" and hf.step_info().attempt == 1:
        raise RuntimeError("after the answer")


@hf.step(name="hook.answer_sync")
def answer_sync(request: hf.Request) -> None:
    request.respond_sync(hf.Response.json({"got": request.json()}, headers={"x-by": "a thread"}))


@hf.workflow(name="hook.manual")
async def manual(text: str) -> str:
    request = await hf.webhook(respond="manual")
    if text == "sync":
        await answer_sync(request)
    elif text == "code":
        await request.respond(hf.Response(204))
    elif text != "never":
        await answer(request, text)
    return request.id


@hf.workflow(name="hook.signed")
async def signed(scheme: str) -> hf.Request:
    return await hf.webhook(verify=hf.Signature(scheme, secret="HOOK_TEST_SECRET"))


@pytest.fixture
async def site(serve, tmp_path, request):
    """A server, and a worker in another thread whose webhooks say where the server is.

    Both are on one SQLite file, or where `everywhere` says: on PostgreSQL, or the worker behind the server.
    """
    where = getattr(request, "param", "sqlite")
    url = request.getfixturevalue("postgres_url") if where == "postgres" else f"sqlite:///{tmp_path}/store.db"
    server = serve(store=url, webhook_timeout=20.0)
    async with (
        hf.connect(server.url if where == "http" else url) as app,
        app.worker(public_url=server.url + "/"),
    ):
        yield app


everywhere = pytest.mark.parametrize("site", ["sqlite", "postgres", "http"], indirect=True)


async def url_of(app, run):
    (hook,) = [hook async for hook in app.hooks(run=run.id)]
    return hook.schema["webhook"]["url"]


async def sent(http, url, method="POST", **options):
    async with http.request(method, url, **options) as response:
        return response.status, await response.read()


async def received(app, run):
    return [event async for event in app.run(run.id).events() if event.type == "hook_received"]


@everywhere
async def test_a_request_comes_as_it_was_sent(site, http):
    """Method, path behind the token, query, headers, bytes; what lets somebody in elsewhere is left out."""
    run = await site.start(read, 2)
    url = await url_of(site, run)
    body = bytes(range(256))
    first = {"headers": {"X-Event": "a", "Cookie": "c=1", "Authorization": "Bearer x", "Webhook-Id": "m-1"}}
    assert await sent(http, f"{url}/in/voice?a=1&a=2&b=%20", data=body, **first) == (202, b"")
    assert await sent(http, url, "GET") == (202, b"")
    one, two = await run.result(PATIENCE)
    assert (one.method, one.path, one.body, one.id) == ("POST", "/in/voice", body, "m-1")
    assert one.query_string == "a=1&a=2&b=%20"
    assert one.query == {"a": "2", "b": " "}
    assert one.headers["x-event"] == "a"
    assert not {"cookie", "authorization"} & one.headers.keys()
    assert one.run == run.id
    assert (two.method, two.path, two.body, two.text()) == ("GET", "", b"", "")
    with pytest.raises(hf.PayloadError, match="no JSON"):
        two.json()
    with pytest.raises(hf.PayloadError, match="UTF-8"):
        one.text()


@everywhere
async def test_whoever_knows_the_url_may_send_and_nobody_else(site, http):
    """Unknown, plain and closed tokens: 404; of a run that has ended: 410. A foreign name and page may send."""
    run = await site.start(read)
    url = await url_of(site, run)
    base, token = url.rsplit("/", 1)
    for other in (f"whk_{0:032x}", "x", f"{token}0", token.upper(), "a%2Fb"):
        assert (await sent(http, f"{base}/{other}"))[0] == 404
    foreign = {"Host": "hooks.example", "Origin": "https://shop.example", "X-Forwarded-For": "192.0.2.7"}
    assert (await sent(http, url, headers={**foreign, "X-GitHub-Delivery": "g-1"}))[0] == 202
    assert len(await run.result(PATIENCE)) == 1
    status, told = await sent(http, url)
    assert (status, json.loads(told)["code"]) == (410, "hook_not_found")
    # Sent again it is answered as before, for its sender has perhaps not heard the first answer.
    assert (await sent(http, url, headers={"X-GitHub-Delivery": "g-1"}))[0] == 202
    assert len(await received(site, run)) == 1


@hf.workflow(name="hook.closes")
async def closes() -> None:
    async with hf.webhook():
        pass
    await hf.hook("go on")


async def test_a_closed_webhook_and_a_hook_without_a_url_are_not_found(site, http):
    run = await site.start(closes)
    (hook,) = [hook async for hook in site.hooks(run=run.id, open_only=False) if hook.status == "closed"]
    assert (await sent(http, hook.schema["webhook"]["url"]))[0] == 404
    base = hook.schema["webhook"]["url"].rsplit("/", 1)[0]
    assert (await sent(http, f"{base}/go%20on"))[0] == 404
    assert await received(site, run) == []


@everywhere
async def test_a_request_that_is_sent_again_counts_once(site, http):
    """By the sender's id, whatever else is new about it; without one, each counts."""
    run = await site.start(read, 3)
    url = await url_of(site, run)
    for attempt in range(3):
        headers = {"Idempotency-Key": "k" * 400, "X-Attempt": str(attempt)}
        assert (await sent(http, url, data=b"1", headers=headers))[0] == 202
    for _ in range(2):
        assert (await sent(http, url, data=b"2"))[0] == 202
    assert [request.body for request in await run.result(PATIENCE)] == [b"1", b"2", b"2"]


@hf.workflow(name="hook.told")
async def told_once() -> None:
    await hf.webhook(respond=hf.Response.text("<b>hi</b>", headers={"content-type": "text/html", "x-a": "b"}))


async def test_a_response_is_what_the_code_said_and_nobodys_page(site, http):
    """It is set when the webhook opens; a browser gives it no part in this server's pages."""
    run = await site.start(told_once)
    async with http.post(await url_of(site, run)) as response:
        assert (response.status, await response.text()) == (200, "<b>hi</b>")
        assert (response.headers["content-type"], response.headers["x-a"]) == ("text/html", "b")
        assert response.headers["content-security-policy"].startswith("sandbox")
        assert response.headers["x-content-type-options"] == "nosniff"


@everywhere
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("once", (201, b"once, attempt 1")),
        ("twice", (201, b"twice, attempt 1")),
        ("sync", (200, b'{"got":[1]}')),
        ("code", (204, b"")),
    ],
)
async def test_a_step_answers_and_the_first_answer_holds(site, http, text, expected):
    """Also for who asks again, when the run has long ended."""
    run = await site.start(manual, text)
    url = await url_of(site, run)
    request = {"data": b"[1]", "headers": {"Webhook-Id": "m-1"}}
    assert await sent(http, url, **request) == expected
    assert await run.result(PATIENCE) == "m-1"
    assert await sent(http, url, **request) == expected
    assert len(await received(site, run)) == 1


async def test_an_answer_survives_the_worker(serve, http, tmp_path):
    """The sender waits at the server while one worker goes and another comes."""
    server = serve()
    async with hf.connect(f"sqlite:///{tmp_path}/store.db") as app:
        async with app.worker(public_url=server.url):
            run = await app.start(manual, "later")
            url = await url_of(app, run)
        waiting = asyncio.create_task(sent(http, url, headers={"Webhook-Id": "m-1"}))
        while not await received(app, run):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        async with app.worker():
            assert await waiting == (201, b"later, attempt 1")


async def test_who_is_not_answered_in_time_asks_again(serve, http, tmp_path):
    """504, the request is kept; 502 where the run ends without an answer."""
    server = serve(webhook_timeout=0.2)
    async with hf.connect(f"sqlite:///{tmp_path}/store.db") as app:
        async with app.worker(public_url=server.url):
            run, mute = await app.start(manual, "late"), await app.start(manual, "never")
            url, nothing = await url_of(app, run), await url_of(app, mute)
        headers = {"Webhook-Id": "m-1"}
        status, told = await sent(http, url, headers=headers)
        assert (status, json.loads(told)["code"]) == (504, "no_response")
        assert (await sent(http, nothing, headers=headers))[0] == 504
        async with app.worker():
            await run.result(PATIENCE)
            await mute.result(PATIENCE)
        assert await sent(http, url, headers=headers) == (201, b"late, attempt 1")
        assert (await sent(http, nothing, headers=headers))[0] == 502
        assert len(await received(app, run)) == 1


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256)


def signature(scheme, secret, body, at=None, id="m-1"):
    """Headers as that sender makes them."""
    at = str(int(at or time.time()))
    if scheme == "github":
        hexed = mac(secret.encode(), body).hexdigest()
        return {"X-Hub-Signature-256": f"sha256={hexed}", "X-GitHub-Delivery": id}
    if scheme == "stripe":
        hexed = mac(secret.encode(), at.encode() + b"." + body).hexdigest()
        return {"Stripe-Signature": f"t={at},v1={'0' * 64},v1={hexed},v0=x"}
    raw = mac(base64.b64decode(secret.removeprefix("whsec_")), f"{id}.{at}.".encode() + body).digest()
    signed = f"v1a,x v1,{base64.b64encode(raw).decode()}"
    return {"webhook-id": id, "webhook-timestamp": at, "webhook-signature": signed}


SCHEMES = {"github": GITHUB, "stripe": STRIPE, "standard-webhooks": STANDARD}


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_only_what_was_signed_is_delivered(site, http, monkeypatch, caplog, scheme):
    """Wrong, for another body, too old, too new, missing: 401, nothing in the log; and no secret anywhere."""
    secret, body = SCHEMES[scheme], b'{"id": "evt_1"}'
    run = await site.start(signed, scheme)
    url = await url_of(site, run)
    good = signature(scheme, secret, body)
    assert (await sent(http, url, data=body, headers=good))[0] == 503  # nobody knows the secret: try again
    monkeypatch.setenv("HOOK_TEST_SECRET", f"whsec_b2xk {secret}")  # while one replaces the other
    other = "whsec_" + base64.b64encode(b"other").decode()
    bad = [{}, signature(scheme, other, body), signature(scheme, secret, body + b" ")]
    bad += [{name: value[: len(value) // 2] for name, value in good.items()}, dict.fromkeys(good, "")]
    bad += [dict.fromkeys(good, "é"), dict.fromkeys(good, "v1,=")]
    if scheme != "github":
        bad += [signature(scheme, secret, body, at=time.time() + off) for off in (-400, 400)]
    for headers in bad:
        status, told = await sent(http, url, data=body, headers=headers)
        assert (status, json.loads(told)["code"]) == (401, "signature"), headers
    assert await received(site, run) == []
    for _ in range(2):
        assert (await sent(http, url, data=body, headers=good))[0] == 202
        good = signature(scheme, secret, body)
    request = await run.result(PATIENCE)
    assert request.id == ("evt_1" if scheme == "stripe" else "m-1")
    assert len(await received(site, run)) == 1
    log = b"".join([event.to_json() async for event in site.run(run.id).events()])
    assert secret.encode() not in log
    assert secret not in caplog.text


async def test_limits(serve, http, tmp_path):
    """Too large, too slow, too many: refused, and nothing delivered."""
    server = serve(webhook_timeout=0.3, rate=0.001, burst=4)
    async with hf.connect(f"sqlite:///{tmp_path}/store.db") as app, app.worker(public_url=server.url):
        run = await app.start(read)
        url = await url_of(app, run)
        for size in (app.payload_limit + 1, app.payload_limit - 9):  # the second grows in base64
            assert (await sent(http, url, data=io.BytesIO(b"x" * size)))[0] == 413

        async def slow():
            yield b"x"
            await asyncio.sleep(60)

        assert (await sent(http, url, data=slow()))[0] == 408
        assert (await sent(http, f"{url}0"))[0] == 404
        assert (await sent(http, url))[0] == 429
        assert await received(app, run) == []


@hf.workflow(name="hook.chain")
async def chain(number: int) -> str:
    first, second = hf.webhook(respond="manual"), hf.webhook()
    if number == 1:
        await second
        hf.continue_as_new(2)
    request = await first
    await answer(request, f"number {number}")
    return first.url


@everywhere
async def test_a_run_that_continues_keeps_its_urls(site, http):
    """What came for the run before is answered by its successor."""
    run = await site.start(chain, 1)
    terms = [hook.schema["webhook"] async for hook in site.hooks(run=run.id)]
    first, second = (told["url"] for told in sorted(terms, key=lambda told: told["respond"] != "manual"))
    waiting = asyncio.create_task(sent(http, first))
    while not await received(site, run):
        await asyncio.sleep(0.01)
    assert (await sent(http, second))[0] == 202
    assert await waiting == (201, b"number 2, attempt 1")
    assert await run.result(PATIENCE) == first


@hf.workflow(name="hook.for_ever")
async def for_ever(left: int) -> int:
    hook = hf.webhook(respond=200 + left)
    if left:
        hf.continue_as_new(left - 1)
    await hook
    return left


async def open_status(app, token):
    return next(iter([h.schema["webhook"]["respond"]["status"] async for h in app.hooks(token=token)]), None)


async def test_a_chain_of_many_runs_has_one_url(site, http):
    """What is answered is what the run says that has it open, however many had it before."""
    run = await site.start(for_ever, 198)
    (first,) = [hook async for hook in site.hooks(run=run.id, open_only=False)]
    while (await open_status(site, first.token)) != 200:
        await asyncio.sleep(0.02)
    assert (await sent(http, first.schema["webhook"]["url"]))[0] == 200
    assert await run.result(PATIENCE) == 0


@hf.step(name="hook.tell")
async def tell(url: str) -> str:
    return url


@hf.workflow(name="hook.urls")
async def urls() -> list[str]:
    hooks = [hf.webhook(), hf.hook("plain"), hf.webhook(verify=hf.Signature("github", secret="A"))]
    told = [await tell(hook.url) for hook in hooks]
    await hooks[2]
    return told


async def test_a_changed_address_is_no_divergence(tmp_path, monkeypatch):
    """The URL is the log's: for a worker of another address, for a replay, for an old log with a short seed."""
    store = f"sqlite:///{tmp_path}/store.db"
    async with hf.connect(store) as app:
        monkeypatch.setenv("HOLDFAST_PUBLIC_URL", "https://old.example/hf/")
        async with app.worker():
            run = await app.start(urls)
        hooks = [hook async for hook in app.hooks(run=run.id)]
        monkeypatch.setenv("HOLDFAST_PUBLIC_URL", "https://new.example")
        async with app.worker():
            token = next(h.token for h in hooks if (h.schema or {}).get("webhook", {}).get("verify"))
            await app.resume(token, hf.Request(body=b"by hand"))
            told = await run.result(PATIENCE)
        log = [event async for event in app.run(run.id).events()]
    assert sorted(told) == sorted(["", *(h.schema["webhook"]["url"] for h in hooks if h.schema)])
    assert told[0].startswith("https://old.example/hf/webhooks/whk_")
    replay_run(log, urls)
    assert len(bytes.fromhex(log[0].data["seed"])) == 16
    other = Rehearsal(urls, seed="0123456789abcdef", steps={"hook.tell": lambda url: url})
    other.until_hook()
    other.evict()
    (token,) = other.awaited
    with Rehearsal(urls, seed="0123456789abcdee") as third:
        assert set(third.hooks) & set(other.hooks) == {"plain"}
    other.send(token, hf.Request(method="PUT", body=b"x"))
    other.play()
    assert other.result()[0].startswith(f"{PUBLIC_URL}/webhooks/whk_")


@pytest.mark.parametrize(
    "wrong",
    [
        {"respond": "later"},
        {"respond": True},
        {"respond": 99},
        {"respond": hf.Response(body=b"x" * 70_000)},
        {"verify": "github"},
    ],
)
def test_what_cannot_be_is_told_at_the_call(wrong):
    @hf.workflow(name=f"hook.wrong.{sorted(wrong)}.{len(str(wrong))}")
    async def asks() -> None:
        hf.webhook(**wrong)

    with Rehearsal(asks) as run, pytest.raises(hf.DefinitionError):
        run.result()


@pytest.mark.parametrize(
    "made",
    [
        lambda: hf.Response(204, body=b"x"),
        lambda: hf.Response(headers={"a\r\nb": "c"}),
        lambda: hf.Response(headers={"a": "b\r\nc: d"}),
        lambda: hf.Response(headers={"Content-Length": "1"}),
        lambda: hf.Signature("md5", secret="A"),
        lambda: hf.Signature("github", secret="the secret itself"),
        lambda: hf.webhook(),
    ],
)
def test_what_http_cannot_carry_is_refused(made):
    with pytest.raises(hf.DefinitionError) as told:
        made()
    assert "secret itself" not in str(told.value).replace("case it is the secret itself", "")


def test_a_request_from_nowhere_has_nobody_to_answer():
    with pytest.raises(hf.DefinitionError, match="no webhook"):
        asyncio.run(hf.Request().respond(hf.Response()))
