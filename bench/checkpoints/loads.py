"""What a system under test is asked to do: runs whose steps give outputs, each kept before the next step begins.

Owns the clock, the counting and the outputs, which are the same for every system. Knows nothing of the systems.

A load has lanes: each carries out one run after another, so that as many runs as there are lanes are under way at
any time. The clock begins before the first run is opened and stops when the last has ended, so that opening and
ending count.
"""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Self

import anyio
import msgspec

from ..figures import Latency, latency

__all__ = ["ALONE", "LOADS", "Lane", "Load", "Loaded", "Run", "in_tasks", "in_threads", "payload", "serve"]


class Load(msgspec.Struct, frozen=True):
    """So many `lanes` of runs of so many `steps`, whose outputs are JSON of so many bytes.

    `steps` is None for runs that go on until the time is over: of these, steps are counted instead of runs.
    """

    name: str
    lanes: int
    steps: int | None
    payload_bytes: int

    @property
    def unit(self) -> str:
        """What is counted."""
        return "step" if self.steps is None else "run"


ALONE = "ten steps alone"

LOADS = {
    load.name: load
    for load in (
        Load(ALONE, 1, 10, 300),
        Load("long runs", 64, None, 300),
        Load("short runs, 8", 8, 5, 300),
        Load("short runs", 64, 5, 300),
        Load("short runs, 20 KB", 64, 5, 20_000),
        Load("short runs, 200 KB", 64, 5, 200_000),
    )
}
"""All that is measured, in this order. 64 runs are side by side where the name says nothing else."""


class Loaded(msgspec.Struct, frozen=True):
    """What was done: so many `runs` and their `steps`, from the first one's beginning to the last one's end.

    `processor_seconds` is what this process took of the processors for it.
    """

    runs: int
    steps: int
    seconds: float
    processor_seconds: float
    run: Latency


class Run:
    """One run. A system calls it for each step's output, and carries out steps as long as there are `more`."""

    def __init__(self, id: str, steps_max: int | None, payload_bytes: int, deadline: int) -> None:
        self.id = id
        self.steps = 0
        self._steps_max = steps_max
        self._payload_bytes = payload_bytes
        self._deadline = deadline

    def __repr__(self) -> str:
        return f"<Run {self.id!r} steps={self.steps}>"

    @property
    def more(self) -> bool:
        """Whether another step is to be carried out. A run has one at least."""
        if self._steps_max is not None:
            return self.steps < self._steps_max
        return self.steps == 0 or time.monotonic_ns() < self._deadline

    def __call__(self) -> dict[str, Any]:
        """Return the output of the next step, which says whether it is followed by another."""
        self.steps += 1
        return payload(self.steps, self._payload_bytes, more=self.more)


class Lane:
    """Gives one run after the other until the time is over, at least one, and notes how long each took."""

    def __init__(self, name: str, load: Load, deadline: int) -> None:
        self.runs: list[Run] = []
        self.durations: list[int] = []
        """Of each run with its opening and its end, in nanoseconds."""
        self._name = name
        self._load = load
        self._deadline = deadline
        self._begun = 0

    def __repr__(self) -> str:
        return f"<Lane {self._name!r} runs={len(self.runs)}>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Run:
        """Note that the run before is over, and give the next."""
        now = time.monotonic_ns()
        if self.runs:
            self.durations.append(now - self._begun)
            if now >= self._deadline or self._load.steps is None:
                raise StopIteration
        run = Run(f"{self._name}-{len(self.runs)}", self._load.steps, self._load.payload_bytes, self._deadline)
        self.runs.append(run)
        self._begun = time.monotonic_ns()
        return run


CarryOut = Callable[[Sequence[Lane]], None]
"""Carries out the runs of all lanes side by side, and returns when the last has ended."""

_POOL_BYTES = 3 << 20


def _make_pool() -> str:
    """Make text that does not compress: no part of it is like another. It is made once, since that takes time."""
    return base64.b64encode(os.urandom(_POOL_BYTES)).decode()


_pool = _make_pool()

_OVERHEAD_BYTES = len('{"number":1000000,"more":0,"text":""}')


def payload(number: int, size_bytes: int, *, more: bool) -> dict[str, Any]:
    """Return the output of a step: so many bytes of JSON, with text that does not compress."""
    length = size_bytes - _OVERHEAD_BYTES
    begin = random.randrange(len(_pool) - length)
    return {"number": 1_000_000 + number, "more": int(more), "text": _pool[begin : begin + length]}


# ── The process that does it ─────────────────────────────────────────────────────────────────────────────


def in_tasks(execute: Callable[[Run], Awaitable[Any]]) -> Callable[[Sequence[Lane]], Awaitable[None]]:
    """Carry out each lane in a task of the loop."""

    async def carry_out(lanes: Sequence[Lane]) -> None:
        async with anyio.create_task_group() as tasks:
            for lane in lanes:
                tasks.start_soon(follow, lane)

    async def follow(lane: Lane) -> None:
        for run in lane:
            await execute(run)

    return carry_out


def in_threads(execute: Callable[[Run], Any]) -> CarryOut:
    """Carry out each lane in a thread."""

    def carry_out(lanes: Sequence[Lane]) -> None:
        with ThreadPoolExecutor(len(lanes)) as threads:
            for done in [threads.submit(follow, lane) for lane in lanes]:
                done.result()

    def follow(lane: Lane) -> None:
        for run in lane:
            execute(run)

    return carry_out


def serve(pipe: Connection, facts: dict[str, Any], carry_out: CarryOut) -> None:
    """Tell the facts, and carry out what the pipe says, until it is closed: a load, and for how many seconds."""
    pipe.send(facts)
    number = 0
    while True:
        load, seconds = pipe.recv()
        number += 1
        pipe.send(_measure(f"r{number}", carry_out, load, seconds))


def _measure(name: str, carry_out: CarryOut, load: Load, seconds: float) -> Loaded:
    deadline = time.monotonic_ns() + int(seconds * 1e9)
    lanes = [Lane(f"{name}-{index}", load, deadline) for index in range(load.lanes)]
    began, used = time.monotonic(), time.process_time()
    carry_out(lanes)
    took, used = time.monotonic() - began, time.process_time() - used
    runs = [run for lane in lanes for run in lane.runs]
    durations = [each for lane in lanes for each in lane.durations]
    return Loaded(len(runs), sum(run.steps for run in runs), took, used, latency(durations))
