"""Signals to runs in PostgreSQL: kept until a step takes them, each once; within a unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bus.errors import Conflict, NotFound, RecordDamaged, RunEnded, TooManySignals
from bus.model.checked import NewStep
from bus.model.records import CONTINUED, NewSignal, Signal, StepStatus, WorkflowStepLog
from bus.model.transitions import RUN_TRANSITIONS
from bus.model.values import check_texts, json_text, json_value, same_values
from bus.model.workflows import StepMove

from ..server.reader import Reader
from .rows import value_of
from .runs import Runs
from .steps import Steps
from .unit import Unit

__all__ = ["RunSignals", "find_signals"]

_PREDECESSORS_MAX = 1000
"""How far back it is looked for a signal that is sent again: its answer was lost not long ago."""

_COLUMNS = "run_id, id, name, payload, sender, sent_at"

# What was sent to a run that continued as this one was sent to this one, whichever of them took it.
_FIND = f"""
    WITH RECURSIVE known (id, before, place) AS (
        SELECT id, CASE trigger_type WHEN '{CONTINUED}' THEN parent_run_id END, 1
        FROM workflow_runs WHERE id = ANY($1::text[])
        UNION
        SELECT run.id, CASE run.trigger_type WHEN '{CONTINUED}' THEN run.parent_run_id END, place + 1
        FROM known JOIN workflow_runs AS run ON run.id = known.before
        WHERE place < {_PREDECESSORS_MAX})
    SELECT {_COLUMNS} FROM workflow_signals WHERE run_id IN (SELECT id FROM known) AND id = $2"""

_COUNT_WAITING = "SELECT COUNT(*) FROM workflow_signals WHERE run_id = $1 AND taken_by IS NULL"

_WAITING = f"""
    SELECT {_COLUMNS} FROM workflow_signals
    WHERE run_id = $1 AND taken_by IS NULL AND ($2::text[] IS NULL OR name = ANY($2::text[]))
        AND ($3::text IS NULL OR sent_at <= $3) AND id <> ALL($4::text[])
    ORDER BY number LIMIT $5 OFFSET $6"""


class RunSignals:
    """Changes of signals."""

    def __init__(self, runs: Runs, steps: Steps) -> None:
        self._runs = runs
        self._steps = steps

    def __repr__(self) -> str:
        return f"<RunSignals of {self._runs}>"

    async def send(self, unit: Unit, signal: NewSignal, sender: str | None) -> Signal:
        """Keep a signal for its run; or return the one with its id, if that is the same."""
        sent = Signal(
            id=signal.id,
            run_id=signal.run_id,
            name=signal.name,
            payload=signal.payload,
            sender=sender,
            sent_at=unit.now,
        )
        self._runs.check_size(sent, f"signal {signal.name!r}")
        check_texts((sender,), "sender of a signal")
        held = await unit.find(signal.run_id)
        if held is None:
            raise NotFound("run", signal.run_id)
        run = held.run
        begin = [run.id, *([run.parent_run_id] if run.trigger_type == CONTINUED and run.parent_run_id else ())]
        stored = [row for row in unit.new_signals if row[0] in begin and row[1] == signal.id]
        for row in stored or await unit.connection.fetch(_FIND, begin, signal.id):
            known = _record(row)
            if same_values(known, msgspec.structs.replace(sent, run_id=known.run_id, sent_at=known.sent_at)):
                return known
            raise Conflict(f"run {signal.run_id!r} has another signal with the id {signal.id!r}")
        if not RUN_TRANSITIONS[run.status]:
            raise RunEnded(signal.run_id, run.status)
        [[waiting]] = await unit.connection.fetch(_COUNT_WAITING, run.id)
        waiting += sum(row[0] == run.id for row in unit.new_signals)
        waiting -= sum(taken[0] == run.id for taken in unit.taken_signals)
        if waiting >= self._runs.rules.signals_max:
            raise TooManySignals(signal.run_id, waiting)
        payload = None if signal.payload is None else json_text(signal.payload, "payload")
        unit.add_signal((signal.run_id, signal.id, signal.name, payload, sender, unit.now))
        return sent

    async def take(self, unit: Unit, new: NewStep, names: Sequence[str], until: str | None) -> WorkflowStepLog:
        """Complete a step with the oldest signal that it waits for; create the step if it does not exist."""
        step = await self._known(unit, new)
        if step is None:
            step = await self._steps.write(unit, new)
        if step.status is not StepStatus.PENDING:
            return step
        signal = await self._waiting(unit, new.step.run_id, names, until)
        if signal is not None:
            output = json_value(signal, f"signal {signal.name!r}")
            move = StepMove(step.id, StepStatus.COMPLETED, output, None, new.fence, new.by)
            step = await self._steps.write(unit, move)
            unit.take_signal(signal.run_id, signal.id, step.id)
        return step

    async def _known(self, unit: Unit, new: NewStep) -> WorkflowStepLog | None:
        """Return the step log as it is stored. Raise Fenced, or Conflict if it is another run's."""
        stored = await self._steps.find(unit, new.step.id, new.step.run_id)
        await unit.check_fence(new.step.run_id, new.fence, new.by)
        if stored is not None and (stored.run_id, stored.step_id) != (new.step.run_id, new.step.step_id):
            raise Conflict(f"step {stored.id!r} is stored with other fields")
        return stored

    async def _waiting(self, unit: Unit, run_id: str, names: Sequence[str], until: str | None) -> Signal | None:
        """Return the oldest signal of a run, of these names, that no step has or is to have."""
        taken = [id for of_run, id, _ in unit.taken_signals if of_run == run_id]
        wanted = [name for name in names if "\0" not in name]
        for row in await unit.connection.fetch(_WAITING, run_id, wanted, until, taken, 1, 0):
            return _record(row)
        for row in unit.new_signals:
            sent_in_time = until is None or row[5] <= until
            if row[0] == run_id and row[2] in names and sent_in_time and row[1] not in taken:
                return _record(row)
        return None


async def find_signals(
    reader: Reader, run_id: str, names: Sequence[str] | None, part: tuple[int | None, int]
) -> list[Signal]:
    """Return the signals of a run that nobody has taken, oldest first, of some names or of any."""
    wanted = None if names is None else [name for name in names if "\0" not in name]
    return [_record(row) for row in await reader.fetch(_WAITING, run_id, wanted, None, [], *part)]


def _record(row: Any) -> Signal:
    run_id, id, name, payload, sender, sent_at = row
    try:
        value = value_of(payload)
    except msgspec.MsgspecError as error:
        raise RecordDamaged("workflow_signals", f"id {id}") from error
    return Signal(id=id, run_id=run_id, name=name, payload=value, sender=sender, sent_at=sent_at)
