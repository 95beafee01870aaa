"""Schedules in PostgreSQL: saving and listing them, and starting the runs that are due.

Owns their SQL. `bus.model.schedules` decides which runs are due, in a thread, because the rules of a time zone are
read from a file. A run is created in the transaction that moves its schedule on, and knows of which schedule and
time it is, so that each time starts one run at most.
"""

from __future__ import annotations

import uuid
from functools import partial
from itertools import islice
from typing import NamedTuple

import anyio.to_thread
import asyncpg
import msgspec

from bus.errors import InvalidValue, NotFound, RecordDamaged
from bus.model.checked import checked_schedule, new_run, scheduled_run
from bus.model.occurrences import CRON_MISSING, CronTimes, can_read_cron, next_time, next_times
from bus.model.records import WorkflowRun, parse_timestamp
from bus.model.schedules import ScheduleState, ScheduleStatus, WorkflowSchedule, due_runs
from bus.model.values import check_id, json_text, same_values

from ..server.reader import Reader
from .lists import PostgresqlRunLists
from .rows import part
from .runs import Runs
from .unit import Unit

__all__ = ["PostgresqlSchedules", "StartedRun", "cron_warning", "seconds_to_next", "start_due"]

_TIMES_MAX = 1000

_COLUMNS = (
    "id, schedule, paused, next_at, queued_at, last_at, last_run_id, fired, skipped, error, created_at,"
    " created_by_bot_id, anchor"
)

_FIND = f"SELECT {_COLUMNS} FROM workflow_schedules WHERE id = $1"

_LIST = f"""
    SELECT {_COLUMNS} FROM workflow_schedules WHERE $1::text IS NULL OR workflow_id = $1
    ORDER BY id LIMIT $2 OFFSET $3"""

_SAVE = """
    INSERT INTO workflow_schedules
        (id, workflow_id, schedule, is_cron, anchor, next_at, created_at, created_by_bot_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (id) DO UPDATE SET workflow_id = excluded.workflow_id, schedule = excluded.schedule,
        is_cron = excluded.is_cron, anchor = excluded.anchor, next_at = excluded.next_at, error = NULL"""

_PAUSE = """
    UPDATE workflow_schedules SET paused = $2, next_at = $3, queued_at = NULL, error = NULL WHERE id = $1"""

_BUSY = """
    EXISTS (SELECT 1 FROM workflow_runs AS run WHERE run.id = schedule.last_run_id AND run.ended_at IS NULL)"""

# Each of the two is a range of an index. What waits for a run that has not ended is not looked at.
_DUE = f"""
    SELECT {_COLUMNS}, {_BUSY} FROM workflow_schedules AS schedule
    WHERE NOT paused AND next_at IS NOT NULL AND next_at <= $1 AND ($2 OR NOT is_cron)
    ORDER BY next_at LIMIT $3"""
_QUEUED = f"""
    SELECT {_COLUMNS}, FALSE FROM workflow_schedules AS schedule
    WHERE NOT paused AND queued_at IS NOT NULL AND ($1 OR NOT is_cron) AND NOT {_BUSY}
    ORDER BY queued_at LIMIT $2"""

_MOVE_ON = """
    UPDATE workflow_schedules
    SET next_at = $2, queued_at = $3, fired = $4, skipped = $5, last_at = COALESCE($6, last_at),
        last_run_id = COALESCE($7, last_run_id)
    WHERE id = $1"""

_STOP = "UPDATE workflow_schedules SET next_at = NULL, queued_at = NULL, error = $2 WHERE id = $1"

_NEXT = """
    SELECT
        (SELECT MIN(next_at) FROM workflow_schedules
         WHERE NOT paused AND next_at IS NOT NULL AND ($1 OR NOT is_cron)),
        EXISTS (SELECT 1 FROM workflow_schedules WHERE NOT paused AND queued_at IS NOT NULL)"""

_HAS_STARTED = "SELECT 1 FROM workflow_runs WHERE schedule_id = $1 AND scheduled_at = $2"

_QUEUED_SECONDS = 1.0
"""How often it is looked whether the run has ended for which another one waits."""


class StartedRun(NamedTuple):
    """A run that a schedule started, and the id of the bot that is to be told of it, if any is."""

    run: WorkflowRun
    bot_id: str | None


class PostgresqlSchedules(PostgresqlRunLists):
    """The schedules of a WorkflowRepository."""

    _by: str | None

    async def save_schedule(self, schedule: WorkflowSchedule) -> ScheduleStatus:
        """Insert or replace a schedule."""
        schedule = await anyio.to_thread.run_sync(checked_schedule, schedule)
        text = json_text(schedule, f"schedule {schedule.id!r}")
        new_run(scheduled_run(schedule, "", "", ""))  # raises what its runs would

        async def operation(unit: Unit) -> ScheduleStatus:
            connection, now = unit.connection, unit.now
            if schedule.bot is not None and await _bot_id(connection, schedule.bot) is None:
                raise NotFound("bot", schedule.bot)
            known = next(iter(await connection.fetch(_FIND, schedule.id)), None)
            anchor, next_at = now, None
            if known is not None:
                status = _status(known)
                if same_values(status.schedule, schedule):
                    return status
                if same_values(status.schedule.times, schedule.times):
                    anchor, next_at = known[12], status.next_at
            if next_at is None and not (known is not None and known[2]):
                next_at = await _next(schedule, anchor, now)
            if await unit.workflow(schedule.workflow_id) is None:
                raise NotFound("workflow", schedule.workflow_id)
            is_cron = isinstance(schedule.times, CronTimes)
            values = (schedule.id, schedule.workflow_id, text, is_cron, anchor, next_at, now, self._by)
            await connection.execute(_SAVE, *values)
            return await _find(connection, schedule.id)

        return await self._write(operation, settles=True)

    async def get_schedule(self, schedule_id: str) -> ScheduleStatus | None:
        """Return a schedule by id."""
        rows = await self._fetch(_FIND, schedule_id)
        return _status(rows[0]) if rows else None

    async def list_schedules(
        self, workflow_id: str | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[ScheduleStatus]:
        """List schedules by id, of one workflow or of all."""
        chosen = part(limit, offset)
        return [_status(row) for row in await self._fetch(_LIST, workflow_id, *chosen)]

    async def get_schedule_times(self, schedule_id: str, count: int = 5) -> list[str]:
        """Return the next times of a schedule."""
        if not 1 <= count <= _TIMES_MAX:
            raise InvalidValue("count", f"must be 1 to {_TIMES_MAX}, not {count}")
        row = next(iter(await self._fetch(_FIND, schedule_id)), None)
        if row is None:
            raise NotFound("schedule", schedule_id)
        times, anchor, now = _status(row).schedule.times, row[12], await self._now()
        return await anyio.to_thread.run_sync(lambda: list(islice(next_times(times, anchor, now), count)))

    async def pause_schedule(self, schedule_id: str, paused: bool = True) -> ScheduleStatus:
        """Pause a schedule, so that it starts no runs, or resume it with the next time after now."""
        check_id(schedule_id, "id of a schedule")

        async def operation(unit: Unit) -> ScheduleStatus:
            connection = unit.connection
            row = next(iter(await connection.fetch(_FIND, schedule_id)), None)
            if row is None:
                raise NotFound("schedule", schedule_id)
            status = _status(row)
            if status.paused == paused:
                return status
            next_at = None if paused else await _next(status.schedule, row[12], unit.now)
            await connection.execute(_PAUSE, schedule_id, paused, next_at)
            return await _find(connection, schedule_id)

        return await self._write(operation, settles=True)

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; its runs stay."""
        check_id(schedule_id, "id of a schedule")

        async def operation(unit: Unit) -> bool:
            sql = "DELETE FROM workflow_schedules WHERE id = $1 RETURNING id"
            return bool(await unit.connection.fetch(sql, schedule_id))

        return await self._write(operation, settles=True)


async def _bot_id(connection: asyncpg.Connection, name: str) -> str | None:
    rows = await connection.fetch("SELECT id FROM bots WHERE name = $1", name)
    return next((row[0] for row in rows), None)


async def _next(schedule: WorkflowSchedule, anchor: str, now: str) -> str | None:
    return await anyio.to_thread.run_sync(next_time, schedule.times, anchor, now)


async def _find(connection: asyncpg.Connection, schedule_id: str) -> ScheduleStatus:
    [row] = await connection.fetch(_FIND, schedule_id)
    return _status(row)


def _status(row: asyncpg.Record) -> ScheduleStatus:
    """Return the schedule of a row. Raise RecordDamaged if it is not valid."""
    try:
        return ScheduleStatus(
            id=row[0],
            schedule=msgspec.json.decode(row[1], type=WorkflowSchedule),
            paused=row[2],
            next_at=row[3],
            queued_at=row[4],
            last_at=row[5],
            last_run_id=row[6],
            fired=row[7],
            skipped=row[8],
            error=row[9],
            created_at=row[10],
            created_by=row[11],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_schedules", f"id {row[0]}") from error


# ── Starting runs ────────────────────────────────────────────────────────────────────────────────────────


async def start_due(unit: Unit, runs: Runs, runs_max: int) -> tuple[list[StartedRun], bool]:
    """Start the runs that are due; return them, and whether there may be more.

    At most `runs_max` schedules are looked at. One whose times cannot be told starts nothing any more, and has the
    error.
    """
    with_cron = can_read_cron()
    rows = await unit.connection.fetch(_QUEUED, with_cron, runs_max)
    rows += await unit.connection.fetch(_DUE, unit.now, with_cron, runs_max)
    started: list[StartedRun] = []
    seen: set[str] = set()
    for row in rows:
        if row[0] in seen:  # it was both; what is due now is looked at next time
            continue
        seen.add(row[0])
        mark = unit.mark()
        try:
            started += await _start(unit, runs, row)
        except (InvalidValue, RecordDamaged) as error:
            unit.back(mark)
            await unit.connection.execute(_STOP, row[0], str(error).replace("\0", ""))
        if len(started) >= runs_max:
            return started, True
    return started, len(rows) >= runs_max or len(seen) < len(rows)


async def _start(unit: Unit, runs: Runs, row: asyncpg.Record) -> list[StartedRun]:
    status = _status(row)
    state = ScheduleState(row[12], status.next_at, status.queued_at, status.fired, status.skipped)
    decide = partial(due_runs, status.schedule, state, now=unit.now, busy=row[13])
    due = await anyio.to_thread.run_sync(decide)
    workflow = await unit.workflow(status.schedule.workflow_id)
    if workflow is None:
        raise RecordDamaged("workflow_schedules", f"id {status.id}")
    bot_id = None if status.schedule.bot is None else await _bot_id(unit.connection, status.schedule.bot)
    started: list[StartedRun] = []
    for time in due.times:
        run = scheduled_run(status.schedule, workflow.name, unit.now, time)
        created = await _create(unit, runs, run, status, time)
        if created is not None:
            started.append(StartedRun(created, bot_id))
    last_at, last_run = (due.times[-1], started[-1].run.id) if started else (None, None)
    after = due.state
    await unit.connection.execute(
        _MOVE_ON, status.id, after.next_at, after.queued_at, after.fired, after.skipped, last_at, last_run
    )
    return started


async def _create(
    unit: Unit, runs: Runs, run: WorkflowRun, status: ScheduleStatus, time: str
) -> WorkflowRun | None:
    """Create the run of a time; return None if that has started one before, as with a schedule that was deleted."""
    if await unit.connection.fetch(_HAS_STARTED, status.id, time):
        return None
    if await unit.has_run(run.id):  # somebody else created it, and it is not to keep this one from being started
        run = msgspec.structs.replace(run, id=str(uuid.uuid4()))
    return await runs.create(unit, new_run(run), status.created_by, schedule=(status.id, time))


async def seconds_to_next(unit: Unit) -> float | None:
    """Return in how many seconds it is to be looked again; None if nothing waits for a time."""
    [[next_at, queued]] = await unit.connection.fetch(_NEXT, can_read_cron())
    waits = [_QUEUED_SECONDS] if queued else []
    if next_at is not None:
        waits.append(max(0.0, (parse_timestamp(next_at) - parse_timestamp(unit.now)).total_seconds()))
    return min(waits, default=None)


async def cron_warning(reader: Reader) -> list[str]:
    """Return what operators should know if there are cron lines that cannot be read."""
    if can_read_cron():
        return []
    [[lines]] = await reader.fetch("SELECT COUNT(*) FROM workflow_schedules WHERE is_cron")
    return [f"{lines} schedules start no runs: {CRON_MISSING}"] if lines else []
