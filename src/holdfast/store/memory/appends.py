"""An append to the memory store: what judging it takes to know, and what it changes."""

from __future__ import annotations

from typing import Any

from holdfast.events import dump_json, load_json, token_of
from holdfast.store.messages import Append, Appended, News, news_of_queues
from holdfast.store.rows import (
    Head,
    Hook,
    Link,
)
from holdfast.store.rules import Changes, Found, HookChange, Verdict, change_rows, judge, resolve, wanted

from .data import Data, Run


def append(data: Data, request: Append, now: int, news: list[News]) -> Appended | BaseException:
    """Judge and write one append; what it changed goes into `news`."""
    if request.token is not None:
        refused = resolve(request, _find(data, request))
        if refused is not None:
            return refused
    verdict = judge(request, _find(data, request), now)
    if verdict.rows:
        _write(data, request, verdict, news)
    return verdict.answer


def _find(data: Data, request: Append) -> Found:
    run = data.runs.get(request.run)
    found = Found(None if run is None else run.head)
    tokens = {token_of(d.key) for d in request.drafts if d.type in ("hook_opened", "hook_received")}
    opened = {token: [data.hooks[at] for at in data.tokens.get(token, ())] for token in tokens}
    found.former = {token: hooks[-1].status for token, hooks in opened.items() if hooks}
    found.continued = {
        token: hooks[-1].run for token, hooks in opened.items() if hooks and hooks[-1].status == "continued"
    }
    found.holders = {
        # The newest open one; they are all of one run, which `rules` sees to.
        token: (hook.run, hook.key)
        for token, hooks in opened.items()
        for hook in hooks
        if hook.status == "open"
    }
    found.deliveries = {
        str(d.unique): data.deliveries[d.unique] for d in request.drafts if d.unique in data.deliveries
    }
    if run is None:
        return found
    found.batch = run.batches.get(request.batch)
    found.uniques = {key: run.uniques[key] for key in wanted(request.drafts) if key in run.uniques}
    found.steps, found.timers, found.children = run.steps, run.timers, run.children
    found.beyond = run.log[request.after :] if request.after is not None else ()
    return found


def _write(data: Data, request: Append, verdict: Verdict, news: list[News]) -> None:
    head, changes = verdict.head, verdict.changes
    assert head is not None
    assert changes is not None
    run = data.runs.setdefault(head.run, Run(head))
    was_fact = 0 if run.head is head else run.head.fact
    run.head = head
    for row in verdict.rows:
        draft = row.draft
        run.log.append(row.event(head.run))
        if draft.unique is not None:
            run.uniques.setdefault(draft.unique, row.position)
    whole = isinstance(verdict.answer, Appended)
    if whole:
        run.batches[request.batch] = (verdict.rows[0].position, verdict.rows[-1].position)
    run.appends.append(Link(head.position, head.chain, request.after if whole else None))
    _change_steps(run, changes)
    change_rows(run.timers, changes.timers)
    change_rows(run.children, changes.children)
    for change in changes.hooks:
        _change_hook(data, head, change)
    for unique, position, digest in changes.deliveries:
        data.deliveries[unique] = (head.run, position, digest)
    if changes.ended:
        for rows in (run.steps, run.timers, run.queued, run.holders):
            rows.clear()
        if run.children:
            data.orphaned[head.run] = run
        _end_hooks(data, head.run, "continued" if changes.continued else "run_ended")
    # Facts that come back to their writer with the answer are no news; those of a refused one are.
    outside = head.fact > was_fact and not (whole and request.after is not None)
    news.append(News(head.run, head.owner, outside, changes.ended, head.ready, end=verdict.end()))
    if changes.queued:
        news += news_of_queues(head.run, changes.queued)


def _change_hook(data: Data, head: Head, change: HookChange) -> None:
    key, opened = change.key, change.data
    token = token_of(key)
    if opened is not None:
        schema, metadata = _plain(opened.get("schema")), _plain(opened.get("metadata"))
        hook = Hook(token, head.run, key, "open", change.time, schema, metadata)
        data.hooks[head.run, key] = hook
        data.tokens.setdefault(token, []).append((head.run, key))
        return
    hook_row = data.hooks.get((head.run, key))
    if hook_row is not None and hook_row.status == "open":
        _shut(data, hook_row, "closed")


def _end_hooks(data: Data, run: str, status: str) -> None:
    for hook in list(data.hooks.values()):
        if hook.run == run and hook.status == "open":
            _shut(data, hook, status)


def _shut(data: Data, hook: Hook, status: str) -> None:
    data.hooks[hook.run, hook.key] = Hook(
        hook.token, hook.run, hook.key, status, hook.opened, hook.schema, hook.metadata
    )


def _plain(value: object) -> Any:
    """As it comes back from JSON, which is how the other backends keep it."""
    return load_json(dump_json(value))


def _change_steps(run: Run, changes: Changes) -> None:
    change_rows(run.steps, changes.steps)
    run.queued.update(changes.queued)
    for key, step in changes.steps.items():
        if step is None:
            run.queued.pop(key, None)
        if step is None or step[1] is not None:
            run.holders.pop(key, None)
