"""Records as the npm tool and its users write them, for hypothesis: any that its schema takes, and more keys."""

from datetime import UTC, datetime

from hypothesis import strategies as st

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
stamps = st.builds(
    lambda micros, style: (
        datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec=style[0]).replace("+00:00", style[1])
    ),
    st.integers(1_600_000_000_000_000, 1_600_000_000_900_000),  # close together, so that many are the same
    st.sampled_from([("milliseconds", "Z"), ("microseconds", "Z"), ("seconds", "+00:00")]),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
# Keys that nobody knows, and some that our entries use for something else.
unknown = st.dictionaries(
    st.sampled_from(
        ["x", "extra", "reason", "origin2", "cause", "undated", "again", "trail", "type2", " extra"]
    ),
    values,
    max_size=2,
)
fraction = st.sampled_from([0, 0.25, 1, 1.0])


@st.composite
def objects(draw, needed, optional):
    """An object with these keys, some of those, and unknown ones."""
    data = {key: draw(value) for key, value in needed.items()}
    for key, value in optional.items():
        if draw(st.booleans()):
            data[key] = draw(value)
    return {key: value for key, value in draw(unknown).items() if key not in optional} | data


sources = objects({"system": words, "id": words}, {"url": st.just("https://x.example/1") | words})
tasks = objects({"title": words}, {"description": st.text(max_size=3), "source": sources})
agents = objects(
    {
        "name": st.sampled_from("ab"),
        "role": st.sampled_from(["lead", "workflow-runner", "zzz"]),
        "joinedAt": stamps,
    },
    {"leftAt": stamps},
)
alternatives = st.lists(
    st.text(max_size=3) | objects({"option": words}, {"reason": st.text(max_size=3)}), max_size=2
)
decisions = objects(
    {"question": words, "chosen": words, "alternatives": alternatives, "reasoning": st.text(max_size=3)},
    {"confidence": fraction},
)
events = objects(
    {
        "ts": st.integers(1_600_000_000_000, 1_600_000_000_005) | st.just(1),
        "type": st.sampled_from(
            ["note", "finding", "zzz", "review-completed", "trail_completed", "chapter_opened"]
        ),
        "content": st.sampled_from(["a", "b"]),
    },
    {
        "raw": values,
        "significance": st.sampled_from(["low", "medium", "high", "critical"]),
        "tags": st.lists(words, max_size=2),
        "confidence": fraction,
        "origin": st.just("elsewhere"),
    },
) | objects(
    {"ts": st.just(1_600_000_000_001), "type": st.just("decision"), "content": st.just("q: c")},
    {"raw": decisions | st.none() | words},
)
chapters = st.lists(
    objects(
        {
            "id": st.sampled_from(["chap_rmzar2l6k7ue", "ch_0123abcd", "3", "Ä b"]),
            "title": words,
            "agentName": st.sampled_from("abc"),
            "startedAt": stamps,
            "events": st.lists(events, max_size=4),
        },
        {"endedAt": stamps},
    ),
    max_size=3,
    unique_by=lambda chapter: chapter["id"],
)
retrospectives = objects(
    {"summary": words, "approach": words},
    {
        "confidence": fraction,
        "decisions": st.lists(decisions, max_size=2),
        "challenges": st.lists(words, max_size=2),
        "learnings": st.lists(words, max_size=2),
        "suggestions": st.lists(words, max_size=2),
        "timeSpent": st.text(max_size=3),
    },
)
traces = objects({"startRef": words}, {"endRef": st.text(max_size=3), "traceId": st.text(max_size=3)})
records = objects(
    {
        "id": st.sampled_from(["traj_ll9wfmjyttfd", "traj_1775832005024_c2cf5052"]),
        "version": st.just(1),
        "task": tasks,
        "status": st.sampled_from(["active", "completed", "abandoned"]),
        "startedAt": stamps,
        "agents": st.lists(agents, max_size=3),
        "chapters": chapters,
    },
    {
        "completedAt": stamps,
        "retrospective": retrospectives,
        "commits": st.lists(words, max_size=2),
        "filesChanged": st.lists(words, max_size=2),
        "projectId": st.text(max_size=3),
        "workflowId": words,
        "tags": st.lists(words, max_size=2),
        "_trace": traces,
        "abandonReason": words,
    },
)
