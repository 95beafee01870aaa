"""Voyages: runs that do whatever runs can do, drawn from a seed, while their programs are killed at any moment.

Owns the program, and what is expected of it: what a voyage saw once, it sees each time, timeouts among it; what it
tells in commits is told once; and its result is what it saw.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
import msgspec

import bus
from bus.model.records import RunStatus, WorkflowRun

__all__ = ["TOLD", "VOYAGE", "Sailor", "voyage_faults"]

VOYAGE = bus.WorkflowDefinition(id="voyage", name="voyage", owner=bus.GlobalOwner(), concurrency=6)

TOLD = "told"
"""The channel on which voyages tell how far they are."""

_LEGS = 7
_SHORTLY_SECONDS = 0.3
"""About as long as it takes until the clerk answers: now it is in time, now it is not."""

_PATIENT = bus.Retry(max_attempts=1000, delay=0.001)

Note = Callable[[str, str, str, Any], None]


class Sailor:
    """Executes voyages; `note` writes down what a program saw or called."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._ways = (
            self._fish,
            self._fish_together,
            self._hurry,
            self._listen,
            self._ask,
            self._rest,
            self._send_boat,
            self._tell,
        )

    async def sail(self, run: bus.Run) -> Any:
        """Sail in two parts, each a run of its own; return what was seen in the last."""
        chance = random.Random(f"{run.input['seed']} {run.input['parts']}")
        log = []
        for leg in range(_LEGS):
            seen = await chance.choice(self._ways)(run, str(leg))
            self._note("saw", run.id, f"leg/{leg}", seen)
            log.append(seen)
        if run.input["parts"] > 1:
            await run.continue_as_new({**run.input, "parts": run.input["parts"] - 1})
            return None
        return log

    async def _fish(self, run: bus.Run, leg: str) -> Any:
        async def fish() -> int:
            self._note("called", run.id, leg, None)
            return time.monotonic_ns()

        caught = await run.step(f"fish {leg}", fish, retry=_PATIENT)
        self._note("saw", run.id, leg, caught)
        return caught

    async def _fish_together(self, run: bus.Run, leg: str) -> Any:
        caught: dict[str, int] = {}

        async def fish(place: str) -> None:
            caught[place] = await self._fish(run.branch(place), f"{leg} {place}")

        async with anyio.create_task_group() as tasks:
            for place in ("port", "starboard"):
                tasks.start_soon(fish, place)
        return sorted(caught.values())

    async def _hurry(self, run: bus.Run, leg: str) -> Any:
        async def slow() -> int:
            await anyio.sleep(2 * _SHORTLY_SECONDS)
            return time.monotonic_ns()

        try:
            return await run.step(f"hurry {leg}", slow, timeout=_SHORTLY_SECONDS)
        except bus.StepFailed as error:
            return error.error

    async def _listen(self, run: bus.Run, leg: str) -> Any:
        try:
            signal = await run.wait("call", name=f"listen {leg}", timeout=_SHORTLY_SECONDS)
        except bus.WaitTimedOut:
            return "silence"
        return signal.id

    async def _ask(self, run: bus.Run, leg: str) -> Any:
        try:
            return (await run.approval(f"ask {leg}", timeout=_SHORTLY_SECONDS))["by"]
        except bus.ApprovalTimedOut:
            return "no answer"

    async def _rest(self, run: bus.Run, leg: str) -> Any:
        await run.sleep(f"rest {leg}", _SHORTLY_SECONDS)
        return "rested"

    async def _send_boat(self, run: bus.Run, leg: str) -> Any:
        return await run.call("shipment", {"boats": 1}, name=f"boat {leg}")

    async def _tell(self, run: bus.Run, leg: str) -> Any:
        async with run.commit(f"tell {leg}", output=time.monotonic_ns()) as tx:
            tx.publish(TOLD, {"run": run.id, "leg": leg})
        self._note("saw", run.id, f"told/{leg}", None)
        return "told"


class Told(msgspec.Struct, frozen=True):
    """Where a voyage was when it told so."""

    run: str
    leg: str


def voyage_faults(
    runs: Sequence[WorkflowRun], told: Counter[Told], legs: dict[tuple[str, str], Any], may_be_cancelled: set[str]
) -> Iterator[str]:
    """Say what is wrong with voyages; `legs` is what each saw of its legs, and `told` what was told how often."""
    for place, count in told.items():
        if count != 1:
            yield f"leg {place.leg} of voyage {place.run} was told {count} times"
    for id, step in legs:
        leg = step.removeprefix("told/")
        if leg != step and Told(id, leg) not in told:
            yield f"leg {leg} of voyage {id} has told something, and nobody heard it"
    for run in runs:
        first = run.id.partition("~")[0]
        if run.status is RunStatus.CANCELLED and first not in may_be_cancelled:
            yield f"voyage {run.id} is cancelled, and nobody cancelled it"
        if run.status is RunStatus.COMPLETED and run.result is not None:
            seen = [legs.get((run.id, f"leg/{leg}")) for leg in range(_LEGS)]
            if run.result != seen:
                yield f"voyage {run.id} has the result {run.result}, and saw {seen}"
