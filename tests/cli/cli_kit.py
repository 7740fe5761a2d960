"""What tests of the command line share: the shop's code, children, and text without what varies."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SHOP = '''
"""A shop, for the tests of the command line."""

import asyncio
from dataclasses import dataclass
from datetime import date
from typing import Any

import holdfast as hf


@dataclass
class Approval:
    ok: bool
    by: str = ""


@hf.step
async def charge(amount: int) -> int:
    return amount


@hf.step(retries=2, backoff=0)
async def flaky(succeed_at: int) -> int:
    if hf.step_info().attempt < succeed_at:
        raise ValueError(f"attempt {hf.step_info().attempt} failed")
    return succeed_at


@hf.workflow(version="2")
async def fulfil(amount: int, customer: str = "ana") -> str:
    hf.set_attributes(customer=customer)
    print("the workflow prints")
    paid, tries = await asyncio.gather(charge(amount), flaky(2))
    return f"{customer} paid {paid} after {tries} tries"


@hf.workflow
async def approve(name: str) -> dict[str, str]:
    hook = hf.hook(f"approve:{name}", type=Approval, metadata={"question": "Shall we?"})
    try:
        async with asyncio.timeout(3 * 86400):
            answer = await hook
    except TimeoutError:
        return {"by": "nobody"}
    return {"by": answer.by}


@hf.workflow
async def fails() -> None:
    await flaky(9)


@hf.workflow
async def naps(day: date) -> str:
    await hf.sleep(86400)
    return day.isoformat()


@hf.workflow
async def echo(*words: str, loud: bool = False, **more: int) -> list[Any]:
    return [list(words), loud, more]


def plain() -> None: ...
'''


@dataclass
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Command = Callable[..., Ran]


def child(*words: str, cwd: Path, **options: object) -> subprocess.Popen[str]:
    """The same in a process of its own."""
    env = {k: v for k, v in os.environ.items() if k not in ("HOLDFAST_URL", "HOLDFAST_DEBUG")}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "holdfast", *words],
        cwd=cwd,
        env=env | {"PYTHONUNBUFFERED": "1"},
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=options.pop("stderr", subprocess.PIPE),
        text=True,
        **options,
    )


_VARYING = [
    (re.compile(r"run_[0-9a-z]{26}"), "RUN-ID"),
    (re.compile(r"wrk_[0-9a-z]{26}"), "WORKER"),
    (re.compile(r"dlv_[0-9a-z]{26}"), "DELIVERY"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\d+ s ago|\bnow\b"), "AGO"),
    (re.compile(r"\d+(\.\d)? (ms|s|µs)\b"), "SPAN"),
    (re.compile(r'"(seed|due|delay)":("[^"]*"|[\d.]+)'), r'"\1":…'),
    (re.compile(r"process \d+ on \S+\)"), "process PID on HOST)"),
    (re.compile(r" +"), " "),
]


def steady(text: str) -> str:
    """The text with what differs from run to run made the same, and runs of blanks made one."""
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return text
