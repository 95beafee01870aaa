"""What a system under test is asked to do: runs whose steps give an output, each kept before the next step begins.

Owns the clock and the counting, which are the same for every system: a checkpoint is over when the next step of its
run begins, since that is what a system promises. Knows nothing of the systems.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from ..figures import Latency, latency

__all__ = ["PAYLOAD_BYTES", "Alone", "Loaded", "Run", "Window", "payload", "serve"]

PAYLOAD_BYTES = 300
"""Of JSON, that each step gives."""

_OPENING_SECONDS_MAX = 5.0
"""How long runs are waited for that do not come to their first step: a system may let some of them starve."""

_OVERHEAD_BYTES = len('{"number":1000000,"text":""}')


class Loaded(msgspec.Struct, frozen=True):
    """What was done under load: the checkpoints that were over within `seconds`, and all `steps` that ended.

    `processor_seconds` is what this process took of the processors for all of them.
    """

    checkpoints: int
    seconds: float
    steps: int
    processor_seconds: float

    @property
    def per_second(self) -> float:
        """Checkpoints a second."""
        return self.checkpoints / self.seconds


class Alone(msgspec.Struct, frozen=True):
    """How long one run alone took: each of its steps, and all of it with its beginning and its end."""

    step: Latency
    run: Latency
    steps: int


class Window:
    """The time that counts, in monotonic nanoseconds: it comes so long after the last run began its first step.

    After five seconds it comes although a run has not begun.
    """

    def __init__(self, runs: int, warm_seconds: float, seconds: float) -> None:
        self.first = 0
        self.last = 0
        self._waits_for = runs
        self._lengths = int(warm_seconds * 1e9), int(seconds * 1e9)
        self._begins_at = time.monotonic_ns() + int(_OPENING_SECONDS_MAX * 1e9)
        self._lock = threading.Lock()

    def begin(self, now: int, *, first: bool) -> None:
        """Note that a step begins. To open 64 runs may take longer than to warm up."""
        with self._lock:
            self._waits_for -= first
            if not self.last and (self._waits_for == 0 or now >= self._begins_at):
                self.first = now + self._lengths[0]
                self.last = self.first + self._lengths[1]

    @property
    def is_over(self) -> bool:
        """Whether it has been."""
        return self.last > 0 and time.monotonic_ns() >= self.last


class Run:
    """One run. A system calls it for each step's output, and carries out steps as long as there are `more`."""

    def __init__(self, id: str, *, steps_max: int | None = None, window: Window | None = None) -> None:
        self.id = id
        self.steps = 0
        self.begun = array("q")
        """When each step began, in monotonic nanoseconds."""
        self._steps_max = steps_max
        self._window = window

    def __repr__(self) -> str:
        return f"<Run {self.id!r} steps={self.steps}>"

    @property
    def more(self) -> bool:
        """Whether another step is to be carried out."""
        if self._steps_max is not None and self.steps >= self._steps_max:
            return False
        return self._window is None or not self._window.is_over

    def __call__(self) -> dict[str, Any]:
        """Note that a step begins, and give its output."""
        now = time.monotonic_ns()
        self.begun.append(now)
        self.steps += 1
        if self._window is not None:
            self._window.begin(now, first=self.steps == 1)
        return payload(self.steps)

    def durations(self) -> list[int]:
        """Give the nanoseconds from the beginning of each step to that of the next."""
        return [after - before for before, after in zip(self.begun, self.begun[1:], strict=False)]


def payload(number: int) -> dict[str, Any]:
    """Give the output of a step."""
    return {"number": 1_000_000 + number, "text": "x" * (PAYLOAD_BYTES - _OVERHEAD_BYTES)}


def serve(pipe: Connection, facts: dict[str, Any], carry_out: Callable[[Sequence[Run]], None]) -> None:
    """Tell the facts, and carry out what the pipe says: `load` or `alone`, until it is closed."""
    pipe.send(facts)
    number = 0
    while True:
        name, *arguments = pipe.recv()
        number += 1
        pipe.send((_load if name == "load" else _alone)(f"{name}-{number}", carry_out, *arguments))


def _load(
    name: str, carry_out: Callable[[Sequence[Run]], None], count: int, warm_seconds: float, seconds: float
) -> Loaded:
    """Carry out so many runs side by side, and count what was over within the window."""
    window = Window(count, warm_seconds, seconds)
    runs = [Run(f"{name}-{index}", window=window) for index in range(count)]
    before = time.process_time()
    carry_out(runs)
    processor_seconds = time.process_time() - before
    # The first step of a run says nothing of a checkpoint: nothing came before it.
    over = sum(window.first <= moment < window.last for run in runs for moment in run.begun[1:])
    return Loaded(over, seconds, sum(run.steps for run in runs), processor_seconds)


def _alone(name: str, carry_out: Callable[[Sequence[Run]], None], count: int, steps: int) -> Alone:
    """Carry out runs of so many steps, one after the other."""
    durations: list[int] = []
    whole: list[int] = []
    for index in range(count):
        run = Run(f"{name}-{index}", steps_max=steps)
        begin = time.monotonic_ns()
        carry_out([run])
        whole.append(time.monotonic_ns() - begin)
        durations += run.durations()
    return Alone(latency(durations), latency(whole), count * steps)
