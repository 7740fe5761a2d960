"""When a schedule is due: against a scan of every minute of two years, and through changes of the clock."""

import functools
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

import holdfast as hf
from holdfast.clock import from_datetime, to_datetime
from holdfast.errors import DefinitionError
from holdfast.schedules import ON_TIME, Schedule
from holdfast.workflow import workflows

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = 60_000_000
BEGIN = from_datetime(datetime(2026, 1, 1, tzinfo=UTC))
MINUTES = 2 * 365 * 24 * 60
NIGHTS = [n for n in range(MINUTES) if n // 60 % 24 in (22, 23, 0, 1, 2, 3, 4, 5)]
"""The minutes of two years that are about the hours, from midnight to six in Berlin, in which clocks change."""


@functools.cache
def wall() -> dict[int, datetime]:
    """What the clock in Berlin shows at each of those minutes."""
    return {n: to_datetime(BEGIN + n * MINUTE).astimezone(BERLIN).replace(tzinfo=None) for n in NIGHTS}


@functools.cache
def early() -> list[tuple[int, datetime, tuple[int, int, int, int, int]]]:
    """The minutes before six."""
    return [
        (n, w, (w.minute, w.hour, w.day, w.month, w.isoweekday() % 7))
        for n, w in wall().items()
        if w.hour < 6
    ]


@functools.cache
def jumps() -> dict[int, timedelta]:
    """The minutes that do not show one more than the minute before, and how much more they show."""
    steps = {n: w - wall()[n - 1] for n, w in wall().items() if n - 1 in wall()}
    return {n: step for n, step in steps.items() if step != timedelta(minutes=1)}


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold))


def shown(dues, zone: ZoneInfo = BERLIN) -> list[str]:
    return [to_datetime(due).astimezone(zone).strftime("%d %H:%M:%S %z") for due in dues]


def between(schedule: Schedule, since: int, until: int) -> list[int]:
    found = []
    for due in schedule.after(since):
        if due > until:
            break
        found.append(due)
    return found


def numbers(field: str, lowest: int, highest: int) -> set[int]:
    """What a field of a cron expression means, read once more, in the plainest way."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        low = lowest if span == "*" else int(first)
        high = highest if span == "*" else int(last or first)
        found |= set(range(low, high + 1, int(step or 1)))
    return found


def scanned(cron: str) -> list[int]:
    """The due times of two years in Berlin, in the early hours, by looking at each minute."""
    fields = cron.split()
    minutes, hours = numbers(fields[0], 0, 59), numbers(fields[1], 0, 23)
    days, months = numbers(fields[2], 1, 31), numbers(fields[3], 1, 12)
    weekdays = {number % 7 for number in numbers(fields[4], 0, 7)}
    both = fields[2].startswith("*") or fields[4].startswith("*")
    of_the_hour = fields[0].startswith("*") or fields[1].startswith("*")

    def matches(minute: int, hour: int, day: int, month: int, weekday: int) -> bool:
        if minute not in minutes or hour not in hours or month not in months:
            return False
        return (day in days and weekday in weekdays) if both else (day in days or weekday in weekdays)

    def jumped_over(number: int) -> bool:
        skipped = [
            wall()[number - 1] + timedelta(minutes=m)
            for m in range(1, jumps()[number] // timedelta(minutes=1))
        ]
        return any(matches(w.minute, w.hour, w.day, w.month, w.isoweekday() % 7) for w in skipped)

    found, shown_before = [], set[datetime]()
    for number, clock, parts in early():
        due = matches(*parts)
        if not of_the_hour:
            due = (due and clock not in shown_before) or (number in jumps() and jumped_over(number))
        if due:
            found.append(BEGIN + number * MINUTE)
            shown_before.add(clock)
    return found


def some_field(chance: random.Random, lowest: int, highest: int) -> str:
    def span() -> str:
        return "{}-{}".format(*sorted(chance.sample(range(lowest, highest + 1), 2)))

    parts = [str(chance.randint(lowest, highest)), span(), f"{span()}/{chance.randint(1, 5)}"]
    several = ",".join(chance.sample(parts, chance.randint(1, 3)))
    return chance.choice(["*", f"*/{chance.randint(2, 20)}", several, several])


def some_cron(number: int) -> str:
    """Any expression that is due in the hours in which clocks change, though not each minute of them."""
    chance = random.Random(number)
    fields = ((0, 59), (0, 5), (1, 31), (0, 7))
    minute, hour, day, weekday = (some_field(chance, *bounds) for bounds in fields)
    return f"{minute if minute != '*' else '7'} {hour if hour[0] != '*' else '1-3'} {day} * {weekday}"


CRONS = ["30 2 * * *", "0,59 1-3 * * *", "*/20 2 * * *", "59 0-5 29 * *", "7 5 1-7 * 1"]


@pytest.mark.parametrize("cron", CRONS + [some_cron(number) for number in range(12)])
def test_due_times_are_those_of_a_scan_of_every_minute_of_two_years(cron):
    schedule = Schedule(cron, "Europe/Berlin")
    expected = scanned(cron)
    until = BEGIN + (MINUTES - 1) * MINUTE
    assert between(schedule, BEGIN - 1, until) == expected
    for n in range(0, len(expected) - 1, max(1, len(expected) // 20)):  # wherever one begins to count
        since = (expected[n] + expected[n + 1]) // 2
        assert schedule.next(expected[n]) == schedule.next(since) == expected[n + 1]
        assert schedule.last(BEGIN - 1, since) == schedule.last(expected[n] - 1, since) == expected[n]


@pytest.mark.parametrize(
    ("cron", "spring", "autumn"),
    [
        ("30 2 * * *", ["29 03:00:00 +0200"], ["25 02:30:00 +0200"]),
        ("0 30 2 * * *", ["29 03:00:00 +0200"], ["25 02:30:00 +0200"]),
        ("0,30 2 * * *", ["29 03:00:00 +0200"], ["25 02:00:00 +0200", "25 02:30:00 +0200"]),
        ("0 2,3 * * *", ["29 03:00:00 +0200"], ["25 02:00:00 +0200", "25 03:00:00 +0100"]),
        ("*/40 2 * * *", [], [f"25 02:{m}:00 +0{h}00" for h in (2, 1) for m in ("00", "40")]),
    ],
)
def test_through_both_changes_of_the_clock_in_berlin(cron, spring, autumn):
    """A time that the clock jumps over is due right after the jump; one that comes twice is due once."""
    schedule = Schedule(cron, "Europe/Berlin")
    assert shown(between(schedule, at("2026-03-28T12:00"), at("2026-03-29T12:00"))) == spring
    assert shown(between(schedule, at("2026-10-24T12:00"), at("2026-10-25T12:00"))) == autumn


def test_from_inside_the_hour_that_comes_twice_nothing_is_due_again():
    schedule = Schedule("30 2 * * *", "Europe/Berlin")
    for text, fold in (("2026-10-25T02:45", 0), ("2026-10-25T02:15", 1), ("2026-10-25T02:45", 1)):
        assert shown([schedule.next(at(text, fold=fold))]) == ["26 02:30:00 +0100"]


def test_the_same_hour_is_another_instant_in_winter():
    schedule = Schedule("0 9 * * *", "Europe/Berlin")
    dues = between(schedule, at("2026-03-27T12:00"), at("2026-03-30T12:00"))
    assert [to_datetime(due).hour for due in dues] == [8, 7, 7]


def test_what_is_owed():
    """Due times of the last minute are on time; of those before, what `missed` says."""
    now = at("2026-05-01T09:00:30")
    since = now - 3 * 24 * 60 * MINUTE
    hourly = "0 * * * *"
    last = at("2026-05-01T09:00")
    assert Schedule(hourly, "Europe/Berlin", "none").owed(since, now, 100) == ([last], last)
    assert Schedule(hourly, "Europe/Berlin", "latest").owed(since, now, 100) == ([last], last)
    late = now + 10 * MINUTE
    assert Schedule(hourly, "Europe/Berlin", "none").owed(since, late, 100) == ([], last)
    assert Schedule(hourly, "Europe/Berlin", "latest").owed(since, late, 100) == ([last], last)
    dues, upto = Schedule(hourly, "Europe/Berlin", "all").owed(since, late, 100)
    assert (len(dues), dues[-1], upto) == (72, last, last)
    dues, upto = Schedule(hourly, "Europe/Berlin", "all").owed(since, late, 10)
    assert (len(dues), upto) == (10, dues[-1])
    assert Schedule(hourly).owed(last, late, 100) == ([], None)


def test_the_bound_of_what_is_on_time():
    schedule, due = Schedule("0 9 * * *", missed="none"), at("2026-05-01T09:00", ZoneInfo("UTC"))
    assert schedule.owed(due - 1, due + ON_TIME, 9) == ([due], due)
    assert schedule.owed(due - 1, due + ON_TIME + 1, 9) == ([], due)


def test_the_latest_of_years_of_seconds_is_found_at_once():
    schedule = Schedule("* * * * * *", missed="latest")
    now = at("2026-05-01T09:00")
    assert schedule.last(now - 10 * 365 * 24 * 60 * MINUTE, now) == now
    rare = Schedule("0 0 29 2 *", missed="latest")
    assert to_datetime(rare.last(0, now) or 0).date().isoformat() == "2024-02-29"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "61 * * * *"}, "expected a cron expression such as '0 9 * * *', got '61 * * * *'"),
        ({"schedule": "daily"}, "5 or 6 fields"),
        ({"schedule": 9}, "5 or 6 fields"),
        ({"schedule": "* * * * 1L/2"}, "expected a cron expression"),
        ({"schedule": "0 0 30 2 *"}, "expected a cron expression"),
        ({"schedule": "0 0 */20 2 1L"}, "never due"),
        ({"schedule": "0 9 * * *", "timezone": "Europe/Nowhere"}, "expected a time zone"),
        ({"schedule": "0 9 * * *", "timezone": "../../etc/passwd"}, "expected a time zone"),
        ({"schedule": "0 9 * * *", "timezone": None}, "expected a time zone"),
        ({"schedule": "0 9 * * *", "missed": "some"}, "missed to be one of latest, all, none"),
    ],
)
def test_what_is_no_schedule_is_refused_where_it_is_written(options, message):
    with pytest.raises(DefinitionError, match=r"workflow test\.never: ") as caught:

        @hf.workflow(name="test.never", **options)
        async def never() -> None: ...

    assert message in str(caught.value)


def test_a_workflow_that_needs_arguments_has_no_schedule():
    with pytest.raises(DefinitionError, match=r"missing a required argument: 'who'.*run_info\(\)\.due"):

        @hf.workflow(name="test.needy", schedule="0 9 * * *")
        async def needy(who: str, how: "Later" = None) -> None: ...  # noqa: F821


def test_the_types_of_a_scheduled_workflow_may_come_later_in_the_file():
    @hf.workflow(name="test.later", schedule="0 9 * * *")
    async def later(how: "Later | None" = None) -> None: ...  # noqa: F821

    del workflows._known["test.later"]  # or each worker of this process would follow it
