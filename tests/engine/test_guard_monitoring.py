"""The watch sees code wherever it began, whatever it called before, and beside other tools.

What is claimed of the guard holds on each version of Python; what `sys.monitoring` brings is for 3.12 and later.
"""

from __future__ import annotations

import cProfile
import functools
import os
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest

from holdfast import inside
from holdfast.bench import flows
from holdfast.engine import guard
from holdfast.engine.guard import monitoring
from holdfast.errors import NotDeterministic

MONITORED = guard.watch is monitoring.watch
monitored = pytest.mark.skipif(not MONITORED, reason="this Python has no sys.monitoring")
tools: Any = getattr(sys, "monitoring", None)


def fresh(source: str, **names: Any) -> Any:
    """A function `go` whose code no tick has run yet, nor anything else."""
    scope = {"__name__": "somebodys_library", "time": time, **names}
    exec(compile(textwrap.dedent(source), "somebodys_library.py", "exec"), scope)
    return scope["go"]


def in_tick(call: Callable[[], Any]) -> Any:
    """Call it as the loop does: no frame that calls is looked up."""
    aside = guard.set_aside()
    try:
        guard.begin()
        try:
            return call()
        finally:
            guard.pause()
    finally:
        guard.put_back(aside)


def refused(call: Callable[[], Any], name: str = "time.time()") -> None:
    with pytest.raises(NotDeterministic, match=name.replace("(", r"\(").replace(")", r"\)")):
        in_tick(call)


class TestWhereCodeBegan:
    def test_a_function_that_has_run_outside_a_thousand_times(self) -> None:
        go = fresh("def go():\n    return time.time()")
        for _ in range(1000):
            go()
        refused(go)
        go()
        refused(go)

    def test_a_generator_that_was_under_way(self) -> None:
        numbers = fresh("def go():\n    while True:\n        yield time.time()")()
        next(numbers)
        refused(lambda: next(numbers))

    def test_a_generator_that_was_under_way_is_thrown_into(self) -> None:
        go = fresh("""
            def go():
                try:
                    yield
                except KeyError:
                    time.time()
        """)
        numbers = go()
        next(numbers)
        refused(lambda: numbers.throw(KeyError()))

    def test_a_generator_that_was_under_way_is_closed(self) -> None:
        go = fresh("""
            def go():
                try:
                    yield
                finally:
                    time.time()
        """)
        numbers = go()
        next(numbers)
        refused(numbers.close)

    def test_a_coroutine_and_what_it_awaits_were_under_way(self) -> None:
        go = fresh("""
            async def go(pause):
                await inner(pause)

            async def inner(pause):
                await pause()
                time.time()
        """)
        coroutine = go(types.coroutine(lambda: (yield)))
        coroutine.send(None)
        refused(lambda: coroutine.send(None))

    def test_an_async_generator_was_under_way(self) -> None:
        go = fresh("async def go():\n    while True:\n        yield time.time()")

        def step(values: AsyncGenerator[float]) -> None:
            with pytest.raises(StopIteration):
                values.__anext__().send(None)

        values = go()
        step(values)
        refused(lambda: values.__anext__().send(None))

    def test_the_code_that_enters_and_who_called_it(self) -> None:
        go = fresh(
            """
            def go():
                token = inner()
                try:
                    time.time()
                finally:
                    leave(token)

            def inner():
                return enter()
            """,
            enter=guard.enter,
            leave=guard.leave,
        )
        with pytest.raises(NotDeterministic):
            go()

    def test_a_frame_that_another_thread_runs_at_the_moment(self) -> None:
        """Its code is given local events while it runs."""
        go = fresh("def go(wait):\n    wait()\n    return time.time()")
        reached, on = threading.Event(), threading.Event()
        results: list[float] = []

        def wait() -> None:
            reached.set()
            on.wait()

        thread = threading.Thread(target=lambda: results.append(go(wait)))
        thread.start()
        reached.wait()
        refused(lambda: go(int))
        on.set()
        thread.join()
        assert len(results) == 1


class TestWhatIsCalledWhere:
    @pytest.mark.parametrize("first", [int, lambda: 0, functools.partial(int), "x".upper])
    def test_another_function_at_the_same_place(self, first: Any) -> None:
        go = fresh("def go(clock):\n    return clock()")
        for _ in range(100):
            go(first)
            in_tick(lambda: go(first))
        refused(lambda: go(time.time))
        assert go(time.time) > 0
        in_tick(lambda: go(first))
        refused(lambda: go(time.time))

    def test_a_global_and_an_attribute_that_are_replaced(self) -> None:
        owner = types.SimpleNamespace(clock=int)
        go = fresh("def go():\n    return owner.clock() + now()", owner=owner, now=int)
        for _ in range(100):
            in_tick(go)
        owner.clock = time.time
        refused(go)
        owner.clock, go.__globals__["now"] = int, time.monotonic
        refused(go, "time.monotonic()")

    @pytest.mark.parametrize(
        "source",
        [
            "def go():\n    return time.time(*())",
            "def go():\n    return time.time(*(), **{})",
            "def go():\n    return time.strftime(*['%H'])",
            "def go():\n    return time.sleep(*[0])",
            "def go():\n    return [time.time() for _ in 'x']",
            "def go():\n    return list(time.time() for _ in 'x')",
            "def go():\n    return (lambda now=time.time: now())()",
            "def go():\n    class Made:\n        at = time.time()",
            "def go():\n    @time.localtime\n    class Made: pass",
            "def go():\n    exec('time.time()')",
            "def go():\n    return eval('time.time()')",
            "def go():\n    return sorted([1], key=lambda _: time.time())",
            "def go():\n    return f'{time.time()}'",
            "def go():\n    assert time.time() < 0",
            "class Odd:\n    def __call__(self):\n        return time.time()\ngo = Odd()",
            "class Odd:\n    __add__ = lambda self, other: time.time()\ngo = lambda: Odd() + 1",
            "class Odd:\n    at = property(lambda self: time.time())\ngo = lambda: Odd().at",
            "class Odd:\n    def __getattr__(self, name):\n        return time.time()\ngo = lambda: Odd().x",
            "class Odd:\n    def __init__(self):\n        super().__init__(time.time())\ngo = Odd",
            "class M(type):\n    def __call__(self):\n        time.time()\nclass go(metaclass=M): pass",
        ],
    )
    def test_each_form_of_a_call(self, source: str) -> None:
        go = fresh(source)
        for _ in range(3):
            refused(go, "time.")

    def test_what_is_called_is_asked_nothing(self) -> None:
        """A callable object of workflow code may do anything when its attributes are looked at."""
        asked: list[str] = []

        class Odd:
            def __getattribute__(self, name: str) -> Any:
                asked.append(name)
                return object.__getattribute__(self, name)

            def __call__(self) -> None:
                pass

        odd = Odd()
        go = fresh("def go():\n    odd()", odd=odd)
        in_tick(go)
        assert asked == []


@monitored
class TestCallbacks:
    def test_they_go_when_they_are_not_needed_and_come_back_with_the_next_tick(self) -> None:
        go = fresh("def go():\n    return [int() for _ in 'x' * 100]")
        in_tick(go)
        assert monitoring._shown
        go()
        assert not monitoring._shown
        refused(fresh("def go():\n    return time.time()"))
        assert monitoring._shown

    def test_they_are_not_called_for_code_that_is_known_and_goes_on_outside(self) -> None:
        """As a workflow's does when a step wakes it: the engine's frame within begins the watch."""
        numbers = fresh("def go():\n    while True:\n        yield")()
        in_tick(lambda: next(numbers))
        fresh("def go(numbers):\n    next(numbers)")(numbers)
        in_tick(int)
        for _ in range(10 * monitoring._PATIENCE):
            next(numbers)
        assert monitoring._shown

    def test_they_stay_while_another_thread_is_in_a_tick(self) -> None:
        reached, on = threading.Event(), threading.Event()
        refusals: list[object] = []

        def work() -> None:
            token = guard.enter()
            reached.set()
            on.wait()
            try:
                time.time()
            except NotDeterministic as error:
                refusals.append(error)
            finally:
                guard.leave(token)

        thread = threading.Thread(target=work)
        thread.start()
        reached.wait()
        go = fresh("def go():\n    return [int() for _ in 'x' * 1000]")
        in_tick(go)
        go()
        on.set()
        thread.join()
        assert len(refusals) == 1

    def test_who_takes_them_away_second_does_not_say_that_they_are_there(self) -> None:
        """Two threads find at once that they are called in vain, a third is about to put the callbacks back: a
        fourth believed that they were there, and was not watched."""
        go = fresh("def go():\n    return time.time()")
        refused(go)
        monitoring._hide()
        monitoring._watched.add(-1)  # the third, which waits for its turn
        try:
            monitoring._hide()
            assert not monitoring._shown
            refused(go)
        finally:
            monitoring._watched.discard(-1)

    def test_threads_that_come_and_go_while_others_compute(self) -> None:
        """One takes the callbacks away as another begins to be watched: it is refused all the same."""
        missed: list[int] = []
        over = threading.Event()

        def compute() -> None:
            go = fresh("def go():\n    return [int() for _ in 'x' * 50]")
            while not over.is_set():
                go()

        def tick() -> None:
            go = fresh("def go():\n    return time.time()")
            for number in range(300):
                try:
                    in_tick(go)
                except NotDeterministic:
                    continue
                missed.append(number)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        computing = [threading.Thread(target=compute) for _ in range(2)]
        ticking = [threading.Thread(target=tick) for _ in range(2)]
        try:
            for thread in computing + ticking:
                thread.start()
            for thread in ticking:
                thread.join()
        finally:
            over.set()
            for thread in computing:
                thread.join()
            sys.setswitchinterval(interval)
        assert missed == []

    def test_holdfasts_own_code_is_left_alone_and_its_workflows_are_not(self) -> None:
        assert monitoring._is_ours(inside.now.__code__)
        assert not monitoring._is_ours(flows.gather.fn.__code__)
        assert not monitoring._is_ours(fresh("def go(): pass").__code__)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_that_is_forked_beside_a_tick_is_watched_no_more(self) -> None:
        token: list[object] = []
        reached, on = threading.Event(), threading.Event()

        def work() -> None:
            token.append(guard.enter())
            reached.set()
            on.wait()
            guard.leave(token[0])

        thread = threading.Thread(target=work)
        thread.start()
        reached.wait()
        child = os.fork()
        if child == 0:
            os._exit(len(monitoring._watched))
        on.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@monitored
class TestOtherTools:
    @pytest.fixture
    def tool(self) -> Iterator[int]:
        tools.use_tool_id(tools.DEBUGGER_ID, "somebody")
        yield tools.DEBUGGER_ID
        tools.set_events(tools.DEBUGGER_ID, 0)
        tools.free_tool_id(tools.DEBUGGER_ID)

    def test_one_that_comes_goes_and_restarts_all_events(self, tool: int) -> None:
        go = fresh("def go():\n    return time.time()")
        seen: list[object] = []
        tools.register_callback(tool, tools.events.PY_START, lambda code, _: seen.append(code))
        tools.register_callback(tool, tools.events.CALL, lambda *_: tools.DISABLE)
        for events in (
            tools.events.PY_START | tools.events.CALL,
            0,
            tools.events.LINE,
            tools.events.PY_START,
        ):
            tools.set_events(tool, events)
            refused(go)
            go()
            tools.restart_events()
            refused(go)
            tools.set_local_events(tool, go.__code__, tools.events.LINE | tools.events.CALL)
            refused(go)
            tools.set_local_events(tool, go.__code__, 0)
            refused(go)
        assert go.__code__ in seen

    def test_a_profiler_sees_ticks_too(self) -> None:
        profile = cProfile.Profile()
        go = fresh("def go():\n    return [len('x') for _ in range(3)], time.time()")
        with profile:
            refused(go)
        counted = {str(entry.code): entry.callcount for entry in profile.getstats()}
        assert counted["<built-in method builtins.len>"] == 3
        refused(go)

    def test_a_tracer_sees_ticks_too(self) -> None:
        go = fresh("def go():\n    return time.time()")
        lines: list[int] = []

        def trace(frame: types.FrameType, event: str, arg: object) -> Any:
            if frame.f_code is go.__code__ and event == "line":
                lines.append(frame.f_lineno)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            refused(go)
        finally:
            sys.settrace(before)
        assert lines == [2]

    @pytest.mark.parametrize(
        "call",
        [
            lambda: tools.free_tool_id(monitoring._tool),
            lambda: tools.set_events(monitoring._tool, 0),
            lambda: tools.register_callback(monitoring._tool, tools.events.CALL, None),
            lambda: tools.set_local_events(monitoring._tool, time.sleep, 0),
            lambda: tools.restart_events(),
        ],
    )
    def test_workflow_code_cannot_switch_it_off(self, call: Callable[[], object]) -> None:
        with pytest.raises(NotDeterministic, match="switch off"):
            in_tick(call)
        refused(fresh("def go():\n    return time.time()"))

    def test_where_all_ids_are_taken_a_profile_function_does_it(self) -> None:
        program = """
            import sys, time
            sys.monitoring.use_tool_id(3, "somebody")
            sys.monitoring.use_tool_id(4, "somebody else")
            from holdfast.engine import guard
            from holdfast.errors import NotDeterministic
            for _ in range(3):
                try:
                    with guard.watching():
                        time.time()
                except NotDeterministic:
                    print(guard.watch.__module__, sys.getprofile())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.stderr) == ("holdfast.engine.guard.profiling None\n" * 3, "")


def test_a_generator_started_in_a_tick_is_free_outside() -> None:
    numbers: Generator[float] = fresh("def go():\n    yield 1.0\n    yield time.time()")()
    assert in_tick(lambda: next(numbers)) == 1.0
    assert next(numbers) > 1.0
