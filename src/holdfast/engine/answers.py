"""What workflow code is answered at once: its clock and chance, its version, its attributes and notes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from ..clock import to_datetime
from ..codec import UNTYPED
from ..events import check_noted, dump_json, numbered
from ..labels import check_attributes
from ..runtime import ContinueAsNew, RunInfo
from . import guard
from .context import RunContext


class Answers(RunContext):
    """The side of an execution that workflow code sees, whole."""

    __slots__ = ()

    # ---- the next run

    def continue_as_new(self, args: Any, kwargs: Any) -> NoReturn:
        """End with the arguments of the run that goes on."""
        self.alive()
        arguments = self.workflow.arguments
        raw = arguments.encode(args, kwargs)
        arguments.decode(raw)
        self.check_limit(raw, "run_completed", "", f"{self.workflow.name} arguments")
        raise ContinueAsNew(raw)

    # ---- clock, chance, versions, attributes

    def now(self) -> datetime:
        """The time of the fact delivered last (law L8)."""
        return to_datetime(self.clock)

    def random(self) -> random.Random:
        """The run's own generator."""
        if self._random is None:
            self._random = random.Random(self.seed)
            guard.permit(self._random)
        return self._random

    def uuid4(self) -> UUID:
        """From a generator of its own, so that it does not shift the numbers of `random()`."""
        if self._uuids is None:
            self._uuids = random.Random(f"{self.seed}/uuid4")
            guard.permit(self._uuids)
        return UUID(int=self._uuids.getrandbits(128), version=4)

    def patched(self, id: str) -> bool:
        """The first answer holds; it is True where the log's next command is the marker, or there is none."""
        self.alive()
        answer = self._patches.get(id)
        if answer is None:
            upcoming = self._upcoming()
            marker = ("patched", numbered(id, 1))
            answer = upcoming is None or (upcoming.type, upcoming.key) == marker
            self._patches[id] = answer
            if answer:
                self.ask("patched", numbered(id, 1), {})
        return answer

    def set_attributes(self, attributes: Mapping[str, str | None]) -> None:
        """Set, replace or (with None) remove attributes."""
        self.alive()
        after = dict(self.attributes)
        for name, value in attributes.items():
            if value is None:
                after.pop(name, None)
            else:
                after[name] = value
        check_attributes(after)
        self.attributes = after
        self.ask("attributes_set", self._key("attributes", "attributes"), {"attributes": dict(attributes)})

    def note(self, data: Mapping[str, Any]) -> str:
        """Something for the run's trail; nothing is asked for where it does not fit."""
        self.alive()
        told = self._credited(dict(data))
        if "chapter" in data:
            told["chapter"] = data["chapter"]  # the one that is meant, not the one around
        if "raw" in told:
            told["raw"] = msgspec.Raw(UNTYPED.encode(told["raw"], f"{data['kind']} raw"))
        check_noted(told)
        self.check_limit(
            dump_json(told), "noted", numbered("note", self._ordinals.get(("note", "note"), 0) + 1), "note"
        )
        key = self._key("note", "note")
        self.ask("noted", key, told)
        return key

    def info(self) -> RunInfo:
        """What `hf.run_info()` gives."""
        return RunInfo(
            self.run_id,
            self.workflow.name,
            to_datetime(self.created),
            self.version,
            dict(self.attributes),
            self.parent,
            self.root,
            self.previous,
            self.first,
            None if self.due is None else to_datetime(self.due),
        )
