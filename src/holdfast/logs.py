"""What Holdfast's loggers have in common: fields beside the sentence, and a form for machines.

Each record says what it is about in fields of its own (`run`, `worker`, `step`, …), which logging calls *extra*;
so a formatter that writes JSON parses no sentences. `JsonLines` is such a formatter, for the command line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

_OF_LOGGING = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class About(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry fields: `About(log, {"run": run_id}).warning("…")`; a call may add more."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the fields into the record."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class JsonLines(logging.Formatter):
    """Each record as one JSON object in a line: time, level, logger, message, its fields, and `error` if any.

    Example:
        handler.setFormatter(JsonLines())
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OF_LOGGING | line.keys()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
