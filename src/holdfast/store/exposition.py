"""The metrics of this process, with those that only the store knows: how long steps wait in its queues."""

from __future__ import annotations

import logging

from .. import metrics
from ..errors import HoldfastError
from .base import Store

log = logging.getLogger("holdfast.store")


async def exposition(store: Store) -> str:
    """All metrics as Prometheus reads them; the queues are looked at now.

    Where the store does not answer, its queues are left out, and the rest is told.

    Example:
        text = await exposition(app.store)
    """
    await look_at_queues(store)
    return metrics.text()


async def look_at_queues(store: Store) -> None:
    """Bring the gauges of queues up to date; where the store does not answer they are empty."""
    try:
        rows = await store.queues()
    except HoldfastError as error:
        log.warning("the queues could not be looked at: %s", error)
        rows = []
    now = store.clock.now()
    waits = {row.name: 0 if row.oldest is None else max(0, now - row.oldest) / 1e6 for row in rows}
    metrics.QUEUE_LAG.set(waits)
    metrics.QUEUE_WAITING.set({row.name: row.waiting for row in rows})
    metrics.QUEUE_RUNNING.set({row.name: row.running for row in rows})
