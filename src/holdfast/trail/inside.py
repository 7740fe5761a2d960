"""`hf.trail`: chapters, notes and decisions, told from wherever the code runs.

    async with hf.trail.chapter("Investigate", agent="ben"):
        report = await read_logs(service)
        hf.trail.decide("Which token?", "JWT", reasoning="stateless", alternatives=["session"])

In workflow code each call is a command of the run's log (`noted`): it is committed with the tick that made it,
matched on replay and never doubled, and the recorder makes a trail of it. So its values must follow from the
code and the log, as a step's arguments must. Which chapter it belongs to is a context variable of the task:
what a chapter starts (`gather`, `create_task`) inherits it, and parallel branches do not see each other's.

Everywhere else the same functions write to the trail or chapter whose `with` block is around the code.

An exception that leaves a chapter is recorded where it left the innermost one. Code that was evicted records
nothing: its chapters are still open in the log, and are closed by whoever replays it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..clock import from_datetime, to_text
from ..errors import DefinitionError, PayloadError
from ..runtime import Runtime, chapter_here, here
from .telling import Telling

if TYPE_CHECKING:
    from .handle import OpenChapter, OpenTrail
    from .model import Alternative, Significance

_ERROR_TEXT = 2000
"""Characters of an exception's message that a chapter's end keeps."""


class _Told(Telling[str]):
    """What is told in workflow code: each call asks for a `noted` command."""

    def __init__(self, runtime: Runtime, chapter: RunChapter | None) -> None:
        self._runtime = runtime
        self._chapter = chapter

    def chapter(self, title: str, *, agent: str | None = None) -> RunChapter:
        """A chapter in this one; it opens where its `with` begins."""
        return RunChapter(self._runtime, title, agent, self._chapter)

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> str:
        told = {"kind": type, **data}
        if self._chapter is not None:
            told["chapter"] = self._chapter.opened()
        if agent is not None:
            told["agent"] = agent
        if occurred_at is not None:
            told["occurred_at"] = _instant(occurred_at)
        return self._runtime.note(told)


class RunChapter(_Told):
    """A chapter of a run's trail: `with` (or `async with`) opens it, makes it the current one, and closes it.

    Agents that are not named are the agent of the chapter around, or the workflow.
    """

    def __init__(self, runtime: Runtime, title: str, agent: str | None, parent: RunChapter | None) -> None:
        super().__init__(runtime, self)
        if not isinstance(title, str) or not title.strip():
            raise PayloadError(f"chapter: expected a title, got {title!r:.80}")
        if agent is not None and (not isinstance(agent, str) or not agent):
            raise PayloadError(f"chapter: expected an agent's name, got {agent!r:.80}")
        self.key = ""
        self.title = title
        self.agent = agent
        self._parent = parent
        self._outer: RunChapter | None = None
        self._closed = False
        self._told: BaseException | None = None

    def __repr__(self) -> str:
        return f"<chapter {self.title!r} {self.key}>"

    def opened(self) -> str:
        """Its key. Raises DefinitionError before its `with` begins."""
        if not self.key:
            raise DefinitionError(
                f"chapter {self.title!r} is not open: use it as `with hf.trail.chapter(…) as chapter:`"
            )
        return self.key

    def __enter__(self) -> Self:
        if self.key:
            raise DefinitionError(f"chapter {self.title!r} was opened before: make another one")
        data: dict[str, Any] = {"kind": "chapter_opened", "title": self.title}
        if self._parent is not None:
            data["chapter"] = self._parent.opened()
        if self.agent is not None:
            data["agent"] = self.agent
        self.key = self._runtime.note(data)
        self._outer = _around()
        chapter_here.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        # Not by token: an async generator may be closed in another context than it was opened in.
        if chapter_here.get() is self:
            chapter_here.set(self._outer)
        if self._closed or here.runtime is not self._runtime:
            return
        self._closed = True
        data: dict[str, Any] = {"kind": "chapter_closed", "chapter": self.key}
        if error is not None and not isinstance(error, GeneratorExit):
            if not _counts(error):
                return
            if error is not self._told:
                data["error"] = _told_error(error)
            if self._parent is not None:
                self._parent._told = error
        self._runtime.note(data)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, tb)


def _around() -> RunChapter | None:
    chapter = chapter_here.get()
    return chapter if isinstance(chapter, RunChapter) else None


def _counts(error: BaseException) -> bool:
    """Whether it is the code's own; any other is how evicted or interrupted code is made to go away."""
    from asyncio import CancelledError  # half of what `import holdfast.trail` would cost

    return isinstance(error, Exception | CancelledError | SystemExit)


def _told_error(error: BaseException) -> dict[str, Any]:
    from .. import failures

    described = failures.describe(error)
    return {"type": described["type"], "message": str(described["message"])[:_ERROR_TEXT]}


def _instant(when: datetime) -> str:
    try:
        return to_text(from_datetime(when))
    except (AttributeError, ValueError) as error:
        raise PayloadError(f"occurred_at: {error}") from None


class AnyChapter:
    """A chapter outside of workflows, for `with` and for `async with`."""

    def __init__(self, chapter: OpenChapter) -> None:
        self._chapter = chapter

    def __enter__(self) -> OpenChapter:
        return self._chapter.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._chapter.__exit__(kind, error, tb)

    async def __aenter__(self) -> OpenChapter:
        # The context variable must be set here, in the task's own context; writing happens at the call.
        return self._chapter.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._chapter.__exit__(kind, error, tb)


def _writer(what: str) -> _Told | OpenTrail | OpenChapter:
    """Where a call goes: to the run's log, or to the trail around. Raises DefinitionError where is neither."""
    runtime = here.runtime
    if runtime is not None:
        return _Told(runtime, _around())
    from . import handle  # brings the folder along, which workflow code does not need

    current = handle.current()
    if current is None:
        raise DefinitionError(
            f"hf.trail.{what}() was called outside of workflow code, and no trail is open around it: "
            'begin one with `with TrailFolder().start("…") as trail:` '
            "(in a step: return what is worth a note, and let the workflow note it)"
        )
    return current


# ---- the functions ------------------------------------------------------------------------------------------


def chapter(title: str, *, agent: str | None = None) -> RunChapter | AnyChapter:
    """A part of the work, by one agent: what is told inside belongs to it. Use `with` or `async with`.

    Without `agent`, the agent of the chapter around. An exception that leaves it is recorded there.

    Example:
        with hf.trail.chapter("Investigate", agent="ben") as chapter:
            hf.trail.note("The token expires too early")
            chapter.note("the same, wherever it is called from")

    Raises PayloadError for an empty title, DefinitionError outside of workflows and trails.
    """
    writer = _writer("chapter")
    if isinstance(writer, _Told):
        return writer.chapter(title, agent=agent)
    return AnyChapter(writer.chapter(title, agent=agent))


def note(
    content: str,
    *,
    agent: str | None = None,
    tags: Sequence[str] = (),
    significance: Significance | None = None,
    raw: Any = None,
    confidence: float | None = None,
    occurred_at: datetime | None = None,
) -> None:
    """Something worth knowing later.

    `agent` is who says it (default: the chapter's), `raw` any value that a step could return, `confidence`
    from 0 to 1, `occurred_at` when it was, if not now. Raises PayloadError where a value does not fit; then
    nothing is recorded.

    Example:
        hf.trail.note("The cache was stale", tags=["cache"], significance="high")
    """
    _writer("note").event(
        "note",
        content,
        agent=agent,
        tags=tags,
        significance=significance,
        raw=raw,
        confidence=confidence,
        occurred_at=occurred_at,
    )


def find(
    content: str,
    *,
    agent: str | None = None,
    tags: Sequence[str] = (),
    significance: Significance = "medium",
    raw: Any = None,
    confidence: float | None = None,
    occurred_at: datetime | None = None,
) -> None:
    """A finding: something that was discovered. Raises as `note` does.

    Example:
        hf.trail.find("Two modules import each other", raw={"modules": ["a", "b"]})
    """
    _writer("find").find(
        content,
        agent=agent,
        tags=tags,
        significance=significance,
        raw=raw,
        confidence=confidence,
        occurred_at=occurred_at,
    )


def decide(
    question: str,
    chosen: str,
    *,
    reasoning: str = "",
    alternatives: Iterable[str | Alternative | dict[str, str]] = (),
    confidence: float | None = None,
    agent: str | None = None,
    tags: Sequence[str] = (),
    significance: Significance = "high",
    occurred_at: datetime | None = None,
) -> None:
    """A choice, why it was made, and what else could have been. Raises as `note` does.

    Example:
        hf.trail.decide("Ship by air?", "yes", reasoning="it is urgent", alternatives=["sea"])
    """
    _writer("decide").decide(
        question,
        chosen,
        reasoning=reasoning,
        alternatives=alternatives,
        confidence=confidence,
        agent=agent,
        tags=tags,
        significance=significance,
        occurred_at=occurred_at,
    )


def reflect(
    content: str,
    *,
    confidence: float | None = None,
    focal_points: Sequence[str] = (),
    adjustments: str | None = None,
    agent: str | None = None,
    tags: Sequence[str] = (),
    significance: Significance = "high",
    occurred_at: datetime | None = None,
) -> None:
    """A look back on how it goes; `confidence` (0 to 1) is how sure the agent is. Raises as `note` does.

    The last one of a run is the confidence of its trail.

    Example:
        hf.trail.reflect("Two of three sources agree", confidence=0.7)
    """
    _writer("reflect").reflect(
        content,
        confidence=confidence,
        focal_points=focal_points,
        adjustments=adjustments,
        agent=agent,
        tags=tags,
        significance=significance,
        occurred_at=occurred_at,
    )
