"""What a person may ask of one run: cancel, terminate, wake, rerun, and a payload for a hook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...errors import HoldfastError
from ..service import Service
from . import forms, shell
from . import run as of_run
from .log import Log
from .spans import Span

Act = Callable[[Request, str, dict[str, list[str]]], Awaitable[Response]]


async def act(request: Request) -> Response:
    """POST /runs/…: the field `do` says what."""
    form = await shell.form(request)
    run_id = of_run.id_of(request)
    wanted = _ACTS.get(shell.only(form, "do"))
    if wanted is None:
        raise shell.Refused(400, "expected one of " + ", ".join(_ACTS))
    try:
        return await wanted(request, run_id, form)
    except HoldfastError as error:
        raise shell.told(error) from error


async def _cancel(request: Request, run_id: str, form: dict[str, list[str]]) -> Response:
    taken = await Service.of(request).app.run(run_id).cancel(shell.only(form, "reason"))
    return _back(run_id, "It is asked to cancel" if taken else "It had ended already")


async def _terminate(request: Request, run_id: str, form: dict[str, list[str]]) -> Response:
    ended = await Service.of(request).app.run(run_id).terminate(shell.only(form, "reason"))
    return _back(run_id, "It is terminated" if ended else "It had ended already")


async def _wake(request: Request, run_id: str, _form: dict[str, list[str]]) -> Response:
    awake = await Service.of(request).app.run(run_id).wake()
    return _back(run_id, "It is awake" if awake else "It had ended already")


async def _rerun(request: Request, run_id: str, form: dict[str, list[str]]) -> Response:
    new_id = shell.only(form, "run_id") or None
    started = await Service.of(request).app.rerun(run_id, new_id=new_id)
    return _back(started.id, "Started with the same input")


async def _payload(request: Request, run_id: str, form: dict[str, list[str]]) -> Response:
    log = await of_run.log_of(request, run_id)
    span = _hook(log, shell.only(form, "hook"))
    delivery = shell.only(form, "delivery")
    try:
        payload = forms.read(span.schema, form, f"{span.name} payload")
    except forms.Wrong as error:
        if shell.wants_part(request):
            values: dict[str, Any] = {"run": run_id, "hook": span, "form": error.form, "delivery": delivery}
            return shell.page(request, "_payload.html", status=422, **values)
        return await of_run.show(request, wrong=(span.position, error.form))
    answer = await Service.of(request).app.resume(span.name, payload, delivery_id=delivery or None)
    already = "had it already" if answer.duplicate else "has the payload"
    done = f"The run {already}, at position {answer.position}"
    if shell.wants_part(request):
        return JSONResponse({"done": done, "news": await of_run.news(request, run_id)})
    return _back(answer.run_id, done)


def _hook(log: Log, place: str) -> Span:
    """The hook that a form is for, by the position at which it was opened."""
    for span in log.spans.rows:
        if span.kind == "hook" and str(span.position) == place:
            if span.end is not None:
                raise shell.Refused(409, f"the hook {span.name} is not open any more ({span.status})")
            return span
    raise shell.Refused(404, "no such hook in this run")


def _back(run_id: str, done: str) -> Response:
    return RedirectResponse(shell.run_url(run_id, done=done), 303)


_ACTS: dict[str, Act] = {
    "cancel": _cancel,
    "terminate": _terminate,
    "wake": _wake,
    "rerun": _rerun,
    "payload": _payload,
}
