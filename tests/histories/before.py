"""`workflows.notify` as it was before it was patched; imported only to record its run."""

import holdfast as hf


@hf.step
async def square(n: int) -> int:
    return n * n


@hf.step
async def by_fax(who: str) -> str:
    return f"fax to {who}"


@hf.workflow
async def notify(who: str) -> str:
    await square(1)
    told = await by_fax(who)
    await square(2)
    return told
