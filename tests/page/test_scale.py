"""Where an instant stands on the timeline: in order, within the width, and idle time drawn short."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.events import Event, new
from holdfast.server.page.scale import TICKS, Scale
from holdfast.server.page.spans import Spans

MS, HOUR = 1_000, 3_600_000_000


def spans_of(*steps: tuple[int, int], begin: int = 1, end: int | None = None) -> Spans:
    """A run whose steps run from … to …, in microseconds."""
    drafts = [(begin, new("run_created", data={"workflow": "w", "args": {}}))]
    for number, (start, stop) in enumerate(steps, 1):
        key = f"s#{number}"
        drafts += [
            (start, new("step_scheduled", key=key, data={"args": {}})),
            (start, new("step_started", key=key, data={"attempt": 1})),
            (stop, new("step_completed", key=key, data={"attempt": 1, "value": None})),
        ]
    if end is not None:
        drafts.append((end, new("run_completed", data={"value": None, "read": 0})))
    spans = Spans()
    for place, (time, draft) in enumerate(sorted(drafts, key=lambda each: each[0]), 1):
        spans.feed(Event("r", place, draft.type, draft.key, time, draft.body))
    return spans


def test_days_between_milliseconds_are_drawn_short():
    spans = spans_of((1 * MS, 9 * MS), (48 * HOUR, 48 * HOUR + 8 * MS), begin=1 * MS, end=48 * HOUR + 8 * MS)
    scale = Scale(spans, now=0)
    (gap,) = scale.breaks
    assert gap[2] == 48 * HOUR - 9 * MS
    assert 5 < gap[1] - gap[0] < 15  # 1/8 of the work, not all of the width
    first, second = scale.at(9 * MS) - scale.at(1 * MS), 100 - scale.at(48 * HOUR)
    assert abs(first - second) < 0.01  # what lasts as long is as wide
    real = Scale(spans, now=0, skip=False)
    assert real.breaks == []
    assert real.at(9 * MS) < 0.001


def test_many_gaps_leave_room_for_the_work():
    steps = [(hour * HOUR, hour * HOUR + MS) for hour in range(1, 101)]
    scale = Scale(spans_of(*steps, begin=HOUR, end=100 * HOUR + MS), now=0)
    assert len(scale.breaks) == 99
    assert sum(right - left for left, right, _ in scale.breaks) < 40


def test_a_run_that_never_worked_is_to_scale():
    scale = Scale(spans_of(begin=HOUR), now=2 * HOUR)
    assert scale.breaks == []
    assert scale.at(HOUR + HOUR // 2) == 50


def test_a_run_that_waits_grows_at_its_end():
    spans = spans_of((HOUR, HOUR + 8 * MS), begin=HOUR)
    assert Scale(spans, now=HOUR + 8 * MS).at(HOUR + 8 * MS) == 100
    later = Scale(spans, now=2 * HOUR)
    assert 85 < later.at(HOUR + 8 * MS) < 95
    assert later.at(2 * HOUR) == 100


def test_a_run_of_no_length_and_a_clock_behind_it_have_a_place():
    scale = Scale(spans_of(begin=HOUR), now=0)
    assert scale.at(HOUR) == 0
    assert scale.at(HOUR + 1) == 100
    assert len(scale.ticks()) == TICKS


times = st.lists(st.tuples(st.integers(1, 10**15), st.integers(0, 10**12)), max_size=6).map(
    lambda all_: [(start, start + length) for start, length in all_]
)


@given(times, st.booleans(), st.booleans(), st.lists(st.integers(-1, 2 * 10**15), max_size=8))
def test_instants_stand_in_order_within_the_width_and_are_found_again(steps, skip, ended, instants):
    last = max((stop for _, stop in steps), default=0)
    spans = spans_of(*steps, end=last if ended else None)
    scale = Scale(spans, now=last + 5, skip=skip)
    places = [scale.at(time) for time in sorted([*instants, *(time for step in steps for time in step)])]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    assert (scale.at(scale.first), scale.at(scale.last)) == (0, 100)
    ticks = scale.ticks()
    assert [time for _, time in ticks] == sorted(time for _, time in ticks)
    assert (ticks[0][1], ticks[-1][1]) == (0, scale.last - scale.first)
    for place, time in ticks:  # instants are whole microseconds
        assert scale.at(scale.first + time - 1) <= place <= scale.at(scale.first + time + 1)
