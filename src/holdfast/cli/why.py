"""`why`: what a run waits for, in plain sentences; `holdfast.why` finds them."""

from __future__ import annotations

import asyncio

from . import output
from .frame import LOOK, command
from .options import DEFAULT_STORE, AsJson, RunId, StoreUrl, ending


@command(LOOK, ending({0: "told", 2: "cannot: there is no such store or run"}, ["why order-1"]))
def why(run: RunId, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> int:
    """Say what a run waits for, why it is parked, or how it ended."""
    return asyncio.run(_why(store, run, as_json))


async def _why(url: str, run_id: str, as_json: bool) -> int:
    from ..why import explain, look
    from .stores import existing, head_of

    async with existing(url) as store:
        head = await head_of(store, run_id)
        seen = await look(store, head)
    reasons, state = list(explain(seen)), seen.state
    if as_json:
        shown = [{"kind": reason.kind, "text": reason.text, **reason.about} for reason in reasons]
        chain = {"previous": state.previous, "continued": state.continued}
        output.data_json({"run": run_id, "status": head.status, **chain, "reasons": shown})
        return 0
    for reason in reasons:
        output.data(reason.text)
    if state.previous is not None:
        output.data(f"It goes on from `{output.clean(state.previous)}`.")
    return 0
