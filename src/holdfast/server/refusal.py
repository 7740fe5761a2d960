"""Errors as HTTP knows them: one JSON form for all, and a status for each code.

Programs match on `code`, as in Python; the status is for what stands between (proxies, browsers), and tells
whether it can help to send again.
"""

from __future__ import annotations

import math

from starlette.responses import Response

from ..errors import HoldfastError, HookNotFound
from ..store.http.wire.encoding import encode
from ..store.http.wire.problems import Problem, problem_of

STATUS = {
    "payload": 400,
    "definition": 400,
    "fence_missing": 400,
    "invalid_append": 400,
    "trail_id": 400,
    "access_denied": 401,
    "run_not_found": 404,
    "hook_not_found": 404,
    "trail_not_found": 404,
    "run_exists": 409,
    "hook_taken": 409,
    "delivery_conflict": 409,
    "command_missing": 409,
    "step_ended": 409,
    "stream_ended": 409,
    "lease_lost": 409,
    "run_ended": 410,
    "stale_log": 412,
    "run_continued": 425,
    "too_early": 425,
}
"""Of each code; the others are 503: the store could not do its work, and the same may succeed later."""
OWN = {
    400: "payload",
    401: "access_denied",
    403: "origin_not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "media_type",
    421: "host_not_allowed",
    429: "too_many_requests",
    500: "internal",
}
"""Codes that only the server has, by their status."""


class Refused(Exception):
    """The server refuses a request before it comes to the store."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(code, message, retry_after=retry_after)


def status_of(error: HoldfastError) -> int:
    """The status of an error of the store or the client."""
    if isinstance(error, HookNotFound) and error.reason == "run_ended":
        return 410
    return STATUS.get(error.code, 503)


def answer_to(error: HoldfastError | Refused) -> Response:
    """An error as a response."""
    if isinstance(error, Refused):
        return problem_response(error.status, error.problem)
    problem = problem_of(error)
    if status_of(error) == 425:
        problem.retry_after = 1.0
    return problem_response(status_of(error), problem)


def problem_response(status: int, problem: Problem) -> Response:
    """The one form that every error has."""
    response = Response(encode(problem), status, media_type="application/json")
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(problem.retry_after))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="holdfast", charset="UTF-8", Bearer'
    return response
