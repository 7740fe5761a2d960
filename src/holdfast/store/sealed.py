"""A store whose payloads are unreadable without the keys: in front of any backend.

Guarantees: every value of `SEALED` (arguments, results, errors, payloads, notes, reasons) and every chunk of a
stream is encrypted before the backend sees it, and opened when it comes back; the backend stores, judges and
chains what is sealed, so `holdfast verify` needs no key. What stays in the clear is what the store works with:
run ids, workflow and step names, tokens, times, attributes, the JSON Schema of a hook.

It rests on one thing: the rules of the store never look into a payload. Of two payloads with one delivery id
they compare a digest, which is a keyed hash here.

A log may hold sealed and plain events: keys can be given to a store that has run without. A worker without the
keys parks a sealed run (`why` says so) and does not guess.

Rejected: sealing whole events (a projection could not be rebuilt without the key), one more subclass of each
backend.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..chunks import Chunk, Part
from ..errors import StaleLog
from ..events import Draft, Event, dump_json, load_json, token_of
from ..keys import CHUNK_PREFIX, MARK, PREFIX, Keys, is_sealed
from .base import Store
from .messages import Append, Appended, Listener, News
from .rows import Hook, TakenUp
from .streams import Written

SEALED = frozenset({"args", "content", "error", "metadata", "payload", "raw", "reason", "title", "value"})
"""The fields of events that hold what people put in."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class SealedStore(Store):
    """A store behind a seal; what carries no payload goes straight through to the backend."""

    def __init__(self, inner: Store, keys: Keys) -> None:
        super().__init__(inner.url, inner.clock)
        self._inner = inner
        self._keys = keys

    @property
    def presence_folder(self) -> Path | None:  # type: ignore[override]
        """Where the backend's workers lock their presence files."""
        return self._inner.presence_folder

    @property
    def at_rest(self) -> Store:
        """The backend: its logs as they are stored, sealed."""
        return self._inner.at_rest

    # ---- writing

    def submit(self, request: Append, *, flush: bool = False) -> None:
        """Append with the next group, sealed."""

        def answer(result: Appended | BaseException) -> None:
            try:
                request.answer(self._opened(result))
            except Exception as error:  # noqa: BLE001 - a key is missing: that is the answer
                request.answer(error)

        drafts = [self._seal(request.run, draft) for draft in request.drafts]
        sealed = msgspec.structs.replace(request, drafts=drafts, answer=answer)
        self._inner.submit(sealed, flush=flush)

    async def append(self, run_id: str, events: Sequence[Draft], **options: Any) -> Appended:
        """Append to a run's log, sealed."""
        try:
            drafts = [self._seal(run_id, draft) for draft in events]
            return self._opened(await self._inner.append(run_id, drafts, **options))  # type: ignore[return-value]
        except StaleLog as error:
            raise self._opened(error) from None  # type: ignore[misc]

    async def deliver(
        self, token: str, payload: bytes, delivery: str, *, digest: str | None = None
    ) -> Appended:
        """Append a payload, sealed, to the run that has this hook open."""
        place = _place("", "hook_received", f"{token}#0", {"delivery": delivery}, "payload")
        sealed = dump_json({MARK: self._keys.seal_text(payload, place)})
        same = digest or self._keys.digest(payload)
        return self._opened(await self._inner.deliver(token, sealed, delivery, digest=same))  # type: ignore[return-value]

    # ---- reading

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events beyond `after`, opened. Raises KeyMissing."""
        return self._open_all(await self._inner.read(run_id, after, limit))

    async def take_up(self, run_id: str) -> TakenUp:
        """What a worker needs to go on with a run, its events opened. Raises KeyMissing."""
        found = await self._inner.take_up(run_id)
        return msgspec.structs.replace(found, events=self._open_all(found.events))

    async def catch_up(self, run_id: str, after: int) -> list[Event]:
        """`read`, by the run's decider. Raises KeyMissing."""
        return self._open_all(await self._inner.catch_up(run_id, after))

    async def end_of(self, run_id: str) -> Event | None:
        """The event that ended a run, opened, or None. Raises KeyMissing."""
        end = await self._inner.end_of(run_id)
        return None if end is None else self._open(end)

    async def receiver(self, token: str) -> Hook | None:
        """The open hook that gets the payloads of a token, its metadata opened."""
        hook = await self._inner.receiver(token)
        return None if hook is None else self._open_hook(hook)

    async def hooks(self, **query: Any) -> list[Hook]:
        """A page of hooks, their metadata opened."""
        return [self._open_hook(hook) for hook in await self._inner.hooks(**query)]

    # ---- streams

    async def write_stream(self, run_id: str, name: str, parts: Sequence[Part], **options: Any) -> Written:
        """Append chunks to a stream, sealed."""
        sealed = [self._seal_part(run_id, name, part) for part in parts]
        return await self._inner.write_stream(run_id, name, sealed, **options)

    async def read_stream(self, run_id: str, name: str, *query: Any, **more: Any) -> list[Chunk]:
        """A page of a stream, opened. Raises KeyMissing."""
        return [
            self._open_chunk(run_id, name, c)
            for c in await self._inner.read_stream(run_id, name, *query, **more)
        ]

    # ---- being told

    def listen(self, listener: Listener, *, every: bool = False) -> Callable[[], None]:
        """Call `listener` with the news of the backend; an end is read, so that it is opened."""

        def opened(news: Sequence[News]) -> None:
            listener([item if item.end is None else msgspec.structs.replace(item, end=None) for item in news])

        return self._inner.listen(opened, every=every)

    def tell(self, news: Sequence[News]) -> None:
        """Pass news on to the listeners of the backend."""
        self._inner.tell(news)

    # ---- sealing and opening

    def _seal(self, run: str, draft: Draft) -> Draft:
        if SEALED.isdisjoint(draft.data):
            return draft
        data = {
            name: {
                MARK: self._keys.seal_text(
                    dump_json(value), _place(run, draft.type, draft.key, draft.data, name)
                )
            }
            if name in SEALED and value is not None
            else value
            for name, value in draft.data.items()
        }
        if draft.type == "hook_received" and data.get("digest"):
            data["digest"] = self._keys.digest(dump_json(draft.data["payload"]))
        return Draft(draft.type, draft.key, data, dump_json(data), draft.cls, draft.unique, draft.at)

    def _open(self, event: Event) -> Event:
        if not is_sealed(event.body):
            return event
        try:
            fields = _fields(event.body)
        except (msgspec.DecodeError, UnicodeDecodeError):  # a lone surrogate somewhere in the clear
            fields = {name: msgspec.Raw(dump_json(v)) for name, v in load_json(event.body).items()}
        plain = {
            name: load_json(bytes(value)) if name == "delivery" else value for name, value in fields.items()
        }
        for name, value in fields.items():
            if name in SEALED and bytes(value).startswith(PREFIX):
                place = _place(event.run, event.type, event.key, plain, name)
                plain[name] = msgspec.Raw(self._keys.open_text(load_json(bytes(value))[MARK], place))
        return msgspec.structs.replace(event, body=dump_json(plain))

    def _seal_part(self, run: str, stream: str, part: Part) -> Part:
        if part.kind == "end":
            return part
        body = CHUNK_PREFIX + self._keys.seal(part.body, _chunk_place(run, stream, part.kind, part.key))
        return msgspec.structs.replace(part, body=body)

    def _open_chunk(self, run: str, stream: str, chunk: Chunk) -> Chunk:
        if not chunk.body.startswith(CHUNK_PREFIX):
            return chunk
        place = _chunk_place(run, stream, chunk.kind, chunk.key)
        return msgspec.structs.replace(chunk, body=self._keys.open(chunk.body[len(CHUNK_PREFIX) :], place))

    def _open_all(self, events: Iterable[Event]) -> list[Event]:
        return [self._open(event) for event in events]

    def _opened(self, answer: Appended | BaseException) -> Appended | BaseException:
        if isinstance(answer, Appended) and answer.missed:
            return msgspec.structs.replace(answer, missed=self._open_all(answer.missed))
        if isinstance(answer, StaleLog):
            answer.missed = self._open_all(answer.missed)
        return answer

    def _open_hook(self, hook: Hook) -> Hook:
        if not (isinstance(hook.metadata, dict) and MARK in hook.metadata):
            return hook
        place = _place(hook.run, "hook_opened", hook.key, {}, "metadata")
        return msgspec.structs.replace(
            hook, metadata=load_json(self._keys.open_text(hook.metadata[MARK], place))
        )


def _chunk_place(run: str, stream: str, kind: str, key: str | None) -> str:
    return f"{run} stream {stream} {kind} {key}"


def _place(run: str, type_: str, key: str, data: Mapping[str, Any], field: str) -> str:
    """Where a value belongs. Whoever sends a payload knows its token and delivery, but not the run."""
    if type_ == "hook_received":
        return f"{token_of(key)} {type_} {data.get('delivery', '')} {field}"
    return f"{run} {type_} {key} {field}"


def _through(name: str) -> Any:
    def call(self: SealedStore, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._inner, name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call


# What is not about payloads needs no word here, also what the contract will ask for one day.
for _name in [
    *SealedStore.__abstractmethods__,
    "strays",
    "changed",
    "attend",
    "next_death",
    "work_waits",
    "tokens",
    "put_token",
    "drop_token",
]:
    setattr(SealedStore, _name, _through(_name))
abc.update_abstractmethods(SealedStore)  # type: ignore[type-abstract]
