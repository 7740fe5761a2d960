"""What is known of the runs of a group while its appends are judged, one after the other.

`Known` is what this process remembers of a run (`store/known.py`).

`View` is what was looked up for a group behind locks. Each verdict is applied to it before the next append is
judged, so that several appends of one run, or several openings of one token, are judged as if each had been
committed alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.events import Draft, Event, token_of
from holdfast.store import known
from holdfast.store.messages import Append, Appended
from holdfast.store.rows import Head
from holdfast.store.rules import Found, Verdict, wanted
from holdfast.store.streams import StreamHead


class Known(known.Known):
    """What this process remembers of a run, with what it needs for payloads and streams."""

    __slots__ = ("hooks", "streams")

    def __init__(self, head: Head, *, full: bool = True) -> None:
        super().__init__(head, full=full)
        self.hooks: dict[str, tuple[str, int]] = {}
        """Of the open hooks, some: token -> (the one that gets its payloads, where it opened). What is judged from
        memory neither opens nor closes any."""
        self.streams: dict[str, StreamHead] | None = None
        """All its streams; None where nobody has looked. What is written to one rests on its own hash besides."""


class Looked:
    """One run of a view: what is known of it, and the parts of its log that the group's appends name."""

    __slots__ = ("batches", "before", "beyond", "known", "uniques")

    def __init__(self, known: Known) -> None:
        self.known = known
        self.before: Head = known.head
        self.uniques: dict[str, int] = {}
        self.batches: dict[str, tuple[int, int]] = {}
        self.beyond: list[Event] = []


class View:
    """A group's runs and tokens, behind locks."""

    def __init__(self) -> None:
        self.runs: dict[str, Looked] = {}
        self.holders: dict[str, list[tuple[str, str]]] = {}
        """Of each token, the open hooks (run, key), the newest last."""
        self.former: dict[str, str] = {}
        self.continued: dict[str, str] = {}
        self.deliveries: dict[str, tuple[str, int, str]] = {}

    def tokens(self, request: Append) -> Found:
        """What `resolve` needs."""
        found = Found(None)
        self._find_tokens(request, found)
        return found

    def find(self, request: Append) -> Found:
        """What `judge` needs."""
        looked = self.runs.get(request.run)
        found = Found(None) if looked is None else looked.known.found()
        self._find_tokens(request, found)
        if looked is None:
            return found
        found.batch = looked.batches.get(request.batch)
        uniques = looked.uniques
        found.uniques = {key: uniques[key] for key in wanted(request.drafts) if key in uniques}
        after = request.after
        if after is not None:
            found.beyond = [event for event in looked.beyond if event.position > after]
        return found

    def _find_tokens(self, request: Append, found: Found) -> None:
        names = tokens_of(request.drafts)
        if not names:
            return
        found.holders = {token: hooks[-1] for token in names if (hooks := self.holders.get(token))}
        found.former = {token: self.former[token] for token in names if token in self.former}
        found.continued = {
            token: self.continued[token]
            for token in names
            if found.former.get(token) == "continued" and token not in found.holders
        }
        found.deliveries = {
            draft.unique: self.deliveries[draft.unique]
            for draft in request.drafts
            if draft.unique is not None and draft.unique in self.deliveries
        }

    def apply(self, request: Append, verdict: Verdict) -> None:
        """What the view comes to after a verdict."""
        head, changes = verdict.head, verdict.changes
        assert head is not None
        assert changes is not None
        looked = self.runs.get(head.run)
        if looked is None:
            looked = self.runs[head.run] = Looked(Known(head))
        looked.known.apply(head, changes)
        for row in verdict.rows:
            draft = row.draft
            looked.beyond.append(row.event(head.run))
            if draft.unique is not None:
                looked.uniques.setdefault(draft.unique, row.position)
        if isinstance(verdict.answer, Appended):
            looked.batches[request.batch] = (verdict.rows[0].position, verdict.rows[-1].position)
        for unique, position, digest in changes.deliveries:
            self.deliveries[unique] = (head.run, position, digest)
        for change in changes.hooks:
            token, hook = token_of(change.key), (head.run, change.key)
            if change.data is not None:
                self.holders.setdefault(token, []).append(hook)
            elif hook in self.holders.get(token, ()):
                self._shut(token, hook, "closed")
        if changes.ended:
            for token, hooks in self.holders.items():
                for hook in [hook for hook in hooks if hook[0] == head.run]:
                    self._shut(token, hook, "continued" if changes.continued else "run_ended")

    def _shut(self, token: str, hook: tuple[str, str], status: str) -> None:
        self.holders[token].remove(hook)
        self.former[token] = status
        if status == "continued":
            self.continued[token] = hook[0]


def tokens_of(drafts: Iterable[Draft]) -> set[str]:
    """The tokens that drafts open, take over from a run that continues as another, or send to."""
    tokens = {token_of(draft.key) for draft in drafts if draft.type in ("hook_opened", "hook_received")}
    return tokens.union(*(draft.data.get("hooks") or () for draft in drafts if draft.type == "run_created"))
