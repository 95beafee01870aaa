"""Commits: a run's progress and its outgoing messages in one transaction, once; and notices of runs.

Owns the record of carried out commits, and that each is carried out as a whole or not at all, whatever else the
transaction contains. `runs` and `steps` change runs and steps, and `arrivals` adds messages.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from functools import partial

import aiosqlite
import msgspec

from bus.errors import Conflict, NotFound, RecordDamaged, Refused
from bus.model.budgeting import first_spent
from bus.model.checked import new_run, new_signal, new_step
from bus.model.leases import HoldState
from bus.model.records import (
    CONTINUED,
    NewSignal,
    WorkflowRun,
    WorkflowStepLog,
    parse_timestamp,
)
from bus.model.repository import (
    Committed,
    CommitWork,
    LogMessage,
    NewMessage,
    NotCommitted,
    Recovered,
    RecoverRuns,
    Started,
    StartScheduled,
    StepMove,
    each,
    lots_of,
)
from bus.model.run_events import crashed_notice, start_notice

from ..message_rows import in_log
from ..subscriptions import subscribe_all
from .file.statements import statements_on
from .file.writer import Transaction
from .keyed import SqliteKeyed
from .messages.arrivals import Arrivals
from .messages.conversations import Conversations
from .workflows.cancelling import cancel_more, expire_cancels, more_to_cancel, next_cancel_by
from .workflows.continuing import continue_run, refuse_taken
from .workflows.run_rows import find_owners, find_workflow
from .workflows.schedules import seconds_to_next, start_due
from .workflows.workflows import SqliteWorkflows

__all__ = ["Commits"]

_FIND = "SELECT bot_id, digest, seqs FROM workflow_commits WHERE id = ?"

_INSERT = "INSERT INTO workflow_commits (id, bot_id, run_id, digest, seqs, committed_at) VALUES (?, ?, ?, ?, ?, ?)"


class _TaintedError(Exception):
    """A message of a commit is tainted, and must not be: nothing of the commit is stored."""


class Commits:
    """See the module. Each method is part of its caller's transaction."""

    def __init__(
        self, arrivals: Arrivals, conversations: Conversations, workflows: SqliteWorkflows, keyed: SqliteKeyed
    ) -> None:
        self._arrivals = arrivals
        self._conversations = conversations
        self._keyed = keyed
        self._runs = workflows.runs
        self._steps = workflows.steps
        self._retrying = workflows.retrying
        self._signals = workflows.signals
        # The runs' own clocks, independent of the timestamps of the log's messages.
        self._now, self._lease_now = workflows.now, workflows.lease_now

    def __repr__(self) -> str:
        return f"<Commits {self._runs}>"

    async def carry_out(self, transaction: Transaction, work: CommitWork) -> Committed | NotCommitted | None:
        """Carry out a commit, or return its earlier answer; None if it is unknown and was only to be looked up."""
        connection = transaction.connection
        for bot_id, digest, seqs in () if work.id is None else await connection.execute_fetchall(_FIND, (work.id,)):
            if (bot_id, digest) != (work.bot_id, work.digest):
                return NotCommitted(Conflict(f"commit {work.id!r} was carried out before with other contents"))
            return Committed(msgspec.json.decode(seqs, type=list[int | None]))
        if work.known_only:
            return None
        try:
            async with transaction.savepoint():
                return await self._carry_out(transaction, work)
        except _TaintedError:
            return NotCommitted(None)
        except (Refused, RecordDamaged) as error:
            return NotCommitted(error)

    async def _carry_out(self, transaction: Transaction, work: CommitWork) -> Committed:
        connection = transaction.connection
        hold: HoldState | None = None
        if work.run_id is not None and work.fence is not None:
            hold = await self._runs.checkpoint(connection, work, self._now(), lease_now=self._lease_now())
        for step in work.steps:
            await self._record(transaction, step, work)
        for run in work.runs:
            await self._start(connection, run, work, hold)
        for signal in work.signals:
            await self._signal(connection, signal, work)
        revisions: Sequence[int] = ()
        if work.values:
            revisions = await connection.run(partial(self._keyed.write_whole, work.values))
        for channel in work.channels:
            await connection.execute(
                "INSERT OR IGNORE INTO bot_channels (name, created_at, created_by_bot_id) VALUES (?, ?, ?)",
                (channel.name, channel.created_at, channel.created_by_bot_id),
            )
        await subscribe_all(statements_on(connection), work.subscriptions, last_seq=transaction.last_seq)
        added = await self._arrivals.add(transaction, work.lots, work.timestamp)
        outcomes = [one for lot, outcome in zip(work.lots, added, strict=True) for one in each(lot, outcome)]
        if any(one.forbidden for one in outcomes):
            raise _TaintedError
        if (spent := first_spent(work.lots, added)) is not None:
            raise spent
        seqs = [one.seq for one in outcomes]
        await self._conversations.open(connection, work.lots, work.timestamp)
        await self._keyed.retain(transaction, work.lots, added, work.timestamp)
        if work.id is not None:
            written = msgspec.json.encode(seqs).decode()
            row = (work.id, work.bot_id, work.run_id, work.digest, written, work.timestamp)
            await connection.execute(_INSERT, row)
        return Committed(seqs, added, revisions)

    async def _record(self, transaction: Transaction, step: WorkflowStepLog, work: CommitWork) -> None:
        """Write a step log as given: create it if it does not exist, otherwise move it to its status."""
        connection = transaction.connection
        rows = await connection.execute_fetchall("SELECT run_id FROM workflow_steps WHERE id = ?", (step.id,))
        for (run_id,) in rows:
            if run_id != step.run_id:
                raise Conflict(f"step {step.id!r} belongs to run {run_id!r}")
            move = StepMove(
                step.id, step.status, step.output, step.error, work.fence, answers=False if work.as_holder else None
            )
            await self._steps.write(transaction, move, self._now())
            return
        new = new_step(step, fence=work.fence, output_bytes_max=self._runs.rules.output_bytes_max)
        self._runs.check_size(new.step, f"step {step.step_id!r}", new.output_text)
        await self._steps.write(transaction, new, self._now())

    async def _start(
        self, connection: aiosqlite.Connection, run: WorkflowRun, work: CommitWork, hold: HoldState | None
    ) -> None:
        """Create a run for the run of the commit, which had this hold."""
        if work.rights is not None:
            workflow = await find_workflow(connection, run.workflow_id)
            if workflow is None or workflow[0] != run.workflow_name:
                raise NotFound("workflow", run.workflow_id)
            refused = work.rights.refuse_run(*workflow)
            if refused is not None:
                raise refused
        new = new_run(run)
        self._runs.check_size(new.run, f"run {run.id!r}")
        continues = work.run_id if run.trigger_type == CONTINUED else None
        if continues is not None:
            await refuse_taken(connection, continues, run.id)
        await self._runs.create(connection, new, work.bot_id if work.as_holder else None, fence=work.fence)
        if continues is not None:
            await continue_run(connection, continues, run.id)
            await self._signals.pass_on(connection, continues, run.id)
            if hold is not None and hold.cancel_by is not None:  # it ended before its program was told
                request = self._runs.cancel_request(
                    hold.cancel_reason, None, now=self._now(), lease_now=self._lease_now()
                )
                await self._runs.cancel(connection, run.id, request)

    async def _signal(self, connection: aiosqlite.Connection, signal: NewSignal, work: CommitWork) -> None:
        if work.rights is not None:
            owners = (await find_owners(connection, [signal.run_id])).get(signal.run_id)
            refused = NotFound("run", signal.run_id) if owners is None else work.rights.refuse_signal(owners)
            if refused is not None:
                raise refused
        await self._signals.send(connection, new_signal(signal), work.sender, self._now())

    async def retry_runs(self, transaction: Transaction, mailbox_id: str, seqs: Iterable[int]) -> None:
        """Resume the runs that messages of a mailbox began, if they stopped because of an error."""
        await self._retrying.retry_of_messages(
            transaction.connection, mailbox_id, seqs, now=self._now(), lease_now=self._lease_now()
        )

    async def recover(self, transaction: Transaction, change: RecoverRuns) -> Recovered:
        """End the holds of runs whose lease has expired, and add a message for each last holder to the log.

        Before that, cancel the runs whose programs had their time to clean up, and some of those that are to be
        cancelled with others.
        """
        connection, now, lease_now = transaction.connection, self._now(), self._lease_now()
        cancelled = await expire_cancels(self._runs, connection, change.runs_max, now=now, lease_now=lease_now)
        cancelled += await cancel_more(self._runs, connection, now=now, lease_now=lease_now)
        found = await self._runs.recover(connection, change.runs_max, now=now, lease_now=lease_now)
        rows = await connection.execute_fetchall("SELECT id FROM bots") if found else ()
        bots = {row[0] for row in rows}
        messages = [
            crashed_notice(recovered, change, str(uuid.uuid4())) for recovered in found if recovered.holder in bots
        ]
        due, until, left = await self._runs.due(connection, change.due_after, now, change.due_max)
        cancel_by = await next_cancel_by(connection, lease_now)
        if cancel_by is not None:
            seconds = (parse_timestamp(cancel_by) - parse_timestamp(lease_now)).total_seconds()
            left = seconds if left is None else min(left, seconds)
        sent = await self._send(transaction, messages, change.timestamp)
        return Recovered(found, sent, due, until, left, cancelled, more=await more_to_cancel(connection))

    async def start(self, transaction: Transaction, change: StartScheduled) -> Started:
        """Start the runs of schedules that are due, and add messages for the bots that are to open them."""
        connection, now = transaction.connection, self._now()
        started, more = await start_due(connection, self._runs, now, change.runs_max)
        messages = [
            start_notice(each.run, each.bot_id, change, str(uuid.uuid4()))
            for each in started
            if each.bot_id is not None
        ]
        sent = await self._send(transaction, messages, change.timestamp) if messages else []
        return Started([each.run.id for each in started], sent, await seconds_to_next(connection, now), more)

    async def _send(
        self, transaction: Transaction, messages: Sequence[NewMessage], timestamp: str
    ) -> list[LogMessage]:
        """Add messages of the worker to the log; return them as they are there."""
        first = transaction.last_seq + 1
        lots = lots_of(messages)
        added = await self._arrivals.add(transaction, lots, timestamp)
        await self._conversations.open(transaction.connection, lots, timestamp)
        seqs = [one.seq for lot, outcome in zip(lots, added, strict=True) for one in each(lot, outcome)]
        assert seqs == list(range(first, first + len(messages))), "their ids are new"
        return [in_log(message, seq, timestamp) for seq, message in enumerate(messages, first)]
