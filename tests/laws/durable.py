"""Generated workflows: the asyncio programs of tests/engine, with steps, hooks and the run's own clock and chance.

The program is the workflow's argument, so a log says all that a replay needs, in whichever process.
`play_through` lets a seed decide what happens to a run: which step ends first, which timer is late, when a
payload comes, how slowly commands are committed.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

# Beside tests/engine: import-mode=importlib leaves both folders out of the path.
sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))

from hypothesis import strategies as st
from programs import Boom, Play, described, grown

import holdfast as hf
from holdfast.events import Event, new
from holdfast.testing import Rehearsal

TOKENS = 3
plays: list[DurablePlay] = []
"""What each execution in this process saw, in the order in which they began."""


@hf.step
async def work(where: str, sees: Any = None) -> Any:
    raise AssertionError("nobody runs step bodies here")


@hf.step(queue="few")
async def queued_work(where: str, sees: Any = None) -> Any:
    raise AssertionError("nobody runs step bodies here")


@hf.step
async def undo(where: str) -> Any:
    raise AssertionError("nobody runs step bodies here")


class DurablePlay(Play):
    """A program of asyncio that is a workflow, too; its child runs are of the same workflow."""

    @property
    def family(self) -> Any:
        """The workflow of child runs."""
        return durable

    async def do_step(self, where: str) -> None:
        self.note(where, await work(where, len(self.trace)))

    async def do_undo(self, where: str, program: Any) -> None:
        try:
            await self.run(program, where)
        finally:
            await undo(where)

    async def do_hook(self, where: str, number: int) -> None:
        self.note(where, await hf.hook(f"token-{number}"))

    async def do_hook_block(self, where: str, number: int, taken: int) -> None:
        async with hf.hook(f"token-{number}") as hook:
            left = taken
            async for payload in hook:
                self.note(where, payload)
                left -= 1
                if not left:
                    break

    async def do_close(self, _where: str, number: int) -> None:
        hf.hook(f"token-{number}").close()

    async def do_child(self, where: str, program: Any) -> None:
        self.note(where, await self.family(program))

    async def do_detached(self, where: str, program: Any) -> None:
        self.note(where, (await self.family.start(program)).id)

    async def do_continue(self, _where: str, program: Any) -> None:
        hf.continue_as_new(program)

    async def do_queued(self, where: str) -> None:
        self.note(where, await queued_work(where, len(self.trace)))

    async def do_chance(self, where: str) -> None:
        self.note(where, hf.random().random(), str(hf.uuid4()), hf.now().isoformat())

    async def do_attributes(self, where: str) -> None:
        hf.set_attributes(where=where[:200])

    async def do_patched(self, where: str, number: int) -> None:
        if hf.patched(f"patch-{number}"):
            await work(where)

    async def do_race(self, where: str, number: int) -> None:
        hook = hf.hook(f"token-{number}")
        waiting = {
            asyncio.create_task(hook.next(), name="hook"),
            asyncio.create_task(work(where), name="step"),
            asyncio.create_task(asyncio.sleep(2), name="sleep"),
        }
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        self.note(where, [task.get_name() for task in done])
        for task in pending:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class BodiedPlay(DurablePlay):
    """As it is, but its steps have bodies: `body` is the step that runs one, `queued` one in a queue."""

    body: Any
    queued: Any

    async def do_queued(self, where: str) -> None:
        self.note(where, await self.queued(where, len(self.trace)))

    async def do_step(self, where: str) -> None:
        got = await self.body(where, len(self.trace))
        got.append("changed by the code")
        self.note(where, got)

    async def do_undo(self, where: str, program: Any) -> None:
        try:
            await self.run(program, where)
        finally:
            await self.body(where)

    async def do_patched(self, where: str, number: int) -> None:
        if hf.patched(f"patch-{number}"):
            await self.body(where)

    async def do_race(self, where: str, number: int) -> None:
        hook = hf.hook(f"token-{number}")
        waiting = {asyncio.create_task(hook.next()), asyncio.create_task(self.body(where))}
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@hf.workflow
async def durable(program: Any) -> int:
    play = DurablePlay(program)
    plays.append(play)
    await play.main()
    return len(play.trace)


# ---- programs


def woven(seed: int) -> Any:
    """A program of asyncio with durable statements woven into it, child runs with programs of their own too."""
    chance = random.Random(seed)

    def life(depth: int) -> Any:
        """The program of a child run: it fails, takes its time, clings to life, or has children of its own."""
        inner = ("step",) if depth > 2 else durable_statement(depth + 1)
        return chance.choice(
            [
                [inner],
                [("sleep", chance.choice([0, 1, 3])), inner],
                [("step",), ("raise", chance.choice(["boom", "cancelled", "timeout", "bang"]))],
                [("undo", [inner])],
                [("try", [inner, ("sleep", 2)], "cancelled", chance.random() < 0.5, [("step",)], None)],
                [("step",), ("continue", [inner])],
            ]
        )

    def durable_statement(depth: int) -> Any:
        number = chance.randrange(TOKENS)
        if chance.random() < 0.2:
            return (chance.choice(["child", "child", "child", "detached"]), life(depth))
        return chance.choice(
            [
                *[("step",)] * 8,
                *[("queued",)] * 2,
                *[("hook", number)] * 2,
                ("hook_block", number, chance.randint(1, 2)),
                ("close", number),
                ("chance",),
                ("attributes",),
                ("patched", number),
                ("race", number),
                ("undo", [("step",) if depth > 2 else durable_statement(depth + 1)]),
            ]
        )

    def weave(body: Any, depth: int) -> Any:
        out: list[Any] = []
        for kind, *args in body:
            if kind in ("sleep", "put", "get", "barrier", "notify") and chance.random() < 0.6:
                out.append(durable_statement(depth))
                continue
            out.append((kind, *(weave_into(arg, depth + 1) for arg in args)))
            if chance.random() < 0.3:
                out.append(durable_statement(depth))
        return out

    def weave_into(arg: Any, depth: int) -> Any:
        if not isinstance(arg, list) or not arg:
            return arg
        if isinstance(arg[0], tuple):
            return weave(arg, depth)
        return [weave_into(one, depth) for one in arg]

    last = ("continue", [("hook", 0), ("step",)]) if chance.random() < 0.15 else ("step",)
    return [("step",), *weave(grown(seed), 0), last]


seeds = st.integers(0, 2**32 - 1)


# ---- what happens to a run


def play_through(
    program: Any, seed: int, *, most: int = 60, cold: bool = False, run_id: str = "law"
) -> Rehearsal:
    """Let things happen to a run, in an order that the seed gives, until it ends or `most` facts have come.

    With `cold`, the live code is dropped before each fact and replayed from the log.
    """
    chance = random.Random(seed)
    run = Rehearsal(durable, program, run_id=run_id, seed=f"seed-{seed}", hold=True)
    for _ in range(most):
        if chance.random() < 0.7:
            run.commit()
        if run.ended:
            break
        if cold:
            run.evict()
        if not happen(run, chance):
            run.commit()
            if not happen(run, chance):
                break
    run.commit()
    return run


def happen(run: Rehearsal, chance: random.Random) -> bool:
    """One thing that can happen to the run now; False where there is none."""
    steps, timers, hooks, children = run.steps, run.timers, run.hooks, run.children
    what = [
        *["complete"] * 4 * bool(steps),
        *["fail"] * bool(steps),
        *["fire"] * 4 * bool(timers),
        *["late"] * bool(timers),
        *["send"] * 2 * bool(hooks),
        *["child"] * 3 * bool(children),
    ]
    if not what:
        return False
    if chance.random() < 0.02:
        what = ["cancel"] if not any(e.type == "cancel_requested" for e in run.log) else ["wake"]
    match chance.choice(what):
        case "complete":
            run.complete(chance.choice(steps), chance.randrange(100))
        case "fail":
            run.fail(chance.choice(steps), Boom("a step"))
        case "fire":
            run.fire()
        case "late":  # another one than the earliest: its clock was slow
            run.fire(chance.choice(timers))
        case "send":
            run.send(chance.choice(hooks), chance.randrange(100))
        case "child":
            end_child(run, chance)
        case "cancel":
            run.cancel("enough")
        case "wake":
            run.wake()
    return True


def end_child(run: Rehearsal, chance: random.Random) -> None:
    """A child run has come to an end, of one kind or another; a detached one has begun."""
    key = chance.choice(run.children)
    failures = [None, None, Boom("a child"), hf.RunCancelled("a child", run_id=key, reason="enough")]
    failure = chance.choice(failures)
    if failure is None or run.execution.children[key].detached:
        run.complete(key, chance.randrange(100))
    else:
        run.fail(key, failure)


def asked_by(drafts: Any) -> list[tuple[str, str, bytes]]:
    return [(draft.type, draft.key, draft.body) for draft in drafts]


def commands(events: list[Event]) -> list[tuple[str, str, bytes]]:
    return [(e.type, e.key, e.body) for e in events if e.cls == "command"]


__all__ = ["BodiedPlay", "DurablePlay", "described", "durable", "new", "play_through", "plays", "woven"]
