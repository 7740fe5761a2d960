"""What authors of workflows may expect of each durable call."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import math
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deciders import free, gate, gated, keys, log_of, serving, until_logged
from patience import PATIENCE

import holdfast as hf
from holdfast.client import App
from holdfast.clock import to_datetime
from holdfast.engine.hooks import OpenHook
from holdfast.engine.tick import replay, tick
from holdfast.errors import DefinitionError, NotDeterministic, PayloadError, ReplayDivergence
from holdfast.events import Event
from holdfast.replay import replay_run
from holdfast.testing import Rehearsal, run_workflow

# ---- cancellation


@hf.workflow
async def tidies_up() -> str:
    try:
        await free("work")
    except asyncio.CancelledError as error:
        await free(f"told: {error.args[0]}")
        raise
    finally:
        await free("clean")
    return "done"


def test_a_cancelled_workflow_may_tidy_up_with_steps() -> None:
    """CancelledError comes with the reason; steps in `except` and `finally` run; then the run is cancelled."""
    run = Rehearsal(tidies_up)
    run.cancel("out of stock")
    assert run.calls("free")[-1] == {"name": "told: out of stock"}
    run.complete("free#2")
    run.complete("free#3")
    assert run.status == "cancelled"
    assert run.log[-1].data["reason"] == "out of stock"
    replay_run(run.log)


@hf.workflow
async def stays() -> str:
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        return "stayed"
    return "slept"


def test_a_workflow_that_swallows_its_cancellation_completes() -> None:
    run = Rehearsal(stays)
    run.cancel()
    assert run.result() == "stayed"


@hf.workflow
async def waits_for_gate() -> str:
    return await gated("x")


async def test_cancelling_interrupts_the_steps_body(app: App) -> None:
    """The body of a step that nobody waits for any more gets CancelledError, too."""
    async with serving(app):
        run = await app.start(waits_for_gate)
        await until_logged(app, run.id, "step_started")
        assert await run.cancel("enough")
        with pytest.raises(hf.RunCancelled) as cancelled:
            await run.result(PATIENCE)
        assert cancelled.value.reason == "enough"
        assert not gate("x").is_set()
    replay_run(await log_of(app, run.id))


interrupted: list[str] = []


@hf.step(retries=3)
async def endless(name: str) -> None:
    try:
        gate(name).set()
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        interrupted.append(name)
        raise


@hf.workflow
async def gives_up() -> str:
    try:
        async with asyncio.timeout(0.01):
            await endless("x")
    except TimeoutError:
        return await gated("y")
    return "no"


async def test_a_time_out_around_a_step_interrupts_its_body_while_the_run_goes_on(app: App) -> None:
    """Nobody waits for it any more: its body must not run for as long as the run does, nor be tried again."""
    interrupted.clear()
    async with serving(app):
        run = await app.start(gives_up)
        await until_logged(app, run.id, "step_failed", "endless#1")
        assert interrupted == ["x"]
        gate("y").set()
        assert await run.result(PATIENCE) == "y"
    events = await log_of(app, run.id)
    assert keys(events, "step_retried") == []
    replay_run(events)


@hf.workflow
async def before_anything() -> None:
    await asyncio.sleep(1)


async def test_a_run_that_is_cancelled_before_its_first_tick_ends_cancelled(app: App) -> None:
    """Nobody served it yet: the request stands behind `run_created`."""
    run = await app.start(before_anything, run_id="r")
    await run.cancel("never mind")
    async with serving(app):
        with pytest.raises(hf.RunCancelled):
            await run.result(PATIENCE)


# ---- clock, chance, versions, attributes


@hf.workflow
async def chances(uuids: bool) -> list[Any]:
    seen: list[Any] = []
    for _ in range(5):
        seen.append(hf.random().random())
        if uuids:
            seen.append(str(hf.uuid4()))
        await asyncio.sleep(1)
        seen.append(hf.now().isoformat())
    return seen


def test_clock_and_chance_are_the_same_on_replay() -> None:
    run = run_workflow(chances, True)
    live = run.result()
    assert len(set(live)) == len(live)
    run.evict()
    assert run.result() == live
    assert tick(chances, run.log[:-1])[0].body == run.log[-1].body


def test_uuids_do_not_shift_the_random_numbers() -> None:
    """A uuid4 added to a workflow in flight must not change what its random() gives."""
    numbers = [x for x in run_workflow(chances, False).result() if isinstance(x, float)]
    assert [x for x in run_workflow(chances, True).result() if isinstance(x, float)] == numbers


def test_two_runs_have_different_chances() -> None:
    one, other = Rehearsal(chances, True, seed="1"), Rehearsal(chances, True, seed="2")
    for run in (one, other):
        run.advance(10)
    assert set(one.result()[::3]).isdisjoint(other.result()[::3])


def test_a_log_without_a_seed_takes_its_runs_name() -> None:
    """A log that another tool has written may hold no seed."""
    created = Event("r", 1, "run_created", "", 0, b'{"workflow":"chances","args":{"uuids":true}}')
    assert tick(chances, [created])[0].body == tick(chances, [created])[0].body


async def without_patch() -> None:
    await free("a")
    await free("b")


async def with_patch() -> list[bool]:
    await free("a")
    answers = [hf.patched("mail")]
    await free("mail" if answers[0] else "b")
    answers.append(hf.patched("mail"))
    return answers


def versions() -> tuple[Any, Any]:
    return hf.workflow(name="patched one")(without_patch), hf.workflow(name="patched two")(with_patch)


def test_a_run_in_flight_takes_the_old_way_and_keeps_to_it() -> None:
    """Its log went past the place without the marker; the first answer holds, at the log's end too."""
    old, new = versions()
    run = Rehearsal(old)
    run.complete("free#1")
    log = run.log
    execution = replay(new, log)
    execution.feed(
        Event("rehearsal", len(log) + 1, "step_completed", "free#2", log[-1].time, b'{"value":null}')
    )
    assert bytes(execution.asked[-1].data["value"]) == b"[false,false]"


def test_a_new_run_takes_the_new_way_and_says_so_in_its_log() -> None:
    _, new = versions()
    run = run_workflow(new, steps={"free": None})
    assert run.result() == [True, True]
    assert keys(run.log, "patched") == ["mail#1"]
    replay_run(run.log, new)


def test_a_run_that_has_not_come_to_the_place_takes_the_new_way() -> None:
    old, new = versions()
    run = Rehearsal(old)
    execution = replay(new, run.log)
    execution.feed(Event("rehearsal", 3, "step_completed", "free#1", 0, b'{"value":null}'))
    assert [draft.key for draft in execution.asked] == ["mail#1", "free#2"]


@hf.workflow
async def sets_attributes() -> dict[str, str]:
    hf.set_attributes(customer="ana", stage="new")
    hf.set_attributes({"stage": None, "odd key": "x" * 256})
    refused = []
    for wrong in (
        {"": "x"},
        {"x" * 257: "x"},
        {"a\x00": "x"},
        {"key": "x" * 257},
        {"key": "ä" * 129},
        {"key": 1},
        {"key": "\ud800"},
        {f"k{n}": "x" for n in range(65)},
    ):
        try:
            hf.set_attributes(wrong)  # type: ignore[arg-type]
        except PayloadError:
            refused.append(True)
    assert len(refused) == 8
    return hf.run_info().attributes


def test_attributes_have_limits_and_none_removes_one() -> None:
    """What is refused leaves no command, and the attributes as they were."""
    run = Rehearsal(sets_attributes, attributes={"first": "1"})
    assert run.result() == {"first": "1", "customer": "ana", "odd key": "x" * 256}
    assert keys(run.log, "attributes_set") == ["attributes#1", "attributes#2"]
    replay_run(run.log)


# ---- hooks


@hf.workflow
async def reads_hooks() -> Any:
    hook = hf.hook("T")
    first = await hook
    second = await hook.next()
    rest = []
    async for payload in hook:
        rest.append(payload)
        if payload == "last":
            hook.close()
    try:
        await hook
    except hf.HookNotFound as error:
        return [first, second, rest, error.reason]
    return "no"


def test_a_hook_is_awaited_iterated_and_closed() -> None:
    """Iteration ends at the close; kept payloads come first; an await on a closed hook says why."""
    run = Rehearsal(reads_hooks)
    for payload in ("1", "2", "3", "last"):
        run.send("T", payload)
    assert run.result() == ["1", "2", ["3", "last"], "closed"]
    assert run.log[-1].data["read"] == 4


@hf.workflow
async def closes_under_a_waiter() -> str:
    hook = hf.hook("T")
    waiting = asyncio.create_task(hook.next())
    async with hook:
        await asyncio.sleep(0)
    try:
        return await waiting
    except hf.HookNotFound as error:
        return error.reason


def test_a_close_ends_the_waits_of_others() -> None:
    assert Rehearsal(closes_under_a_waiter).result() == "closed"


@hf.workflow
async def gives_back() -> list[Any]:
    hook = hf.hook("T")
    assert isinstance(hook, OpenHook)
    first, second = asyncio.create_task(hook.next()), asyncio.create_task(hook.next())
    await asyncio.sleep(0)
    body = b'{"delivery":"d","payload":"payload"}'
    hook.take(
        Event("r", 3, "hook_received", hook.key, 0, body)
    )  # as the engine does; and in the same turn its taker is cancelled
    first.cancel()
    return [await second, first.cancelled()]


def test_a_payload_is_given_back_when_its_taker_is_cancelled_in_the_same_turn() -> None:
    """L10: it goes to the first waiter that is still there, or back to the front of those kept."""
    run = Rehearsal(gives_back)
    assert run.result() == ["payload", True]
    assert run.log[-1].data["read"] == 1


@hf.workflow
async def takes_turns() -> list[Any]:
    hook = hf.hook("T")
    got = []
    for _ in range(3):
        with contextlib.suppress(TimeoutError):
            got.append(await asyncio.wait_for(hook.next(), 1))
    return got


def test_a_payload_that_comes_after_a_time_out_goes_to_the_next_await() -> None:
    run = Rehearsal(takes_turns)
    run.fire()
    run.send("T", "a")
    run.fire()
    assert run.result() == ["a"]


@hf.workflow
async def wants_the_lock() -> str:
    for _ in range(3):
        try:
            return f"got {await hf.hook('lock')}"
        except hf.HookTaken as error:
            assert error.owner == "other"
            await asyncio.sleep(1)
    return "gave up"


def test_a_refused_hook_can_be_opened_again() -> None:
    """The token is free again when its holder ends: asking for it anew must open a new hook."""
    run = Rehearsal(wants_the_lock)
    run.refuse("lock", "other")
    run.fire()
    assert run.hooks == ["lock"]
    run.send("lock", "it")
    assert run.result() == "got it"
    assert keys(run.log, "hook_opened") == ["lock#1", "lock#2"]
    replay_run(run.log)


@hf.workflow
async def refused_at_the_end() -> str:
    hf.hook("lock")
    await asyncio.sleep(1)
    return "done"


def test_a_refused_hook_is_not_open_at_the_end() -> None:
    run = Rehearsal(refused_at_the_end)
    run.refuse("lock", "other")
    run.fire()
    assert "open" not in run.log[-1].data


@pytest.mark.parametrize("token", ["", "x" * 513, "a\x00b", 7])
def test_a_token_that_cannot_be_one_is_refused_at_the_call(token: Any) -> None:
    @hf.workflow(name="wrong token")
    async def wrong_token() -> None:
        hf.hook(token)

    with pytest.raises(PayloadError, match="hook token"):
        Rehearsal(wrong_token).result()


@dataclasses.dataclass
class Amount:
    euros: int

    def __post_init__(self) -> None:
        if self.euros < 0:
            raise ValueError("negative")


@hf.workflow
async def takes_an_amount() -> list[Any]:
    hook = hf.hook("T", type=Amount)
    seen: list[Any] = []
    while len(seen) < 3:
        try:
            seen.append((await hook).euros)
        except PayloadError as error:
            seen.append(str(error))
    return seen


async def test_a_payload_that_its_type_refuses_is_raised_at_the_await(app: App) -> None:
    """No schema says all that a class checks: such a payload once parked the run for good."""
    async with serving(app):
        run = await app.start(takes_an_amount)
        await until_logged(app, run.id, "hook_opened")
        with pytest.raises(PayloadError):
            await app.resume("T", {"euros": "many"})
        for euros in (1, -1, 2):
            await app.resume("T", {"euros": euros})
        assert await run.result(PATIENCE) == [1, "T#1 payload: negative", 2]
    events = await log_of(app, run.id)
    assert events[-1].data["read"] == 3
    replay_run(events)


def test_payloads_that_are_kept_are_read_in_the_order_in_which_they_came() -> None:
    @hf.workflow(name="reads late")
    async def reads_late() -> list[int]:
        hook = hf.hook("T")
        await free()
        return [await hook for _ in range(4)]

    run = Rehearsal(reads_late)
    for number in range(4):
        run.send("T", number)
    run.complete("free#1")
    assert run.result() == [0, 1, 2, 3]


# ---- how a workflow ends


class Odd(BaseException):
    pass


@dataclasses.dataclass
class Order:
    count: int


@hf.workflow
async def ends(how: str) -> Order:
    match how:
        case "wrong type":
            return "no order"  # type: ignore[return-value]
        case "unwritable":
            return object()  # type: ignore[return-value]
        case "raises":
            raise KeyError("missing")
        case "base":
            raise Odd("odd")
        case "exit":
            sys.exit(3)
        case "generator exit":
            raise GeneratorExit
        case "stop":
            raise StopIteration(1)
        case "deep":

            async def deeper() -> None:
                await deeper()

            await deeper()
    return Order(1)


@pytest.mark.parametrize(
    ("how", "type_"),
    [
        ("wrong type", PayloadError),
        ("unwritable", PayloadError),
        ("raises", KeyError),
        ("base", Odd),
        ("exit", SystemExit),
        ("generator exit", GeneratorExit),
        ("stop", RuntimeError),
        ("deep", RecursionError),
    ],
)
def test_whatever_a_workflow_raises_is_how_its_run_failed(how: str, type_: type[BaseException]) -> None:
    """Nothing but a KeyboardInterrupt leaves the tick, and the failure replays."""
    run = Rehearsal(ends, how)
    assert run.status == "failed"
    with pytest.raises(type_):
        run.result()
    replay_run(run.log)


@hf.workflow
async def calls_back() -> str:
    def bad() -> None:
        raise Odd("in a callback")

    asyncio.get_running_loop().call_soon(bad)
    await asyncio.sleep(0)
    return "done"


def test_what_a_callback_raises_is_logged_as_asyncio_does(caplog: pytest.LogCaptureFixture) -> None:
    """A BaseException of a callback once left the tick, and its run hung for ever."""
    assert Rehearsal(calls_back).result() == "done"
    assert "callback failed" in caplog.text


@hf.workflow
async def fails_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(free(name))


async def test_an_exception_group_crosses_the_log(app: App) -> None:
    run = Rehearsal(fails_in_a_group)
    run.fail("free#1", ValueError("one", 2))
    run.evict()
    with pytest.raises(ExceptionGroup) as group:
        run.result()
    assert [repr(error) for error in group.value.exceptions] == ["ValueError('one', 2)"]


@hf.workflow
async def catches_steps_error() -> list[Any]:
    try:
        await free()
    except Exception as error:
        return [type(error).__name__, str(error), error.__notes__, type(error.__cause__).__name__]
    return []


@pytest.mark.parametrize("evict", [False, True])
def test_a_steps_error_keeps_type_message_notes_and_cause(evict: bool) -> None:
    error = LookupError("nothing there")
    error.add_note("looked everywhere")
    error.__cause__ = OSError("disk")
    run = Rehearsal(catches_steps_error)
    if evict:
        run.evict()
    run.fail("free#1", error)
    assert run.result() == ["LookupError", "nothing there", ["looked everywhere"], "OSError"]


@hf.step(retries=0)
def takes_the_first(items: list[int]) -> int:
    return next(iter(items))


@hf.workflow
async def takes_from_nothing() -> str:
    try:
        return str(await takes_the_first([]))
    except RuntimeError as error:
        return str(error)


async def test_a_step_that_raises_stop_iteration_fails(app: App) -> None:
    """On 3.11 no future takes a StopIteration out of a thread: the step hung for ever."""
    async with serving(app):
        run = await app.start(takes_from_nothing)
        assert "StopIteration" in await run.result(PATIENCE)
    run_by_hand = Rehearsal(takes_from_nothing)
    run_by_hand.fail("takes_the_first#1", StopIteration(7))
    assert "StopIteration" in run_by_hand.result()


# ---- payloads


@hf.workflow
async def echoes(text: str) -> str:
    return text + await free(text) + str(await hf.hook("T"))


@pytest.mark.parametrize("odd", ["\x00", "\ud800", "\udfff!", "\ud83d\ude00", "😀"])
def test_odd_characters_survive_argument_result_and_payload(odd: str) -> None:
    """A lone surrogate once broke the engine: the run was parked, and its start never answered."""
    run = Rehearsal(echoes, odd)
    run.evict()
    run.complete("free#1", odd)
    run.evict()
    run.send("T", odd)
    assert run.result() == odd * 3
    replay_run(run.log)


@pytest.mark.parametrize("odd", ["\x00", "\ud800"])
async def test_odd_characters_survive_a_worker(app: App, odd: str) -> None:
    async with serving(app):
        run = await app.start(echoes, odd)
        await until_logged(app, run.id, "step_completed")
        await app.resume("T", odd)
        assert await run.result(PATIENCE) == odd * 3


@hf.workflow
async def raises_oddly() -> None:
    with contextlib.suppress(ValueError):
        await free()
    raise ValueError("\ud800")


def test_odd_characters_survive_in_exceptions() -> None:
    run = Rehearsal(raises_oddly)
    run.fail("free#1", ValueError("\ud800"))
    run.evict()
    with pytest.raises(ValueError, match="\ud800"):
        run.result()
    replay_run(run.log)


@hf.workflow
async def sends_much(size: int) -> str:
    try:
        await free("x" * size)
    except PayloadError:
        await free("too much")
    return "y" * size


def test_a_limit_that_refused_something_refuses_it_on_replay_too() -> None:
    """The code goes another way then: a replay that let the payload through would diverge."""
    run = Rehearsal(sends_much, 1000, payload_limit=500)
    assert run.calls("free") == [{"name": "too much"}]
    run.complete("free#1")
    assert run.status == "failed"
    execution = replay(sends_much, run.log, payload_limit=500)
    assert not execution.asked
    execution.bury()


def test_a_limit_that_was_lowered_refuses_nothing_that_the_log_holds() -> None:
    """The payloads were accepted then; today's limit counts for what comes."""
    run = Rehearsal(sends_much, 1000)
    run.complete("free#1")
    assert run.status == "completed"
    execution = replay(sends_much, run.log, payload_limit=500)
    assert not execution.asked
    execution.bury()


@hf.workflow
async def sends_deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    try:
        await free(value)
    except PayloadError:
        await free("too deep")
    return value


def test_levels_that_were_accepted_before_are_replayed_and_those_that_were_refused_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as before:
        before.setattr("holdfast.codec.bounds.MAX_DEPTH", 300)
        accepted = Rehearsal(sends_deep, 150)
        accepted.complete("free#1")
    assert accepted.status == "completed"
    refused = Rehearsal(sends_deep, 150)
    assert refused.calls("free") == [{"name": "too deep"}]
    refused.complete("free#1")
    assert refused.status == "failed"
    for run in (accepted, refused):
        execution = replay(sends_deep, run.log)
        assert not execution.asked
        execution.bury()


flips = 0


@hf.workflow
async def flips_a_coin() -> None:
    global flips
    flips += 1
    await free(flips == 2)
    await free("more")


def test_code_that_differs_each_time_diverges_though_the_second_look_is_fine() -> None:
    """The place is looked for by a second replay; if that one happened to agree, a dead run went on as live."""
    run = Rehearsal(flips_a_coin)
    with pytest.raises(ReplayDivergence):
        replay(flips_a_coin, run.log)


def test_a_divergence_names_position_both_sides_and_the_line() -> None:
    old, new = versions()
    run = run_workflow(old, steps={"free": None})
    run.log[3] = Event("rehearsal", 4, "step_scheduled", "free#9", 0, b'{"args":{"name":"b"}}')
    with pytest.raises(ReplayDivergence) as found:
        replay_run(run.log, new)
    assert found.value.position == 4
    assert found.value.expected.startswith("step_scheduled free#9")
    assert found.value.asked.startswith("step_scheduled free#2")
    assert found.value.where.startswith(f"{__file__}:")


# ---- time


@hf.workflow
async def sleeps_until(when: datetime) -> str:
    await hf.sleep(when)
    return hf.now().isoformat()


def test_sleeps_take_seconds_timedeltas_and_instants() -> None:
    later = datetime(2026, 1, 2, tzinfo=UTC)
    run = Rehearsal(sleeps_until, later)
    run.fire()
    assert run.result() == later.isoformat()
    past = Rehearsal(sleeps_until, datetime(2025, 1, 1, tzinfo=UTC))
    assert past.ended
    assert keys(past.log, "timer_started") == []


@hf.workflow
async def sleeps_for(exponent: int) -> None:
    await asyncio.sleep(10.0**exponent if exponent else math.inf)


@pytest.mark.parametrize("exponent", [0, 15, 300])
def test_a_sleep_for_ever_ends_in_the_year_9999(exponent: int) -> None:
    """`math.inf` is how people write "until it is cancelled"; a due time beyond 64 bits no store can hold."""
    run = Rehearsal(sleeps_for, exponent)
    assert to_datetime(run.log[-1].data["due"]).year == 9999
    run.cancel()
    assert run.status == "cancelled"


@hf.workflow
async def is_woken() -> list[str]:
    seen = []
    async with asyncio.timeout(500):
        await asyncio.sleep(100)
        seen.append("slept")
        await asyncio.gather(asyncio.sleep(100), hf.sleep(timedelta(hours=1)))
        seen.append("slept twice")
    return seen


def test_wake_ends_sleeps_and_no_time_outs() -> None:
    run = Rehearsal(is_woken)
    run.wake()
    run.wake()
    assert run.result() == ["slept", "slept twice"]
    assert keys(run.log, "timer_fired") == []
    replay_run(run.log)


# ---- tasks, contexts, generators

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


@hf.workflow
async def reads_context() -> list[str]:
    before = request_id.get()
    request_id.set("mine")

    async def child() -> str:
        seen = request_id.get()
        request_id.set("child's")
        return seen

    seen = await asyncio.gather(child(), child())
    await free()
    return [before, *seen, request_id.get()]


async def test_context_variables_work_and_the_starters_are_not_seen(app: App) -> None:
    """What the starter's context holds is not in the log: a replay elsewhere would not see it."""
    async with serving(app):
        request_id.set("the starter's")
        run = await app.start(reads_context)
        assert await run.result(PATIENCE) == ["none", "mine", "mine", "mine"]


@hf.workflow
async def streams() -> list[int]:
    async def squares() -> Any:
        for number in range(3):
            yield await free(number)

    got = [number async for number in squares()]
    async for number in squares():
        got.append(number)
        break
    return got


def test_asynchronous_generators_call_steps() -> None:
    run = run_workflow(streams, steps={"free": lambda name: name * name})
    assert run.result() == [0, 1, 4, 0]


@hf.workflow
async def nested(depth: int) -> int:
    async def down(left: int) -> int:
        return await free(0) if left == 0 else 1 + await down(left - 1)

    return await down(depth)


def test_an_await_may_be_deep() -> None:
    assert run_workflow(nested, 150, steps={"free": 0}).result() == 150


@hf.workflow
async def calls_without_await() -> str:
    free("never awaited")
    return "done"


def test_a_step_that_is_not_awaited_is_not_asked_for() -> None:
    """As with every coroutine of Python, which warns."""
    with pytest.warns(RuntimeWarning, match="never awaited"):
        run = Rehearsal(calls_without_await)
    assert run.calls("free") == []


@hf.workflow
async def many_at_once(count: int) -> list[int]:
    got = []
    for one in asyncio.as_completed([free(number) for number in range(count)], timeout=1000):
        got.append(await one)
    return got


def test_as_completed_gives_results_in_the_order_of_the_log() -> None:
    run = Rehearsal(many_at_once, 200)
    order = [(number * 7) % 200 for number in range(200)]
    for number in order:
        run.complete(f"free#{number + 1}", number)
    assert run.result() == order
    replay_run(run.log)


# ---- what a loop of a workflow cannot do

REFUSED: dict[str, tuple[Any, str]] = {
    "run_in_executor": (lambda loop: loop.run_in_executor(None, print), "sync @hf.step"),
    "to_thread": (lambda _: asyncio.to_thread(print), "sync @hf.step"),
    "create_connection": (lambda loop: loop.create_connection(None, "host", 1), "in a step"),
    "open_connection": (lambda _: asyncio.open_connection("host", 1), "in a step"),
    "start_server": (lambda _: asyncio.start_server(print, "host", 1), "in a step"),
    "subprocess_exec": (lambda loop: loop.subprocess_exec(None, "ls"), "in a step"),
    "create_subprocess_exec": (lambda _: asyncio.create_subprocess_exec("ls"), "in a step"),
    "add_signal_handler": (lambda loop: loop.add_signal_handler(2, print), "in a step"),
    "add_reader": (lambda loop: loop.add_reader(0, print), "in a step"),
    "sock_recv": (lambda loop: loop.sock_recv(None, 1), "in a step"),
    "call_soon_threadsafe": (lambda loop: loop.call_soon_threadsafe(print), "hf.hook()"),
    "run_coroutine_threadsafe": (
        lambda loop: asyncio.run_coroutine_threadsafe(asyncio.sleep(1), loop), "hf.hook()"),
    "run_until_complete": (lambda loop: loop.run_until_complete(None), "await"),
    "stop": (lambda loop: loop.stop(), "return"),
    "close": (lambda loop: loop.close(), "return"),
    "set_debug": (lambda loop: loop.set_debug(True), "no debug"),
    "set_task_factory": (lambda loop: loop.set_task_factory(None), "engine"),
}  # fmt: skip


@hf.workflow
async def reaches_out(what: str) -> str:
    try:
        done = REFUSED[what][0](asyncio.get_running_loop())
        if asyncio.iscoroutine(done):
            await done
    except NotDeterministic as error:
        return str(error)
    return "it did"


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_what_reaches_outside_is_refused_with_a_remedy(what: str) -> None:
    assert REFUSED[what][1] in Rehearsal(reaches_out, what).result()


@pytest.mark.parametrize(
    "call",
    [hf.now, hf.random, hf.uuid4, hf.run_info, lambda: hf.hook("T"), lambda: hf.patched("p"),
     lambda: hf.set_attributes(a="b"), hf.step_info, hf.heartbeat],
)  # fmt: skip
def test_durable_calls_outside_say_where_they_work(call: Any) -> None:
    with pytest.raises(DefinitionError, match=r"works? in"):
        call()


async def test_outside_of_runs_steps_and_workflows_are_plain_functions() -> None:
    assert await free("plain") == "plain"
    assert await nested(2) == 2


def asks_the_clock() -> bool:
    """Whether the watch lets it pass."""
    try:
        time.time()
    except NotDeterministic:
        return False
    return True


@hf.workflow
async def wakes_in_every_way() -> list[str]:
    passed = []
    loop = asyncio.get_running_loop()

    def note(where: str) -> None:
        if asks_the_clock():
            passed.append(where)

    async def other(where: str, future: asyncio.Future[None]) -> None:
        await future
        note(where)

    plain: asyncio.Future[None] = asyncio.Future()
    made: asyncio.Future[None] = loop.create_future()
    others = [asyncio.create_task(other("plain", plain)), asyncio.create_task(other("made", made))]
    note("at first")
    await free()
    note("after a step")
    for future in (plain, made):
        future.set_result(None)  # in the tick that a step's outcome began
    loop.call_soon(lambda _: note("called with nothing"), None)
    await asyncio.gather(*others)
    await asyncio.gather(free(), other("beside a step", plain))
    waits = asyncio.create_task(free())
    await asyncio.sleep(0)
    waits.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waits
    note("after a step that was given up")
    try:
        await free()
    except ValueError:
        note("after a failure")
    await asyncio.sleep(1)
    note("after a sleep")
    loop.call_soon(lambda _: note("called with nothing after a sleep"), None)
    await asyncio.sleep(0)
    return passed


def test_the_watch_is_on_whatever_wakes_workflow_code() -> None:
    """The engine switches it on itself where its own frame wakes first, and there alone."""
    run = Rehearsal(wakes_in_every_way)
    run.complete("free#1")
    run.complete("free#2")
    run.fail("free#4", ValueError("no"))
    run.fire()
    assert run.result() == []
    assert asks_the_clock(), "it is off outside"
    replay_run(run.log)
    assert asks_the_clock(), "also after a replay"
