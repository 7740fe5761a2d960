"""Storms: many runs at once, made to race, on a real store with real processes; then the proof from their logs.

    report = await stress("hook-sleep", HookSleep(count=20), url="sqlite:///storm.db", workers=2)
    assert report.problems == []

`flows` holds the workflows and their parameters, `storms` what sends them payloads, `report` what their logs
came to; `children` and `serve` are the worker processes. `chaos` kills and pauses processes meanwhile. The
command is `holdfast stress`.
"""

from .flows import HookSleep, HookStorm, StepStorm
from .report import Report
from .storms import stress

__all__ = ["HookSleep", "HookStorm", "Report", "StepStorm", "stress"]
