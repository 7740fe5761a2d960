"""Where traces of OpenTelemetry enter, if somebody asks for them: `active` is None until then.

What a trace looks like: whoever starts a run makes a span *start*, in his own context, and writes that span's
context into `run_created`, as W3C Trace Context has it (`traceparent`, `tracestate`). All else that happens for
the run, in whatever process and on whatever day, is a child of it: a span for each tick, one for each attempt of
a step, and one for the run as a whole, made when it ends, with the times of its log. A child run's *start* is a
child of its parent's. Replay makes no spans: what it does has been done, but for facts that came meanwhile.

A span is ended by the process that began it, or never and then not exported, so no crash leaves one in half.
Rejected: a span for the run that stays open while it lives, with the others below it (a span cannot move to
another process, and runs do); ids of spans made from positions in the log (the API leaves them to the SDK).

Workflow code sees nothing of this: ticks have a span but never make it the current one. Bodies of steps do see
theirs, so that what they call is traced below it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Protocol

Carrier = Mapping[str, str]
"""The context of a run: `traceparent` and perhaps `tracestate`, as W3C Trace Context has them."""
FIELDS = ("traceparent", "tracestate")
"""The fields of `run_created` that hold it."""


class Starting(Protocol):
    """A run that is being started. `carrier` goes into its log; `done` is called if it has become the run's."""

    carrier: Carrier

    def done(self) -> None:
        """The run is there, and this is how it began."""


class Tracing(Protocol):
    """What makes spans. Each method is called on the loop, and raises nothing."""

    def starting(self, workflow: str, run: str, parent: Carrier | None = None) -> Starting:
        """Somebody starts a run: in the context of the caller, or as a child of `parent`."""

    def tick(self, workflow: str, run: str, carrier: Carrier, fact: str, key: str) -> Callable[[], None]:
        """A fact is delivered; call the result when the code has come to rest."""

    def attempt(self, run: str, key: str, number: int, carrier: Carrier) -> Callable[[Any], None]:
        """An attempt of a step begins, in the current context; call the result with the draft it came to."""

    def ended(self, workflow: str, run: str, carrier: Carrier, times: tuple[int, int], end: Any) -> None:
        """A run has ended, with this event or draft; `times` are its beginning and end, in microseconds."""


active: Tracing | None = None
"""Who is told; set by `holdfast.ext.otel.instrument`."""


def carrier_of(run: str, created: Mapping[str, Any]) -> Carrier:
    """The context of a run, from the data of its `run_created`.

    One that was started without has a trace all the same, made from its id: the same in every process.
    """
    found = {name: created[name] for name in FIELDS if isinstance(created.get(name), str)}
    if "traceparent" in found:
        return found
    digest = blake2b(run.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
    return {"traceparent": f"00-{digest[:32]}-{digest[32:]}-01"}
