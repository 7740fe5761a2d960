"""Events: what a run's log is made of (`event`), what notes hold (`notes`), and what a log means (`fold`)."""

from .event import (
    ASKED,
    ENDS,
    RECORDS,
    TYPES,
    Class,
    Draft,
    Event,
    dump_json,
    load_json,
    name_of,
    new,
    numbered,
    reader,
    token_of,
)
from .fold import ChildState, HookState, RunState, StepState, TimerState, fold
from .notes import Noted, check_noted

__all__ = [
    "ASKED",
    "ENDS",
    "RECORDS",
    "TYPES",
    "ChildState",
    "Class",
    "Draft",
    "Event",
    "HookState",
    "Noted",
    "RunState",
    "StepState",
    "TimerState",
    "check_noted",
    "dump_json",
    "fold",
    "load_json",
    "name_of",
    "new",
    "numbered",
    "reader",
    "token_of",
]
