"""Every error that Holdfast raises, in one tree.

    HoldfastError
    ├── FatalError            raised by a step: do not retry
    ├── RetryAfter            raised by a step: retry, not before `delay`
    ├── TooManyEvents         a run's log would grow beyond `event_limit`
    ├── Runaway               a tick of a workflow's code did not come back
    ├── StepLost              a step used up its attempts because its workers died
    ├── RunFailed             the run ended with an error (the original is `__cause__`)
    ├── RunCancelled          the run was cancelled or terminated
    ├── RunNotFound           no run has this id
    ├── RunExists             a run has this id and another input
    ├── RunEnded              the run has ended and takes no more of this
    ├── RunContinued          the run goes on under another id, which is not there yet
    ├── StreamEnded           the stream has its end mark and takes no more chunks
    ├── HookNotFound          no open hook has this token (`.reason` says why)
    ├── HookTaken             another run holds the token (`.owner`)
    ├── DeliveryConflict      one delivery id, two different payloads
    ├── ReplayDivergence      the code asks for something else than the log holds
    ├── NotDeterministic      workflow code did what a replay could not repeat
    ├── PayloadError          a value does not fit its type, the size limit or JSON
    ├── DefinitionError       a workflow or step is not defined as it must be
    ├── TrailError            a trail could not be read or written
    │   ├── TrailNotFound     no trail has this id
    │   ├── TrailEnded        the trail is completed or abandoned
    │   ├── TrailIdError      this is no id of a trail
    │   ├── TrailLocked       another process holds the folder's lock for too long
    │   └── TrailBroken       a file of the folder is malformed (`.path` says which)
    └── StoreError            the store could not do its work
        ├── StaleLog          an append rested on an old view of the log
        ├── AccessDenied      a server wants a token, or this one does not allow it
        ├── FenceMissing      a command was appended without `after`
        ├── InvalidAppend     an append that no state of the log could make right
        ├── CommandMissing    a fact reports on a command that the log does not hold
        ├── StepEnded         an attempt of a step that has its outcome, or a later attempt
        ├── TooEarly          an attempt before its back-off is over
        ├── LeaseLost         a worker that others have declared dead
        ├── KeyMissing        a sealed payload, and no key that opens it
        ├── SchemaUnknown     the store was written by a newer Holdfast
        └── StoreBroken       the file is no store, or it is corrupt

Programs match on the class or on `.code`, a stable string; never on the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from .events import Event


class HoldfastError(Exception):
    """The root: `except hf.HoldfastError` catches all that Holdfast raises on purpose."""

    code: ClassVar[str] = "holdfast"


class FatalError(HoldfastError):
    """Raise it in a step to say that a retry cannot help.

    Example:
        raise hf.FatalError("card 4242 was reported stolen")
    """

    code = "fatal"


class RetryAfter(HoldfastError):
    """Raise it in a step to be tried again after `delay` seconds (or a timedelta).

    Example:
        raise hf.RetryAfter(30, "rate limited")
    """

    code = "retry_after"

    def __init__(self, delay: Any, message: str = "") -> None:
        self.delay = float(delay.total_seconds() if hasattr(delay, "total_seconds") else delay)
        super().__init__(message or f"try again in {self.delay:g} s")


class StepLost(HoldfastError):
    """The last attempt was started by a worker that died; whether its effect happened is unknown."""

    code = "step_lost"


class TooManyEvents(HoldfastError):
    """The run's log would grow beyond the limit of the worker (`event_limit`, 100,000)."""

    code = "too_many_events"


class Runaway(HoldfastError):
    """A tick of a workflow's code did not come back, or killed its process; says in which file and line."""

    code = "runaway"


class RunFailed(HoldfastError):
    """The run ended with an error: `__cause__` is the original exception where it can be rebuilt."""

    code = "run_failed"

    def __init__(self, message: str, *, run_id: str = "", type: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id
        self.type = type


class RunCancelled(HoldfastError):
    """The run was cancelled or terminated: `.reason` is what the caller gave."""

    code = "run_cancelled"

    def __init__(self, message: str, *, run_id: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id
        self.reason = reason


class RunNotFound(HoldfastError):
    """No run with this id is in the store."""

    code = "run_not_found"


class RunExists(HoldfastError):
    """A run with this id exists already, of another workflow or with another input."""

    code = "run_exists"


class RunEnded(HoldfastError):
    """The run has ended; `.recorded` holds the positions of the facts that were kept all the same."""

    code = "run_ended"

    def __init__(self, message: str, *, recorded: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.recorded = list(recorded)


class RunContinued(HoldfastError):
    """The run that held the hook goes on under another id, and that run is not there yet; `.run` is the old."""

    code = "run_continued"

    def __init__(self, message: str, *, run: str = "") -> None:
        super().__init__(message)
        self.run = run


class StreamEnded(HoldfastError):
    """The stream was ended: write before its end, or to another stream."""

    code = "stream_ended"


class HookNotFound(HoldfastError):
    """No open hook has this token; `.reason` is 'unknown', 'closed' or 'run_ended'."""

    code = "hook_not_found"

    def __init__(
        self, message: str, *, reason: Literal["unknown", "closed", "run_ended"] = "unknown"
    ) -> None:
        super().__init__(message)
        self.reason = reason


class HookTaken(HoldfastError):
    """Another run holds the token; `.owner` is its id."""

    code = "hook_taken"

    def __init__(self, message: str, *, owner: str = "") -> None:
        super().__init__(message)
        self.owner = owner


class DeliveryConflict(HoldfastError):
    """This delivery id was used before with another payload."""

    code = "delivery_conflict"


class ReplayDivergence(HoldfastError):
    """The code asks for something else than the log holds, so the run is parked, not failed.

    `position` is where in the log, `expected` what it holds there, `asked` what the code asked for,
    `where` the file and line that asked ('' where nothing was asked).
    """

    code = "replay_divergence"

    def __init__(
        self, message: str, *, position: int = 0, expected: str = "", asked: str = "", where: str = ""
    ) -> None:
        super().__init__(message)
        self.position = position
        self.expected = expected
        self.asked = asked
        self.where = where


class NotDeterministic(HoldfastError):
    """Workflow code called something that a replay would answer differently; the message has the remedy."""

    code = "not_deterministic"


class PayloadError(HoldfastError):
    """A value does not fit: the message says what was expected, what came, and at which path."""

    code = "payload"


class DefinitionError(HoldfastError):
    """A workflow or step is defined in a way that cannot work; the message says how to mend it."""

    code = "definition"


class StoreError(HoldfastError):
    """The store could not do what it was asked (disk full, read-only, locked, unreachable …)."""

    code = "store"


class StaleLog(StoreError):
    """An append rested on an old view of the log: its commands were refused, nothing of them is stored.

    `missed` are the events beyond `after`, `recorded` the positions of the facts of the append that were
    stored all the same (a *partial* answer), `position` is the run's last position.
    """

    code = "stale_log"

    def __init__(
        self,
        message: str,
        *,
        missed: Sequence[Event] = (),
        recorded: Sequence[int] = (),
        position: int = 0,
    ) -> None:
        super().__init__(message)
        self.missed = list(missed)
        self.recorded = list(recorded)
        self.position = position


class FenceMissing(StoreError):
    """A command append came without `after`: a programming error."""

    code = "fence_missing"


class InvalidAppend(StoreError):
    """No second try makes it right: it is empty, its `after` lies beyond the log, or its data cannot be read."""

    code = "invalid_append"


class AccessDenied(StoreError):
    """A server wants a token, or the token that it got does not allow this."""

    code = "access_denied"


class CommandMissing(StoreError):
    """A fact or record reports on a command that is not in the log."""

    code = "command_missing"


class StepEnded(StoreError):
    """An attempt cannot start, or write to a stream: the step has its outcome, or a later attempt."""

    code = "step_ended"


class TooEarly(StoreError):
    """An attempt cannot start yet: the back-off of the last one is not over."""

    code = "too_early"


class LeaseLost(StoreError):
    """The worker was declared dead while it could not say that it lives: its runs are others' now."""

    code = "lease_lost"


class KeyMissing(StoreError):
    """A payload is sealed and no key at hand opens it, or a key file cannot be used."""

    code = "key_missing"


class SchemaUnknown(StoreError):
    """The store has a schema that this version of Holdfast does not know."""

    code = "schema_unknown"


class StoreBroken(StoreError):
    """The file is not a Holdfast store, or it is corrupt."""

    code = "store_broken"


class TrailError(HoldfastError):
    """A trail could not be read or written (disk full, read-only folder …); nothing half-done is kept."""

    code = "trail"


class TrailNotFound(TrailError):
    """No trail in the folder has this id."""

    code = "trail_not_found"


class TrailEnded(TrailError):
    """The trail is completed or abandoned; its end stands."""

    code = "trail_ended"


class TrailIdError(TrailError):
    """Text that is no id of a trail: expected `traj_` and letters a-z, digits and underscores."""

    code = "trail_id"


class TrailLocked(TrailError):
    """Another process held a lock of the folder for longer than the time-out; the message names it."""

    code = "trail_locked"


class TrailBroken(TrailError):
    """A file is malformed: `.path` is which, relative to its folder."""

    code = "trail_broken"

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path
