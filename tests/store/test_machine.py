"""Memory and another store side by side: random appends, resends, claims; equal answers, logs, projections.

The memory store is the oracle: a list and a few dicts, read in a minute. Two handles of the other store take
turns, so that what one of them remembers of a run is old half of the time.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_kit import SECOND, TestClock, assert_sound, created, running, worker

from holdfast.events import new
from holdfast.ids import BatchIds
from holdfast.store import Appended, open_store

RUNS = ("r1", "r2")
NAMES = ("a", "b")
runs = st.sampled_from(RUNS)
ordinals = st.integers(1, 3)
keys = st.builds(lambda name, n: f"{name}#{n}", st.sampled_from(NAMES), ordinals)
attempts = st.integers(1, 2)
offsets = st.sampled_from([None, None, None, -1, 0, 1, 2 * SECOND])


def drafts_of(clock):
    """Drafts of every type; `at` by the clock's time when they are drawn."""
    due = st.integers(-1, 3).map(lambda seconds: clock.now() + seconds * SECOND)
    at = offsets.map(lambda offset: None if offset is None else clock.now() + offset)
    outcome = st.builds(
        lambda kind, key, n, at: new(kind, key=key, data={"attempt": n}, at=at),
        st.sampled_from(["step_completed", "step_failed"]), keys, attempts, at,
    )  # fmt: skip
    attempt = st.builds(lambda key, n: new("step_started", key=key, data={"attempt": n}), keys, attempts)
    retry = st.builds(
        lambda key, n, due: new("step_retried", key=key, data={"attempt": n, "due": due}),
        keys, attempts, due,
    )  # fmt: skip
    timer = st.builds(lambda key, due: new("timer_started", key=key, data={"due": due}), keys, due)
    named = st.builds(
        lambda kind, key: new(kind, key=key, data={}),
        st.sampled_from(
            [
                "step_scheduled",
                "timer_cancelled",
                "hook_opened",
                "hook_closed",
                "child_started",
                "child_ended",
                "noted",
                "patched",
            ]
        ),
        keys,
    )
    fired = st.builds(lambda key, at: new("timer_fired", key=key, at=at), keys, at)
    payload = st.builds(
        lambda key, d, p: new("hook_received", key=key, data={"delivery": d, "payload": p, "digest": str(p)}),
        keys, st.sampled_from("xy"), st.integers(0, 1),
    )  # fmt: skip
    woken = st.sampled_from([{}, {"id": "1"}, {"id": "2"}]).map(lambda data: new("woken", data=data))
    attributes = st.builds(
        lambda key, value: new("attributes_set", key=key, data={"attributes": {"k": value}}),
        keys, st.sampled_from(["1", "2", None]),
    )  # fmt: skip
    rare = st.sampled_from(["run_started", "run_created", "cancel_requested"]).map(new)
    one = st.one_of(outcome, attempt, retry, timer, named, named, fired, payload, woken, attributes, rare)
    return st.lists(one, min_size=1, max_size=4)


ends = st.sampled_from(["run_completed", "run_failed", "run_cancelled"]).map(lambda t: new(t, data={"x": 1}))
outside_ends = st.sampled_from([new("run_cancelled", data={"by": "terminate"})])


def comparable(answer):
    if isinstance(answer, Appended):
        return answer
    fields = {k: v for k, v in vars(answer).items() if not k.startswith("_")}
    return type(answer).__name__, str(answer), fields


class SideBySide(RuleBasedStateMachine):
    def __init__(self, url=None):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = TestClock()
        self.batches = BatchIds()
        self.sent = []
        self.turn = 0
        self.loop = asyncio.new_event_loop()
        url = url or f"sqlite:///{Path(self.folder.name)}/s.db"
        self.memory = open_store("memory://", clock=self.clock)
        self.handles = [open_store(url, clock=self.clock) for _ in range(2)]
        for store in (self.memory, *self.handles):
            self.run(store.open())

    def teardown(self):
        for store in (self.memory, *self.handles):
            self.run(store.close())
        self.loop.close()
        self.folder.cleanup()

    def run(self, work):
        return self.loop.run_until_complete(work)

    def both(self, call):
        """The same call on the oracle and on one of the two handles."""
        self.turn += 1
        answers = []
        for store in (self.memory, self.handles[self.turn % 2]):
            try:
                answers.append(self.run(call(store)))
            except Exception as error:
                answers.append(error)
        assert comparable_any(answers[0]) == comparable_any(answers[1])
        return answers[0]

    def send(self, *appends):
        """Appends that wait at the same moment, so that they share a commit."""

        async def call(store):
            return await asyncio.gather(
                *(
                    store.append(run, drafts, after=after, batch=batch)
                    for run, drafts, after, batch in appends
                ),
                return_exceptions=True,
            )

        self.sent += appends
        self.both(call)

    def after_of(self, run, choice):
        """None, the tail, or something near it: what deciders with fresh and with old views send."""
        head = self.run(self.memory.head(run))
        position = 0 if head is None else head.position
        return {"none": None, "tail": position, "old": max(0, position - 2), "far": position + 1}[choice]

    @initialize()
    def begin(self):
        self.send(*((run, [created(), running()], 0, self.batches.next()) for run in RUNS))

    views = st.sampled_from(["none", "tail", "tail", "tail", "old", "far"])

    @rule(data=st.data(), sends=st.lists(st.tuples(runs, views), min_size=1, max_size=4))
    def append(self, data, sends):
        appends = []
        for run, view in sends:
            drafts = data.draw(drafts_of(self.clock))
            appends.append((run, drafts, self.after_of(run, view), self.batches.next()))
        self.send(*appends)

    @rule(run=runs, data=st.data(), back=st.sampled_from([None, 0, 1, 2, 4]))
    def decide(self, run, data, back):
        """A decider's well-formed append: the outcome of something that is open, then commands.

        It may have read the log's last events before: what its handle remembers moves on by them.
        """
        if back is not None:
            after = max(0, self.after_of(run, "tail") - back)
            self.both(lambda store: store.catch_up(run, after))
            self.turn -= 1
        steps = self.run(self.memory.open_steps(run))
        drafts = [
            new("step_completed", key=s.key, data={"attempt": s.attempt or 1}, at=self.clock.now())
            for s in steps[:1]
        ]
        drafts += [new("step_scheduled", key=k, data={}) for k in {data.draw(keys) for _ in range(2)}]
        self.send((run, drafts, self.after_of(run, "tail"), self.batches.next()))

    @rule(run=runs, end=ends, view=views)
    def end(self, run, end, view):
        self.send((run, [end], self.after_of(run, view), self.batches.next()))

    @rule(run=runs, end=outside_ends)
    def terminate(self, run, end):
        self.send((run, [end], None, self.batches.next()))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def resend(self, data):
        self.send(data.draw(st.sampled_from(self.sent)))

    @rule(
        token=st.sampled_from(NAMES), delivery=st.sampled_from("xyz"), payload=st.sampled_from([b"0", b"1"])
    )
    def deliver(self, token, delivery, payload):
        self.both(lambda store: store.deliver(token, payload, delivery))

    @rule(run=st.sampled_from(("r3", "r4")), owner=st.sampled_from([None, "w1"]))
    def create(self, run, owner):
        drafts = [created("v"), new("step_scheduled", key="a#1", data={})]
        self.both(lambda store: store.append(run, drafts, after=0, owner=owner))

    @rule(name=st.sampled_from(["w1", "w2"]), parked=st.booleans(), limit=st.integers(1, 3))
    def claim(self, name, parked, limit):
        # One handle for the workers: whether a worker was here before is a matter of its handle.
        self.turn = 0
        self.both(lambda store: store.enlist(worker(name)))
        self.turn = 0
        self.both(lambda store: store.claim(name, ["w", "v"], limit=limit, parked=parked))

    @rule(name=st.sampled_from(["w1", "w2"]), run=runs, mark=st.integers(0, 20))
    def release(self, name, run, mark):
        self.both(lambda store: store.release(name, {run: mark}))

    @rule(name=st.sampled_from(["w1", "w2"]))
    def discharge(self, name):
        self.both(lambda store: store.discharge(name))

    @rule(run=st.sampled_from((*RUNS, "nobody")), reason=st.sampled_from([None, "{}"]))
    def park(self, run, reason):
        self.both(lambda store: store.park(run, reason))

    @rule(run=st.sampled_from((*RUNS, "nobody")))
    def crash(self, run):
        self.both(lambda store: store.crashed(run))

    @rule(seconds=st.sampled_from([0.5, 1, 3]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @invariant()
    def the_same_is_there(self):
        for run in (*RUNS, "r3", "r4"):
            self.both(lambda store, run=run: head_of(store, run))
            self.both(lambda store, run=run: store.read(run))
            self.both(lambda store, run=run: store.chain(run))
            self.both(lambda store, run=run: store.open_steps(run))
        self.both(lambda store: store.hooks(open_only=False))
        self.both(lambda store: store.timers())
        self.both(lambda store: heads_of(store))
        self.both(lambda store: store.behind("w1"))
        self.both(lambda store: store.owned("w1"))

    @invariant()
    def projections_are_what_the_logs_fold_to(self):
        for store in (self.memory, self.handles[0]):
            for run in RUNS:
                if self.run(store.head(run)) is not None:
                    self.run(assert_sound(store, run))


def comparable_any(answer):
    if isinstance(answer, list):
        return [comparable_any(item) for item in answer]
    return comparable(answer) if isinstance(answer, Exception) else answer


def without_row(head):
    if head is not None:
        head.row = 0
    return head


async def head_of(store, run):
    return without_row(await store.head(run))


async def heads_of(store):
    return [without_row(head) for head in await store.runs()]


TestSideBySide = SideBySide.TestCase
EXAMPLES = int(os.environ.get("HOLDFAST_MACHINE", "15"))
TestSideBySide.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_memory_and_postgres_side_by_side(postgres):
    """The same machine, the same oracle."""
    run_state_machine_as_test(
        lambda: SideBySide(postgres.empty()),
        settings=settings(TestSideBySide.settings, max_examples=max(1, EXAMPLES // 2)),
    )
