"""The one transaction that a group of writes becomes.

What it guarantees: each append of a group is judged on what is true inside the transaction that writes it; a
refused append leaves nothing and fails no neighbour; a group that cannot be committed leaves nothing at all.

There are two ways to judge an append.

- *Fast*: from what this process remembers of the run (`store/known.py`), and from what its worker has read of it
  since, without a read. The row is then updated under the condition that the hash of the run's log is still the
  remembered one, which says more than any position: it is the same log. What memory cannot know, a unique key that
  is there already, the unique indexes find out. Only plain acceptance is believed; every other verdict is judged
  again, slowly.
- *Slow*: after looking everything up.

The rows of the whole group are written table by table at the end. If an index refuses one, or a run's row is
not the remembered one, the group is rolled back and done again carefully: each append slowly, in a savepoint
of its own.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw

from holdfast import faults
from holdfast.clock import Clock
from holdfast.errors import PayloadError
from holdfast.events import Event, dump_json, name_of, token_of
from holdfast.store.group import Answers, Item, Job
from holdfast.store.known import Known, follow
from holdfast.store.messages import Append, Appended, News, news_of_queues
from holdfast.store.rows import Head
from holdfast.store.rules import (
    FROM_MEMORY,
    Changes,
    Found,
    HookChange,
    Verdict,
    judge,
    judge_in_full,
    judge_plainly,
    resolve,
)

from .connect import FATAL, SQL, translate
from .lookups import Lookups, to_json
from .writes import Writes

REMEMBERED = 10_000
"""How many runs a process remembers."""
HEARD = 100, 1000
"""Of so many runs, so many events each, is kept what their worker has read since its last append."""

Since = list[tuple[Event, bytes | None]]
"""Events of one run, each with the hash of the log where an append ends."""
_BEGIN, _COMMIT = SQL["begin"], SQL["commit"]
_CREATE = SQL["create_run"]


class GroupWriter:
    """Writes groups through one connection; used by one thread at a time."""

    def __init__(self, db: apsw.Connection, path: str, clock: Clock) -> None:
        self.db = db
        self._path = path
        self._clock = clock
        self._cursor = db.cursor()
        self._lookups = Lookups(db)
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._heard: OrderedDict[str, Since] = OrderedDict()
        self._touched: set[str] = set()
        self._writes = Writes()
        self.sync = 0.0
        """Seconds that the latest commit took to become durable."""

    def commit(self, group: Sequence[Item]) -> tuple[Answers, list[News]]:
        """Judge and write a group, and make it durable.

        Raises an error of apsw, or of an armed fault point, where nothing could be stored.
        """
        news: list[News] = []
        answers = self._attempt(group, news, self._plainly)
        if answers is None:
            news.clear()
            answers = self._attempt(group, news, self._carefully)
            assert answers is not None
        faults.point("store.commit.after")
        return answers, news

    def _attempt(
        self,
        group: Sequence[Item],
        news: list[News],
        write: Callable[[Sequence[Item], list[News]], Answers | None],
    ) -> Answers | None:
        """The group in one transaction, or None where `write` gave it up."""
        execute = self._cursor.execute
        execute(_BEGIN)
        try:
            answers = write(group, news)
            if answers is not None:
                faults.point("store.commit.before")
                begun = time.perf_counter()
                execute(_COMMIT)
                self.sync = time.perf_counter() - begun
        except BaseException:
            self._forget()
            raise
        if answers is None:
            self._forget()
        self._touched.clear()
        return answers

    def _plainly(self, group: Sequence[Item], news: list[News]) -> Answers | None:
        answers: Answers = []
        try:
            for item in group:
                if isinstance(item, Job):
                    self._flush()
                    answers.append(item.work() if len(group) == 1 else self._job(item))
                else:
                    answers.append(self._fast(item, news) or self._slow(item, news))
            self._flush()
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - done again carefully, each gets its own error
            return None
        return answers

    def _carefully(self, group: Sequence[Item], news: list[News]) -> Answers:
        answers: Answers = []
        for item in group:
            if isinstance(item, Job):
                answers.append(self._job(item))
            else:
                answers.append(self._alone(item, news))
        return answers

    def _alone(self, request: Append, news: list[News]) -> Appended | BaseException:
        told = len(news)

        def work() -> Appended | BaseException:
            answer = self._slow(request, news)
            self._flush()
            return answer

        def undone(error: Exception) -> BaseException:
            del news[told:]
            if isinstance(error, UnicodeError):
                return PayloadError(
                    f"{request.run!r}: names and payloads must be UTF-8 text ({error}): escape what is not"
                )
            return error

        return self._guarded(work, undone)  # type: ignore[no-any-return]

    def _job(self, job: Job[Any]) -> Any:
        return self._guarded(job.work, lambda error: error)

    def _guarded(self, work: Callable[[], Any], undone: Callable[[Exception], Any]) -> Any:
        """Run a part of the group in a savepoint; its error is its answer, unless it is the file's."""
        db = self.db
        db.execute(SQL["savepoint"])
        try:
            outcome = work()
        except FATAL:
            raise
        except Exception as error:  # noqa: BLE001 - the answer of this item alone
            self._forget_buffers()
            db.execute(SQL["undo_savepoint"])
            outcome = undone(translate(error, self._path) if isinstance(error, apsw.Error) else error)
        db.execute(SQL["keep_savepoint"])
        return outcome

    # ---- the two ways

    def _fast(self, request: Append, news: list[News]) -> Appended | None:
        """Judge from memory; None where that is not enough."""
        drafts, after = request.drafts, request.after
        known = self._known.get(request.run)
        if known is None:
            if after != 0 or not drafts or drafts[0].type != "run_created":
                return None
            found = Found(None)
        else:
            if after is not None and after != known.head.position and not self._follow(known, after):
                return None
            found = Found(known.head, known.steps, known.timers, known.children)
        now = self._clock.now()
        verdict = judge_plainly(request, found, now)
        if verdict is None:
            for draft in drafts:
                if draft.type not in FROM_MEMORY:
                    return None
            verdict = judge_in_full(request, found, now)
        answer = verdict.answer
        if type(answer) is not Appended or not verdict.rows or answer.duplicates:
            return None
        if known is not None:
            self._known.move_to_end(request.run)
        return answer if self._write(request, verdict, known, news) else None  # its id is taken

    def _slow(self, request: Append, news: list[News]) -> Appended | BaseException:
        """Look up, judge, write."""
        self._flush()
        found = Found(None)
        self._lookups.tokens(request, found)
        if request.token is not None:
            refused = resolve(request, found)
            if refused is not None:
                return refused
        known = self._lookups.find(request, found, self._known.pop(request.run, None))
        verdict = judge(request, found, self._clock.now())
        if verdict.rows:
            written = self._write(request, verdict, known, news)
            assert written, "the write lock is ours, and the run's row was just looked up"
            if known is not None and known.head.ended is None:
                self._remember(known)
        elif known is not None:
            self._remember(known)
        return verdict.answer

    # ---- writing

    def _write(self, request: Append, verdict: Verdict, known: Known | None, news: list[News]) -> bool:
        """Write a verdict with the next flush; False where it creates a run that is there already."""
        head, changes = verdict.head, verdict.changes
        assert head is not None
        assert changes is not None
        if head.run in self._touched:
            self._flush()  # the statements of a flush have no order among the appends of one run
        self._touched.add(head.run)
        whole = type(verdict.answer) is Appended
        outside = not whole or request.after is None
        if known is None:
            if not self._create(head):
                return False
            known = Known(head)
            outside = outside and head.fact > 0
            self._remember(known)
        else:
            before, known.head = known.head, head
            outside = outside and head.fact > before.fact
            self._writes.move(head, before)
        self._writes.log(head, verdict.rows, request, whole=whole)
        self._project_steps(head.row, known, changes.steps)
        if not changes.only_steps:
            self._project(head, known, changes, news)
        end = verdict.end() if changes.ended else None
        news.append(News(head.run, head.owner, outside, changes.ended, head.ready, None, None, end))
        return True

    def _create(self, head: Head) -> bool:
        values = (
            head.run, head.workflow, head.status, head.position, head.time, head.chain, head.command,
            head.fact, head.delivered, head.steps, head.timers, head.children, head.created, head.ended,
            dump_json(head.attributes).decode(), head.owner, head.parent, head.root,
        )  # fmt: skip
        made: list[Any] = self._cursor.execute(_CREATE, values).fetchall()
        if made:
            head.row = made[0][0]
        return bool(made)

    def _project_steps(
        self, row: int, known: Known, steps: Mapping[str, tuple[int, int | None] | None]
    ) -> None:
        writes, open_steps = self._writes, known.steps
        for key, step in steps.items():
            if step is not None:
                writes.put_steps.append((row, key, step[0], step[1]))
                open_steps[key] = step
            elif open_steps.pop(key, None) is not None or not known.full:
                writes.dropped_steps.append((row, key))

    def _project(self, head: Head, known: Known, changes: Changes, news: list[News]) -> None:
        row, writes = head.row, self._writes
        if changes.ended:
            writes.ended.append((row,))
            self._known.pop(head.run, None)
        if changes.continued:
            writes.continued.append((row,))
        if changes.queued:
            news += news_of_queues(head.run, changes.queued)
        for key, queued in changes.queued.items():
            place = (queued.queue, queued.limit_key, queued.priority, queued.time, queued.position)
            writes.add("queue_step", (row, key, *place, name_of(key)))
        for key, due in changes.timers.items():
            if due is None:
                writes.add("drop_timer", (row, key))
                known.timers.pop(key, None)
            else:
                writes.add("put_timer", (row, key, due))
                known.timers[key] = due
        for key, child in changes.children.items():
            if child is None:
                writes.add("drop_child", (row, key))
                known.children.pop(key, None)
            else:
                writes.add("put_child", (row, key, *child))
                known.children[key] = child
        for change in changes.hooks:
            self._change_hook(row, change)
        for unique, position, digest in changes.deliveries:
            self.db.execute(SQL["add_delivery"], (unique, row, position, digest))

    def _change_hook(self, row: int, change: HookChange) -> None:
        if change.data is None:
            self.db.execute(SQL["close_hook"], (row, change.key))
            return
        schema, metadata = change.data.get("schema"), change.data.get("metadata")
        self.db.execute(
            SQL["open_hook"],
            (token_of(change.key), row, change.key, change.time, to_json(schema), to_json(metadata)),
        )

    def _flush(self) -> None:
        """Write what has been gathered. Raises Moved."""
        writes, self._writes = self._writes, Writes()
        writes.flush(self.db, self._cursor)

    # ---- remembering

    def heard(self, run: str, new: Since) -> None:
        """What this process has read of a run that it remembers: the next append may be judged on it.

        Called on the loop, while a group may be judged in the thread; so it is kept apart until that is asked for.
        """
        before = self._heard.pop(run, [])
        known = self._known.get(run)
        if before and before[-1][0].position == new[0][0].position - 1:
            new = before + new
        runs, events = HEARD
        if known is None or known.head.position != new[0][0].position - 1 or len(new) > events:
            return
        self._heard[run] = new
        if len(self._heard) > runs:
            self._heard.popitem(last=False)

    def _follow(self, known: Known, after: int) -> bool:
        """Whether what was heard of a run brings what is remembered of it to just there."""
        new = self._heard.pop(known.head.run, None)
        return new is not None and new[-1][0].position == after and follow(known, new)

    def _remember(self, known: Known) -> None:
        if not known.full:
            return
        run = known.head.run
        self._known[run] = known
        self._known.move_to_end(run)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _forget(self) -> None:
        """Undo a transaction, also in memory."""
        self._forget_buffers()
        if self.db.in_transaction:
            self.db.execute(SQL["rollback"])

    def _forget_buffers(self) -> None:
        for run in self._touched:
            self._known.pop(run, None)
        self._touched.clear()
        self._writes = Writes()
