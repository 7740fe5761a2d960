"""Queues in the store: who may take which step, exactly, over all workers."""

import asyncio
import random
from collections import Counter

import pytest
from patience import PATIENCE
from store_kit import SECOND, assert_sound, begin, ended, failed, retried, started, worker

from holdfast.errors import LeaseLost
from holdfast.events import name_of, new
from holdfast.queues import Queue
from holdfast.store.queued import Taken

PLAIN = Queue("q")


def queued(key, queue="q", **place):
    return new("step_scheduled", key=key, data={"args": {}, "queue": queue, **place})


async def enlisted(store, *names):
    for name in names:
        await store.enlist(worker(name))


async def take(store, name="w1", queue=PLAIN, room=10, steps=("a", "b", "c")):
    return [(s.run, s.key) for s in (await store.take_steps(name, [queue], steps, room)).steps]


async def until(heard):
    """News of other processes come in their own time."""
    async with asyncio.timeout(PATIENCE):
        while not heard():
            await asyncio.sleep(0.01)


async def filled(store, *drafts, run="r"):
    """A run whose steps wait, and a worker."""
    last = await begin(store, run)
    await store.append(run, drafts, after=last)
    await enlisted(store, "w1")


async def test_a_step_is_taken_once_in_the_order_of_priority_then_age(store, clock):
    await filled(store, queued("a#1"), queued("a#2", priority=5), queued("a#3", priority=-1))
    clock.advance(1)
    await store.append("r", [queued("a#4", priority=5)], after=5)
    taken = await store.take_steps("w1", [PLAIN], ["a"], 3)
    assert [step.key for step in taken.steps] == ["a#2", "a#4", "a#1"]
    assert await take(store) == [("r", "a#3")]
    assert await take(store) == []
    log = await store.read("r")
    assert all(log[s.position - 1].key == s.key for s in taken.steps)
    await assert_sound(store, "r")


async def test_only_named_queues_and_known_steps_are_given(store):
    await filled(store, queued("a#1"), queued("b#1"), queued("a#2", queue="other"), queued("d#1"))
    assert await take(store, queue=Queue("nothing")) == []
    assert await take(store, steps=["b"]) == [("r", "b#1")]
    assert await take(store, steps=["a", "b"]) == [("r", "a#1")]
    assert await take(store, queue=Queue("other")) == [("r", "a#2")]


async def test_a_worker_that_nobody_knows_is_given_nothing(store):
    """It may have been declared dead: what it would take, nobody would put back."""
    await filled(store, queued("a#1"))
    with pytest.raises(LeaseLost, match="not enlisted"):
        await take(store, "stranger")
    assert await take(store) == [("r", "a#1")]


async def test_steps_without_a_queue_are_nobody_elses(store):
    last = await begin(store, "r")
    await store.append("r", [new("step_scheduled", key="a#1", data={"args": {}})], after=last)
    await enlisted(store, "w1")
    assert await take(store) == []
    assert [(s.key, s.queue) for s in await store.open_steps("r")] == [("a#1", None)]


async def test_so_many_at_once_over_all_workers(store):
    queue = Queue("q", concurrency=2)
    await filled(store, *(queued(f"a#{n}") for n in range(1, 5)))
    await enlisted(store, "w2")
    assert len(await take(store, "w1", queue, 1)) == 1
    assert len(await take(store, "w2", queue)) == 1
    assert await take(store, "w1", queue) == await take(store, "w2", queue) == []
    await store.append("r", [started("a#1"), failed("a#1")])
    assert await take(store, "w2", queue) == [("r", "a#3")]


async def test_so_many_of_one_key_at_once_and_the_others_are_not_held_up(store):
    queue = Queue("q", per_key=1)
    blocked = [queued(f"a#{n}", limit_key="ana") for n in range(1, 300)]
    await filled(
        store, *blocked, queued("b#1", limit_key="ben"), queued("b#2", limit_key="ben"), queued("c#1")
    )
    assert await take(store, queue=queue) == [("r", "a#1"), ("r", "b#1"), ("r", "c#1")]
    await store.append("r", [started("a#1"), failed("a#1")])
    assert await take(store, queue=queue) == [("r", "a#2")]


async def test_so_many_starts_in_a_time_and_it_says_when_to_ask_again(store, clock):
    """In no window of ten seconds are there more than two starts: exact, not on average."""
    queue = Queue("q", rate=(2, 10.0))
    await filled(store, *(queued(f"a#{n}") for n in range(1, 8)))
    begun = clock.now()
    taken = await store.take_steps("w1", [queue], ["a"], 10)
    assert (len(taken.steps), taken.again) == (2, begun + 10 * SECOND)
    clock.advance(9.999)
    assert await take(store, queue=queue) == []
    clock.advance(0.001)
    assert len(await take(store, queue=queue)) == 2
    clock.advance(5)
    assert (await store.take_steps("w1", [queue], ["a"], 10)).again == begun + 20 * SECOND


async def test_a_quiet_queue_is_not_asked_about_again(store):
    """Its rate forbids nothing while nothing waits: else an idle worker would ask for ever."""
    queue = Queue("q", rate=(2, 10.0))
    await filled(store, queued("a#1", queue="other"))
    assert await store.take_steps("w1", [queue], ["a"], 10) == Taken()
    await store.append("r", [queued("a#2")], after=3)
    taken = await store.take_steps("w1", [queue], ["a"], 10)
    assert ([step.key for step in taken.steps], taken.again) == (["a#2"], None)


async def test_a_retry_waits_its_time_and_gives_its_place_to_others(store, clock):
    queue = Queue("q", concurrency=1)
    await filled(store, queued("a#1"), queued("a#2"))
    due = clock.now() + 5 * SECOND
    assert await take(store, queue=queue) == [("r", "a#1")]
    await store.append("r", [started("a#1")])
    await store.append("r", [retried("a#1", due=due)])
    taken = await store.take_steps("w1", [queue], ["a"], 5)
    assert ([s.key for s in taken.steps], taken.again) == (["a#2"], due)
    await store.append("r", [started("a#2"), failed("a#2")])
    clock.advance(5)
    [again] = (await store.take_steps("w1", [queue], ["a"], 5)).steps
    assert (again.key, again.attempt, again.due) == ("a#1", 1, due)


async def test_what_a_dead_worker_held_waits_again_and_others_hear_of_it(place, store):
    other, heard = await place.open(), []
    await filled(store, queued("a#1"), queued("a#2"))
    assert len(await take(store)) == 2
    await store.append("r", [started("a#1")])
    other.listen(heard.extend)
    store.listen(heard.extend)
    await enlisted(store, "w2")
    await store.discharge("w1")
    taken = await other.take_steps("w2", [PLAIN], ["a"], 5)
    assert [(s.key, s.attempt, s.due) for s in taken.steps] == [("a#1", 1, None), ("a#2", 0, None)]
    await until(lambda: any(item.queue == "" for item in heard))


async def test_what_is_put_back_waits_again_but_only_by_its_holder(store):
    await filled(store, queued("a#1"))
    await enlisted(store, "w2")
    assert await take(store) == [("r", "a#1")]
    assert [(s.run, s.key) for s in await store.held_steps("w1")] == [("r", "a#1")]
    await store.put_back("w2", [("r", "a#1"), ("r", "none#1"), ("none", "a#1")])
    assert await take(store, "w2") == []
    await store.put_back("w1", [("r", "a#1")])
    assert await take(store, "w2") == [("r", "a#1")]
    assert await store.held_steps("w1") == []


async def test_the_end_of_a_run_frees_its_places(store):
    queue = Queue("q", concurrency=1)
    await filled(store, queued("a#1"))
    await filled(store, queued("a#1"), run="s")
    assert await take(store, queue=queue) == [("r", "a#1")]
    await store.append("r", [ended()], after=(await store.head("r")).position)
    assert await store.held_steps("w1") == []
    assert await take(store, queue=queue) == [("s", "a#1")]


async def test_people_see_how_long_the_queues_are(store, clock):
    begun = clock.now()
    await filled(store, queued("a#1"), queued("a#2"), queued("b#1", queue="gpu"))
    await take(store, room=1)
    rows = [(q.name, q.waiting, q.running) for q in await store.queues()]
    assert rows == [("gpu", 1, 0), ("q", 1, 1)]
    assert all(q.oldest is not None and q.oldest >= begun for q in await store.queues())


async def test_news_say_which_queue_has_steps(store):
    heard = []
    store.listen(heard.extend)
    await filled(store, queued("a#1"), queued("b#1", queue="gpu"))
    await until(lambda: {item.queue for item in heard} >= {"gpu", "q"})


async def test_limits_hold_in_any_order_of_many_workers_doings(place, store):
    """A storm of takes, ends and deaths by three workers on two handles: never one too many, and all get done."""
    chance = random.Random(7)
    queue = Queue("q", concurrency=5, per_key=2)
    other = await place.open()
    names = [f"w{n}" for n in range(3)]
    await enlisted(store, *names)
    for number in range(6):
        run = f"run-{number}"
        last = await begin(store, run)
        keys = [chance.choice(["ana", "ben", None]) for _ in range(10)]
        drafts = [queued(f"a#{n}", **({"limit_key": k} if k else {})) for n, k in enumerate(keys, 1)]
        await store.append(run, drafts, after=last)
    held: dict[tuple[str, str], tuple[str, object]] = {}
    done = 0
    for _ in range(2000):
        if done == 60:
            break
        name, handle = chance.choice(names), chance.choice([store, other])
        what = chance.random()
        if what < 0.5:
            for step in (await handle.take_steps(name, [queue], ["a"], chance.randint(1, 4))).steps:
                assert (step.run, step.key) not in held, "two workers have one step"
                held[step.run, step.key] = (name, step.limit_key)
        elif what < 0.95 and held:
            run, key = chance.choice(sorted(held))
            attempt = next(s.attempt for s in await store.open_steps(run) if s.key == key) + 1
            await handle.append(run, [started(key, attempt), failed(key, attempt)])
            del held[run, key]
            done += 1
        elif what >= 0.95:
            await handle.discharge(name)
            names[names.index(name)] = reborn = f"{name}'"
            await enlisted(store, reborn)
            held = {step: owner for step, owner in held.items() if owner[0] != name}
        assert len(held) <= 5
        keys = Counter(key for _, key in held.values() if key is not None)
        assert all(count <= 2 for count in keys.values())
    assert done == 60
    assert await store.queues() == []
    assert name_of("a#1") == "a"
