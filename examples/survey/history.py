"""The first agent reads the past: which files change most, who changes them, and when."""

import subprocess
from collections import Counter
from datetime import datetime
from itertools import combinations
from pathlib import Path

from .files import git
from .findings import Finding, History

MOST = 1000
"""Commits that are read, the newest first."""
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def read(folder: str) -> History:
    """What `git log` tells about the folder; a folder without a history is a finding, not an error."""
    root = Path(folder)
    try:
        out = git(
            root, "log", "--no-merges", f"-{MOST}", "--format=%x1e%an%x1f%aI", "--name-only",
            "--relative", "--no-renames", "--", ".",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return History(findings=[Finding(f"There is no history to read ({_why(error)}).")])
    commits = [_commit(record) for record in out.split("\x1e")[1:]]
    if not commits:
        return History(findings=[Finding("There is no commit yet that touches this folder.")])
    return _summary(root, commits)


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        text = str(error.stderr).strip().splitlines()
        return text[0].removeprefix("fatal: ") if text else "git refused"
    return "git did not answer in time" if isinstance(error, subprocess.SubprocessError) else "git is missing"


def _commit(record: str) -> tuple[str, datetime, list[str]]:
    head, *files = record.strip().splitlines()
    author, _, when = head.partition("\x1f")
    return author, datetime.fromisoformat(when), [file for file in files if file]


def _summary(root: Path, commits: list[tuple[str, datetime, list[str]]]) -> History:
    authors = Counter(author for author, _, _ in commits)
    changes = Counter(file for _, _, files in commits for file in files if (root / file).exists())
    times = sorted(when for _, when, _ in commits)
    weekdays = Counter(when.weekday() for when in times)
    return History(
        commits=len(commits),
        authors=dict(authors.most_common(10)),
        changes=dict(changes.most_common(40)),
        weekdays=[weekdays[day] for day in range(7)],
        first=f"{times[0]:%Y-%m-%d}",
        last=f"{times[-1]:%Y-%m-%d}",
        findings=[
            *_hot(changes, len(commits)),
            *_people(authors, len(commits)),
            *_rhythm(times, weekdays),
            *_pairs(root, commits),
        ],
    )


def _hot(changes: Counter[str], commits: int) -> list[Finding]:
    hot = [(file, count) for file, count in changes.most_common(3) if count > 1]
    if not hot:
        return []
    names = ", ".join(f"{file} ({count} of {commits})" for file, count in hot)
    return [Finding(f"Changed most often: {names}.", [file for file, _ in hot])]


def _people(authors: Counter[str], commits: int) -> list[Finding]:
    (name, count), *_ = authors.most_common(1)
    if len(authors) == 1:
        return [Finding(f"One person made all commits ({commits}): {name}.")]
    share = round(100 * count / commits)
    return [Finding(f"{len(authors)} people made {commits} commits, {share} % of them by {name}.")]


def _rhythm(times: list[datetime], weekdays: Counter[int]) -> list[Finding]:
    if len(times) < 5:
        return []
    late = sum(when.hour >= 20 or when.hour < 6 for when in times)
    busiest = DAYS[weekdays.most_common(1)[0][0]]
    share = round(100 * late / len(times))
    span = (times[-1] - times[0]).days + 1
    return [Finding(f"{span} days of work, most of it on {busiest}; {share} % of the commits come at night.")]


def _pairs(root: Path, commits: list[tuple[str, datetime, list[str]]]) -> list[Finding]:
    pairs: Counter[tuple[str, str]] = Counter()
    for _, _, files in commits:
        if len(files) <= 20:  # a sweeping change says nothing about what belongs together
            pairs.update(combinations(sorted(files), 2))
    for (one, other), count in pairs.most_common(20):
        if count >= 3 and (root / one).exists() and (root / other).exists():
            return [Finding(f"{one} and {other} changed together {count} times.", [one, other])]
    return []
