"""Hypothesis strategies for whole trails, with text that tries to break whatever shows or stores it.

    @given(trails())
    def test_a_law(trail: Trail) -> None: ...

Every trail is one that a record can hold: `from_record(parse(dump(to_record(trail)))) == trail`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from holdfast.trail.model import (
    EVENT_TYPES,
    LAST_TS,
    SIGNIFICANCES,
    Agent,
    Alternative,
    Chapter,
    Decision,
    Event,
    Retrospective,
    Source,
    Task,
    Trace,
    Trail,
)

HOSTILE = (
    *(
        "# heading",
        "\n## heading\n",
        "#",
        " #",
        "===",
        "\n===\n",
        "---",
        "\n---\n",
        "- item",
        "1. item",
        "> q",
    ),
    *(
        "```",
        "\n```\n",
        "~~~",
        "`",
        "`code`",
        "``",
        "*",
        "**bold**",
        "_",
        "__init__",
        "~",
        "\\",
        "\\\n",
        "  \n",
    ),
    *("|", "a|b\n-|-\n", "[x](javascript:alert(1))", "![x](http://a.b/c)", "[^1]: x", "<https://a.b>", "$x$"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</style>", "</title>", "</details>"),
    *("<!--", "-->", "]]>", "&lt;", "&", "&#x3c;", '"', "'", '" onclick="x', "<", ">", "{{x}}", "%s", "{0}"),
    *(
        "\x00",
        "\x1b[2J",
        "\x1b]0;x\x07",
        "\x7f",
        "\x9b1m",
        "\r",
        "\r\n",
        "\n",
        "\t",
        "\x0b",
        "\x85",
        "\u2028",
    ),
    *("\u202e", "\u2066", "\ud800", "\udfff", "\ufeff", "\u200b", "\uffff", "e\u0301", "🧭"),
    *(
        "שלום",
        "مرحبا",
        "日本",
        "    indented",
        "word",
        "snake_case",
        " ",
        "question: chosen",
        "a → b: c",
        "../x",
    ),
)
"""Pieces that mean something to Markdown, HTML, terminals, UTF-8 or JSON."""


def joined(pieces: list[str]) -> str:
    """The pieces as one text. Two halves of a surrogate pair that meet are one letter, as JSON has it."""
    return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


letters = st.characters()  # lone surrogates too
texts = st.lists(st.sampled_from(HOSTILE) | st.text(letters, max_size=6), max_size=5).map(joined)
"""Any text."""
words = texts.filter(bool)
"""Text that is not empty."""
titles = words.map(lambda text: text[:500])
names = st.sampled_from(["ana", "ben", "carl", "<b>dora</b>", "e|f", "\x1b[1mg"]) | words
confidences = st.none() | st.floats(0, 1)
instants = st.datetimes(datetime(1970, 1, 2), datetime(2199, 1, 1), timezones=st.just(UTC))
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
extras = st.just({}) | st.dictionaries(
    st.sampled_from(["x-later", "x <b>", "x\ud800"]), json_values, max_size=2
)
"""Keys of a record that nobody knows."""


@st.composite
def alternatives(draw: st.DrawFn) -> str | Alternative:
    if draw(st.booleans()):
        return draw(texts)
    return Alternative(option=draw(words), reason=draw(st.none() | texts), extra=draw(extras))


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    question = draw(words)
    return Decision(
        question=question,
        chosen=draw(st.just(question) | words),
        alternatives=draw(st.lists(alternatives(), max_size=2)),
        reasoning=draw(texts),
        confidence=draw(confidences),
    )


@st.composite
def events(draw: st.DrawFn, seq: int, chapter: str, start: datetime) -> Event:
    """An event as a journal tells it, or as a foreign record does: without id, agent and times of its own."""
    type = draw(st.sampled_from(EVENT_TYPES) | st.sampled_from(["decision", "note", "zzz"]) | words)
    when = start + timedelta(milliseconds=draw(st.integers(0, 10**8)))
    content, raw = draw(words), draw(st.none() | json_values)
    if type == "decision" and draw(st.booleans()):
        made = draw(decisions())
        content, raw = f"{made.question}: {made.chosen}", {"question": made.question, "chosen": made.chosen}
    event = Event(
        ts=max(1, int(when.timestamp() * 1000)) if draw(st.booleans()) else draw(st.integers(1, LAST_TS)),
        type=type,
        content=content,
        raw=raw,
        significance=draw(st.none() | st.sampled_from(SIGNIFICANCES)),
        tags=draw(st.lists(texts, max_size=2)),
        confidence=draw(confidences),
        extra=draw(extras),
    )
    if draw(st.booleans()):
        event.id, event.seq, event.agent, event.chapter = f"evt_{seq}", seq, draw(names), chapter
        event.occurred_at = when
        event.recorded_at = when + timedelta(microseconds=draw(st.integers(0, 10**9)))
        event.late = draw(st.booleans())
        event.origin = draw(st.none() | st.just("npm") | words)
    return event


@st.composite
def chapter_lists(draw: st.DrawFn, start: datetime) -> list[Chapter]:
    """Chapters in a tree; a parent may also be missing, a child of its own, or one of a circle."""
    ids = [f"chap_{place}" for place in range(draw(st.integers(0, 5)))]
    chapters, seq = [], 0
    for id in ids:
        began = start + timedelta(seconds=draw(st.integers(0, 90_000)))
        took = draw(st.none() | st.integers(0, 90_000))
        told = []
        for _ in range(draw(st.integers(0, 3))):
            seq += 1
            told.append(draw(events(seq, id, began)))
        chapters.append(
            Chapter(
                id=id,
                title=draw(words),
                agent_name=draw(names),
                started_at=began,
                ended_at=None if took is None else began + timedelta(seconds=took),
                parent=draw(st.none() | st.sampled_from([*ids, "chap_missing"])),
                events=told,
                extra=draw(extras),
            )
        )
    return chapters


@st.composite
def retrospectives(draw: st.DrawFn) -> Retrospective:
    return Retrospective(
        summary=draw(words),
        approach=draw(st.just("Standard approach") | words),
        confidence=draw(confidences),
        decisions=draw(st.lists(decisions(), max_size=2)),
        challenges=draw(st.lists(texts, max_size=2)),
        learnings=draw(st.lists(texts, max_size=2)),
        suggestions=draw(st.lists(texts, max_size=2)),
        time_spent=draw(st.none() | texts),
        extra=draw(extras),
    )


@st.composite
def trails(draw: st.DrawFn) -> Trail:
    """Any trail that a record can hold."""
    start = draw(instants)
    status = draw(st.sampled_from(["active", "completed", "abandoned"]))
    url = (
        st.none()
        | st.sampled_from(["https://x.y/1?a=1&copy=2", "javascript:alert(1)", "http://x.y/)>\"'"])
        | texts
    )
    source = st.builds(Source, system=words, id=words, url=url)
    return Trail(
        id="traj_" + draw(st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=20)),
        task=Task(title=draw(titles), description=draw(st.none() | texts), source=draw(st.none() | source)),
        status=status,
        started_at=start,
        completed_at=None if status == "active" else start + timedelta(seconds=draw(st.integers(0, 10**6))),
        agents=[
            Agent(name=name, role=draw(words), joined_at=start)
            for name in draw(st.lists(names, max_size=3, unique=True))
        ],
        chapters=draw(chapter_lists(start)),
        retrospective=draw(st.none() | retrospectives()),
        commits=draw(st.lists(texts, max_size=2)),
        files_changed=draw(st.lists(texts, max_size=2)),
        project_id=draw(st.none() | texts),
        workflow_id=draw(st.none() | texts),
        tags=draw(st.lists(texts, max_size=2)),
        trace=draw(st.none() | st.builds(Trace, start_ref=words, end_ref=st.none() | texts)),
        abandon_reason=draw(texts) if status == "abandoned" else None,
        extra=draw(extras),
    )
