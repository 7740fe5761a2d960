"""What a trail is: the types that `TrailFolder.load` gives and that exports are made of.

They are the published record (`docs/reference/trail.schema.json`): `to_record` in `record` writes them with
the keys and in the order of the JSON that other tools read. Instants are aware datetimes in UTC. `extra`
holds keys of a record that this version does not know, at each level, so that they survive a load and save.

    Trail
    ├── task: Task(title, description, source)
    ├── agents: who took part, in the order in which they came
    ├── chapters: parts of the work; `parent` makes them a tree
    │   └── events: what happened, each with its agent, in the order in which it was recorded
    └── retrospective: what came of it, once the trail has ended
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, field

from ..clock import from_datetime

Status = Literal["active", "completed", "abandoned"]
Significance = Literal["low", "medium", "high", "critical"]

SIGNIFICANCES: tuple[Significance, ...] = ("low", "medium", "high", "critical")
EVENT_TYPES = (
    "prompt",
    "thinking",
    "tool_call",
    "tool_result",
    "message_sent",
    "message_received",
    "decision",
    "finding",
    "reflection",
    "note",
    "error",
    "completion-evidence",
    "completion-marker",
    "abandoned",
)
"""The types of events that are known; others are kept and shown as they are."""

TITLE_LIMIT = 500
LAST_TS = 253_402_300_799_999
"""The last millisecond of the year 9999: what is beyond it was counted in another unit."""
EXTRA = " extra"
"""The key under which `record` hands unknown keys to a type; no JSON key of a record is spelled so."""

Title = Annotated[str, Meta(min_length=1, max_length=TITLE_LIMIT)]
Words = Annotated[str, Meta(min_length=1)]
Instant = Annotated[datetime, Meta(tz=True)]
Confidence = Annotated[float, Meta(ge=0, le=1)]
TrailId = Annotated[str, Meta(pattern=r"^traj_[a-z0-9_]{1,100}(?!\n)$")]  # `$` alone lets a line feed pass


class Part(msgspec.Struct, kw_only=True, rename="camel"):
    """A part of a record. `sparse` names the fields that are left out of the JSON when they are empty."""

    sparse: ClassVar[tuple[str, ...]] = ()

    extra: dict[str, Any] = field(default_factory=dict, name=EXTRA)

    def __post_init__(self) -> None:
        # With an offset, a time of the first or last day that a datetime can hold is none in UTC.
        for name in self.__struct_fields__:
            if isinstance(when := getattr(self, name), datetime):
                from_datetime(when)


class Source(Part, kw_only=True):
    """Where a task comes from: an issue tracker and the id there."""

    system: Words
    id: Words
    url: str | None = None


class Task(Part, kw_only=True):
    """What the work is about: a title of 1 to 500 characters, and more."""

    title: Title
    description: str | None = None
    source: Source | None = None


class Agent(Part, kw_only=True):
    """Who took part, as what, since when."""

    name: Words
    role: Words
    joined_at: Instant
    left_at: Instant | None = None


class Alternative(Part, kw_only=True):
    """A way that was not taken, and why."""

    option: Words
    reason: str | None = None


class Decision(Part, kw_only=True):
    """A choice with its reasons."""

    question: Words
    chosen: Words
    alternatives: list[str | Alternative] = field(default_factory=list)
    reasoning: str = ""
    confidence: Confidence | None = None


class Event(Part, kw_only=True):
    """Something that happened: what, who, in which chapter, when it was and when it was recorded.

    `late` marks what was recorded after the trail's end; `origin` says which tool an imported event is from.
    For a decision, `raw` holds the `Decision` as JSON data; `decision` gives it as a type.
    """

    sparse: ClassVar[tuple[str, ...]] = ("tags", "id", "seq", "agent", "late")

    ts: Annotated[int, Meta(gt=0, le=LAST_TS)]
    type: Words
    content: Words
    raw: Any = None
    significance: Significance | None = None
    tags: list[str] = field(default_factory=list)
    confidence: Confidence | None = None
    id: str = ""
    seq: int = 0
    agent: str = ""
    chapter: str | None = None
    occurred_at: Instant | None = None
    recorded_at: Instant | None = None
    late: bool = False
    origin: str | None = None

    @property
    def decision(self) -> Decision | None:
        """The decision that this event reports, where it is one."""
        from .decisions import decision_of

        return decision_of(self)


class Chapter(Part, kw_only=True):
    """A part of the work by one agent; with `parent`, a part of another chapter."""

    id: Words
    title: Words
    agent_name: Words
    started_at: Instant
    ended_at: Instant | None = None
    parent: str | None = None
    events: list[Event] = field(default_factory=list)


class Retrospective(Part, kw_only=True):
    """What came of the work; `confidence` is from 0 to 1."""

    sparse: ClassVar[tuple[str, ...]] = ("decisions", "challenges", "learnings", "suggestions")

    summary: Words
    approach: Words = "Standard approach"
    confidence: Confidence | None = None
    decisions: list[Decision] = field(default_factory=list)
    challenges: list[str] = field(default_factory=list)
    learnings: list[str] = field(default_factory=list)
    suggestions: list[str] = field(default_factory=list)
    time_spent: str | None = None


class Trace(Part, kw_only=True):
    """The commits between which the work was done, and the id of the code attribution made from them."""

    start_ref: Words
    end_ref: str | None = None
    trace_id: str | None = None


class Trail(Part, kw_only=True):
    """The whole record of a piece of work."""

    id: TrailId
    version: Literal[1] = 1
    task: Task
    status: Status
    started_at: Instant
    completed_at: Instant | None = None
    agents: list[Agent] = field(default_factory=list)
    chapters: list[Chapter] = field(default_factory=list)
    retrospective: Retrospective | None = None
    commits: list[str] = field(default_factory=list)
    files_changed: list[str] = field(default_factory=list)
    project_id: str | None = None
    workflow_id: str | None = None
    tags: list[str] = field(default_factory=list)
    trace: Trace | None = field(default=None, name="_trace")
    abandon_reason: str | None = None
    session: str | None = None
    worktree: str | None = None

    @property
    def title(self) -> str:
        """The task's title."""
        return self.task.title

    @property
    def events(self) -> list[Event]:
        """The events of all chapters, in the order in which they were recorded."""
        return sorted((e for chapter in self.chapters for e in chapter.events), key=lambda event: event.seq)

    @property
    def decisions(self) -> list[Decision]:
        """The decisions of all chapters, then those that only the retrospective tells."""
        made = [decision for event in self.events if (decision := event.decision) is not None]
        told = self.retrospective.decisions if self.retrospective is not None else []
        known = {(decision.question, decision.chosen) for decision in made}
        return made + [decision for decision in told if (decision.question, decision.chosen) not in known]


class Summary(msgspec.Struct, kw_only=True, frozen=True):
    """A line of `TrailFolder.list` and `.search`."""

    id: str
    title: str
    status: Status
    started_at: datetime
    completed_at: datetime | None = None
    confidence: float | None = None
    agent: str | None = None
    session: str | None = None
    worktree: str | None = None
    path: str = ""
