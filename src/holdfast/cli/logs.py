"""What workers and servers log, on stderr: one line each, for people or for machines."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Literal

import typer

LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option("--log-format", help="What is logged, on stderr: lines of text, or JSON objects."),
]


class OneLine(logging.Formatter):
    """Warnings as the command line's other messages: one line, no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        text = " ".join(record.getMessage().split())
        if os.environ.get("HOLDFAST_DEBUG") == "1" and record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{record.levelname.lower()}: {text}"


def log_to_stderr(form: str = "text") -> None:
    """What Holdfast's loggers say goes to stderr; as JSON, refusals by the fence and other news of INFO too."""
    from ..logs import JsonLines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else OneLine())
    log = logging.getLogger("holdfast")
    log.handlers = [handler]
    log.propagate = False
    if form == "json":
        log.setLevel(logging.INFO)
