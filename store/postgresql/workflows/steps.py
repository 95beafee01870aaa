"""Step logs of runs in PostgreSQL: their changes within a unit of work.

`bus.model.transitions` decides which statuses may follow.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bus.errors import Conflict, NotFound, StorageBusy
from bus.model.checked import NewStep, StepWrite, begun, check_answer, value_text
from bus.model.records import WorkflowStepLog
from bus.model.transitions import advance_step
from bus.model.values import same_values
from bus.model.workflows import StepMove

from .events import EventWriting
from .rows import value_of
from .unit import Needs, Unit

__all__ = ["Steps", "needs_of"]

_LARGE_AT_ONCE_MAX = 4
"""Large outputs read in one transaction: its answers keep them all in memory. Further writes have to try again."""

CheckSize = Callable[[msgspec.Struct, str, str | None], None]


def needs_of(write: StepWrite) -> Needs:
    """Return what a write needs to know."""
    if isinstance(write, NewStep):
        return Needs(steps=((write.step.id, write.step.run_id),))
    return Needs(steps=((write.step_id, None),))


class Steps:
    """Changes of step logs; `check_size` refuses a record that could not be sent to its readers."""

    def __init__(self, check_size: CheckSize, output_bytes_max: int, events: EventWriting) -> None:
        self.events = events
        self._check_size = check_size
        self._output_bytes_max = output_bytes_max

    def __repr__(self) -> str:
        return "<Steps>"

    async def write(self, unit: Unit, write: StepWrite) -> WorkflowStepLog:
        """Create a step log, or return the equal one that exists; or move one to a status."""
        return await (self._create(unit, write) if isinstance(write, NewStep) else self._move(unit, write))

    async def find(self, unit: Unit, id: str, run_id: str | None = None) -> WorkflowStepLog | None:
        """Return a step log by its own id."""
        step = await unit.step(id, run_id)
        if step is None or not unit.is_large(id):
            return step
        unit.large_outputs += 1
        if unit.large_outputs > _LARGE_AT_ONCE_MAX:
            raise StorageBusy("too many steps with large outputs are written at once; try again later")
        return msgspec.structs.replace(step, output=value_of(await unit.large_output(id)))

    async def _create(self, unit: Unit, new: NewStep) -> WorkflowStepLog:
        step = new.step
        stored = await self.find(unit, step.id, step.run_id)
        if new.fence is not None and await unit.has_run(step.run_id):
            await unit.check_fence(step.run_id, new.fence, new.by)
        if stored is not None:
            if same_values(stored, begun(step, stored.started_at)):
                return stored
            raise Conflict(f"step {step.id!r} is stored with other fields")
        if not await unit.has_run(step.run_id):
            raise NotFound("run", step.run_id)
        step = begun(step, unit.now)
        unit.create_step(step, new.row)
        self.events.asked(unit, step)
        return step

    async def _move(self, unit: Unit, change: StepMove) -> WorkflowStepLog:
        step = await self.find(unit, change.step_id)
        if step is None:
            raise NotFound("step", change.step_id)
        await unit.check_fence(step.run_id, change.fence, change.by)
        text = value_text(change.output, f"output of step {step.step_id!r}", self._output_bytes_max)
        after = advance_step(step, change.status, output=change.output, error=change.error, now=unit.now)
        if change.answers is not None and after is not step:
            check_answer(step, change)
        if change.output is not None:
            self._check_size(after, f"step {step.step_id!r}, with its input,", text)
        if after is not step:
            partial = change.output is None and unit.is_large(step.id)
            unit.write_step(after, partial=partial, output_text=text)
            if after.status is not step.status:
                self.events.asked(unit, after)
        return after
