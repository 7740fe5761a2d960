"""The page: what people see in a browser. Made on the server, whole without a script, live with one.

shell      templates, headers, static files, and what a form must bring
runs       the list of runs, live; `chosen` says which; many cancelled at once
run        one run: head, timeline, events, data, trail; live
log        a run's log as the page needs it;  spans: its timeline;  scale: where an instant stands
streams    what a run publishes, to be read while it works
actions    what a person may ask of a run;  forms: payloads from a hook's JSON Schema;  pretty: JSON to read
places     hooks, timers, queues, schedules, workers;  trails: the folder's trails
live       server-sent events
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ...errors import HoldfastError
from . import actions, places, run, runs, shell, trails

Handler = Callable[[Request], Awaitable[Response]]


def routes() -> list[BaseRoute]:
    """Every route of the page."""
    return [
        Route("/", _kindly(runs.show)),
        Route("/live", _kindly(runs.follow)),
        Route("/cancel", _kindly(runs.cancel), methods=["POST"]),
        *(Route(f"/{name}", _kindly(places.show)) for name in places.NAMES),
        Route("/schedules", _kindly(places.change_schedule), methods=["POST"]),
        Route("/trails", _kindly(trails.index)),
        Route("/trails/{trail}", _kindly(trails.show)),
        Route("/static/{name:path}", shell.static),
        Route("/runs/{run:path}", _kindly(actions.act), methods=["POST"]),
        Route("/runs/{run:path}", _kindly(run.show)),
    ]


def _kindly(handler: Handler) -> Handler:
    """Answer what is refused with a page that says why."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except shell.Refused as error:
            return shell.failed(request, error)
        except HoldfastError as error:
            return shell.failed(request, shell.told(error))

    return answer
