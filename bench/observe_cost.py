"""What it costs to be observed: a run of N empty steps, plain or with spans of OpenTelemetry, and nothing else.

    valgrind --tool=callgrind --callgrind-out-file=/dev/null python bench/observe_cost.py 60 plain
    valgrind --tool=callgrind --callgrind-out-file=/dev/null python bench/observe_cost.py 160 plain

The difference of two lengths is the price of a hundred steps, without imports and beginnings; instructions do not
depend on who else is busy. `traced` makes spans with the SDK's own provider, sampled, and exports them nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile

import holdfast as hf


@hf.step
async def empty(number: int) -> int:
    return number


@hf.workflow
async def sequence(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


async def main(steps: int, folder: str) -> None:
    async with (
        hf.connect(f"sqlite:///{folder}/cost.db") as app,
        app.worker(poll=3600, probe=3600, lease=36_000),
    ):
        await (await app.start(sequence, 30)).result()  # what happens once has happened
        await (await app.start(sequence, steps)).result()


def trace() -> None:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from holdfast.ext import otel

    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())
    otel.instrument(tracer_provider=provider)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int)
    parser.add_argument("mode", choices=["plain", "traced"])
    asked = parser.parse_args()
    if asked.mode == "traced":
        trace()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(asked.steps, folder))
