"""Signals to runs in SQLite: kept until a step takes them, each once.

Owns the SQL of signals. Every method is part of its caller's transaction and may be run twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import aiosqlite
import msgspec

from bus.errors import Conflict, NotFound, RecordDamaged, RunEnded, TooManySignals
from bus.model.checked import NewStep
from bus.model.records import CONTINUED, NewSignal, RunStatus, Signal, StepStatus, WorkflowStepLog
from bus.model.transitions import RUN_TRANSITIONS
from bus.model.values import check_texts, json_text, json_value, same_values
from bus.model.workflows import StepMove

from ..file.reader import Reader, is_text
from ..file.writer import Transaction
from .runs import Runs
from .steps import Steps

__all__ = ["RunSignals", "find_signals", "give_back"]

_PREDECESSORS_MAX = 1000
"""How far back it is looked for a signal that is sent again: its answer was lost not long ago."""

_COLUMNS = "run_id, id, name, payload, sender, sent_at"

# What was sent to a run that continued as this one was sent to this one, whichever of them took it.
_FIND = f"""
    WITH RECURSIVE known (id, before) AS (
        SELECT ?1, (SELECT parent_run_id FROM workflow_runs WHERE id = ?1 AND trigger_type = '{CONTINUED}')
        UNION
        SELECT run.id, CASE run.trigger_type WHEN '{CONTINUED}' THEN run.parent_run_id END
        FROM known JOIN workflow_runs AS run ON run.id = known.before
        LIMIT {_PREDECESSORS_MAX})
    SELECT {_COLUMNS} FROM workflow_signals WHERE run_id IN (SELECT id FROM known) AND id = ?2"""

_STATUS = """
    SELECT status, (SELECT COUNT(*) FROM workflow_signals WHERE run_id = ?1 AND taken_by IS NULL)
    FROM workflow_runs WHERE id = ?1"""

_INSERT = f"INSERT INTO workflow_signals ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"

# INDEXED BY, because the primary key also begins with the run.
_WAITING = f"""
    SELECT {_COLUMNS} FROM workflow_signals INDEXED BY idx_workflow_signals_waiting
    WHERE run_id = ?1 AND taken_by IS NULL AND (?2 IS NULL OR name IN (SELECT value FROM json_each(?2)))
        AND (?3 IS NULL OR sent_at <= ?3)
    ORDER BY rowid LIMIT ?4 OFFSET ?5"""

_TAKE = "UPDATE workflow_signals SET taken_by = ? WHERE run_id = ? AND id = ?"

_PASS_ON = "UPDATE OR IGNORE workflow_signals SET run_id = ? WHERE run_id = ? AND taken_by IS NULL"

_RETURN = """
    UPDATE workflow_signals SET taken_by = NULL
    WHERE run_id = ?1 AND taken_by IN (SELECT value FROM json_each(?2))"""


class RunSignals:
    """Changes of signals."""

    def __init__(self, runs: Runs, steps: Steps) -> None:
        self._runs = runs
        self._steps = steps

    def __repr__(self) -> str:
        return f"<RunSignals of {self._runs}>"

    async def send(
        self, connection: aiosqlite.Connection, signal: NewSignal, sender: str | None, now: str
    ) -> Signal:
        """Keep a signal for its run; or return the one with its id, if that is the same."""
        check_texts((sender,), "sender of a signal")
        sent = Signal(
            id=signal.id,
            run_id=signal.run_id,
            name=signal.name,
            payload=signal.payload,
            sender=sender,
            sent_at=now,
        )
        self._runs.check_size(sent, f"signal {signal.name!r}")
        for row in await connection.execute_fetchall(_FIND, (signal.run_id, signal.id)):
            stored = _record(row)
            if same_values(stored, msgspec.structs.replace(sent, run_id=stored.run_id, sent_at=stored.sent_at)):
                return stored
            raise Conflict(f"run {signal.run_id!r} has another signal with the id {signal.id!r}")
        rows = list(await connection.execute_fetchall(_STATUS, (signal.run_id,)))
        if not rows:
            raise NotFound("run", signal.run_id)
        status, waiting = rows[0]
        if not RUN_TRANSITIONS[RunStatus(status)]:
            raise RunEnded(signal.run_id, status)
        if waiting >= self._runs.rules.signals_max:
            raise TooManySignals(signal.run_id, waiting)
        payload = None if signal.payload is None else json_text(signal.payload, "payload")
        await connection.execute(_INSERT, (signal.run_id, signal.id, signal.name, payload, sender, now))
        return sent

    async def pass_on(self, connection: aiosqlite.Connection, run_id: str, successor_id: str) -> None:
        """Move the signals that nobody took to the run as which theirs continues, except those that it has."""
        await connection.execute(_PASS_ON, (successor_id, run_id))

    async def take(
        self, transaction: Transaction, new: NewStep, names: Sequence[str], until: str | None, now: str
    ) -> WorkflowStepLog:
        """Complete a step with the oldest signal that it waits for; create the step if it does not exist."""
        connection = transaction.connection
        step = await self._known(connection, new)
        if step is None:
            step = await self._steps.write(transaction, new, now)
        if step.status is not StepStatus.PENDING:
            return step
        wanted = json_text(list(names), "names of signals")
        for row in await connection.execute_fetchall(_WAITING, (new.step.run_id, wanted, until, 1, 0)):
            signal = _record(row)
            await connection.execute(_TAKE, (step.id, signal.run_id, signal.id))
            output = json_value(signal, f"signal {signal.name!r}")
            move = StepMove(step.id, StepStatus.COMPLETED, output, None, new.fence, new.by)
            step = await self._steps.write(transaction, move, now)
        return step

    async def _known(self, connection: aiosqlite.Connection, new: NewStep) -> WorkflowStepLog | None:
        """Return the step log as it is stored. Raise Fenced, or Conflict if it is another run's."""
        await self._runs.check_fence(connection, new.step.run_id, new.fence, new.by)
        stored = await self._steps.find(connection, new.step.id)
        if stored is not None and (stored.run_id, stored.step_id) != (new.step.run_id, new.step.step_id):
            raise Conflict(f"step {stored.id!r} is stored with other fields")
        return stored


async def give_back(connection: aiosqlite.Connection, run_id: str, step_ids: str) -> None:
    """Let the signals wait again that these step logs, a JSON array of their ids, had taken."""
    await connection.execute(_RETURN, (run_id, step_ids))


async def find_signals(
    reader: Reader, run_id: str, names: Sequence[str] | None, part: tuple[int, int]
) -> list[Signal]:
    """Return the signals of a run that nobody has taken, oldest first, of some names or of any."""
    wanted = None if names is None else json_text(list(names), "names of signals")
    return [_record(row) for row in await reader.execute_fetchall(_WAITING, (run_id, wanted, None, *part))]


def _record(row: Sequence[object]) -> Signal:
    run_id, id, name, payload, sender, sent_at = row
    if not is_text((run_id, id, name, sender, sent_at)):
        raise RecordDamaged("workflow_signals", f"id {id}")
    try:
        value = None if payload is None else msgspec.json.decode(str(payload))
        fields = {"id": id, "run_id": run_id, "name": name, "payload": value, "sender": sender, "sent_at": sent_at}
        return msgspec.convert(fields, Signal)
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_signals", f"id {id}") from error
