"""Commits in PostgreSQL: a run's progress and its outgoing messages in one transaction, once; and notices of runs.

Owns the record of carried out commits, and that each is carried out as a whole or not at all, whatever else the
transaction contains. Commits that follow each other in a batch share a unit of work, and what they send is added to
the log at once. `workflows` changes runs and steps, and `arrivals` adds messages.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

import msgspec

from bus.errors import BudgetSpent, Conflict, NotFound, RecordDamaged, Refused
from bus.model.budgeting import first_spent
from bus.model.checked import new_run, new_signal, new_step
from bus.model.leases import HoldState
from bus.model.records import CONTINUED, NewSignal, RunStatus, WorkflowRun, WorkflowStepLog
from bus.model.repository import (
    Committed,
    CommitWork,
    LogMessage,
    NewMessage,
    NotCommitted,
    Recovered,
    RecoverRuns,
    RemoveRuns,
    RunSurvey,
    Started,
    StartScheduled,
    StepMove,
    SurveyedRuns,
    each,
    lots_of,
)
from bus.model.run_events import crashed_notice, start_notice
from bus.model.values import check_texts

from ..message_rows import in_log
from ..subscriptions import subscribe_all
from .keyed import PostgresqlKeyed, flush
from .messages.arrivals import Arrivals
from .messages.conversations import Conversations
from .server.reader import Reader
from .server.statements import statements_on
from .server.writer import Transaction
from .workflows.cancelling import cancel_more, more_to_cancel
from .workflows.keeping import remove_runs, survey_runs
from .workflows.recovering import expire_cancels, find_due, recover, seconds_to_next_cancel
from .workflows.schedules import seconds_to_next, start_due
from .workflows.unit import Needs, Unit
from .workflows.workflows import PostgresqlWorkflows

__all__ = ["Commits"]

_FIND = "SELECT id, bot_id, digest, seqs FROM workflow_commits WHERE id = ANY($1::text[])"

_INSERT = """
    INSERT INTO workflow_commits (id, bot_id, run_id, digest, seqs, committed_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])"""

_ADD_CHANNELS = """
    INSERT INTO bot_channels (name, created_at, created_by_bot_id)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING"""

_KNOWN_BOTS = "SELECT id FROM bots WHERE id = ANY($1::text[])"

CommitOutcome = Committed | NotCommitted | None


class _TaintedError(Exception):
    """A message is tainted, and must not be: nothing of its commit may be stored."""


class Commits:
    """See the module. Each method is part of its caller's transaction."""

    def __init__(
        self,
        arrivals: Arrivals,
        conversations: Conversations,
        workflows: PostgresqlWorkflows,
        keyed: PostgresqlKeyed,
    ) -> None:
        self._arrivals = arrivals
        self._conversations = conversations
        self._workflows = workflows
        self._keyed = keyed
        self._runs = workflows.runs
        self._steps = workflows.steps
        self._retrying = workflows.retrying
        self._signals = workflows.signals

    def __repr__(self) -> str:
        return f"<Commits {self._runs}>"

    async def carry_out_all(self, transaction: Transaction, works: Sequence[CommitWork]) -> list[CommitOutcome]:
        """Carry out commits that follow each other, or return their earlier answers.

        The answer is None if a commit is unknown and was only to be looked up. If a message turns out to be tainted
        that must not be, or nothing is left of its thread's budget, they are carried out again one by one, without
        its commit.
        """
        answers: list[CommitOutcome] = []
        for portion in _portions(works):
            lots = [lot for work in portion for lot in work.lots]
            if not any(lot.untainted_only for lot in lots) and self._arrivals.budgets.are_counted(lots):
                answers += await self._carry_out(transaction, portion)
                continue
            try:
                async with transaction.savepoint():
                    answers += await self._carry_out(transaction, portion)
            except (_TaintedError, BudgetSpent):
                answers += [await self._carry_out_alone(transaction, work) for work in portion]
        return answers

    async def _carry_out_alone(self, transaction: Transaction, work: CommitWork) -> CommitOutcome:
        try:
            async with transaction.savepoint():
                [answer] = await self._carry_out(transaction, [work])
                return answer
        except _TaintedError:
            return NotCommitted(None)
        except BudgetSpent as spent:
            return NotCommitted(spent)

    async def _carry_out(self, transaction: Transaction, works: Sequence[CommitWork]) -> list[CommitOutcome]:
        ids = [work.id for work in works if work.id is not None]
        known = {row[0]: row[1:] for row in await transaction.connection.fetch(_FIND, ids)} if ids else {}
        answers: list[CommitOutcome] = [
            _repeated(work, *known[work.id]) if work.id in known else None for work in works
        ]
        places = [at for at, work in enumerate(works) if work.id not in known and not work.known_only]
        if places:
            new = [works[at] for at in places]
            unit = self._workflows.unit(transaction)
            await unit.load(map(_needs, new))
            values = [value for work in new for value in work.values]
            keyed = await self._keyed.unit(transaction, values) if values else None
            accepted: dict[int, Sequence[int]] = {}
            for at, work in zip(places, new, strict=True):
                if work.status is RunStatus.CANCELLED:  # its children are cancelled, too
                    await self._workflows.flush(unit)
                mark = unit.mark()
                try:
                    await self._change_runs(unit, work)
                    accepted[at] = () if keyed is None else keyed.write_whole(work.values)
                except (Refused, RecordDamaged) as error:
                    unit.back(mark)
                    answers[at] = NotCommitted(error)
            await self._workflows.flush(unit)
            if keyed is not None:
                await flush(transaction.connection, keyed)
            sent = await self._send_all(transaction, [works[at] for at in accepted])
            for (at, revisions), one in zip(accepted.items(), sent, strict=True):
                answers[at] = msgspec.structs.replace(one, revisions=revisions) if revisions else one
        return answers

    async def _change_runs(self, unit: Unit, work: CommitWork) -> None:
        check_texts((work.id, work.bot_id, work.run_id, work.digest), f"commit {work.id!r}")
        hold: HoldState | None = None
        if work.run_id is not None and work.fence is not None:
            hold = await self._runs.checkpoint(unit, work)
        for step in work.steps:
            await self._record(unit, step, work)
        for run in work.runs:
            await self._start(unit, run, work, hold)
        for signal in work.signals:
            await self._signal(unit, signal, work)

    async def _send_all(self, transaction: Transaction, works: Sequence[CommitWork]) -> list[Committed]:
        """Store what commits send, and that they were carried out. Raise _TaintedError or BudgetSpent."""
        if not works:
            return []
        connection, timestamp = transaction.connection, works[0].timestamp
        channels = [(one.name, one.created_at, one.created_by_bot_id) for work in works for one in work.channels]
        if channels:
            await connection.execute(_ADD_CHANNELS, *map(list, zip(*channels, strict=True)))
        subscriptions = (one for work in works for one in work.subscriptions)
        await subscribe_all(statements_on(connection), subscriptions, last_seq=transaction.last_seq)
        lots = [lot for work in works for lot in work.lots]
        added = await self._arrivals.add(transaction, lots, timestamp) if lots else []
        if any(one.forbidden for lot, outcome in zip(lots, added, strict=True) for one in each(lot, outcome)):
            raise _TaintedError
        if (spent := first_spent(lots, added)) is not None:
            raise spent
        if lots:
            await self._conversations.open(connection, lots, timestamp)
            await self._keyed.retain(transaction, lots, added, timestamp)
        outcomes = iter(added)
        answers: list[Committed] = []
        rows: list[tuple[str | None, ...]] = []
        for work in works:
            mine = [next(outcomes) for _ in work.lots]
            seqs = [one.seq for lot, outcome in zip(work.lots, mine, strict=True) for one in each(lot, outcome)]
            answers.append(Committed(seqs, mine))
            if work.id is not None:
                written = msgspec.json.encode(seqs).decode()
                rows.append((work.id, work.bot_id, work.run_id, work.digest, written, work.timestamp))
        if rows:
            await connection.execute(_INSERT, *map(list, zip(*rows, strict=True)))
        return answers

    async def _record(self, unit: Unit, step: WorkflowStepLog, work: CommitWork) -> None:
        """Write a step log as given: create it if it does not exist, otherwise move it to its status."""
        stored = await unit.step(step.id, step.run_id)
        if stored is not None:
            if stored.run_id != step.run_id:
                raise Conflict(f"step {step.id!r} belongs to run {stored.run_id!r}")
            move = StepMove(
                step.id, step.status, step.output, step.error, work.fence, answers=False if work.as_holder else None
            )
            await self._steps.write(unit, move)
            return
        new = new_step(step, fence=work.fence, output_bytes_max=self._runs.rules.output_bytes_max)
        self._runs.check_size(new.step, f"step {step.step_id!r}", new.output_text)
        await self._steps.write(unit, new)

    async def _start(self, unit: Unit, run: WorkflowRun, work: CommitWork, hold: HoldState | None) -> None:
        """Create a run for the run of the commit, which had this hold."""
        if work.rights is not None:
            workflow = await unit.workflow(run.workflow_id)
            if workflow is None or workflow.name != run.workflow_name:
                raise NotFound("workflow", run.workflow_id)
            refused = work.rights.refuse_run(workflow.name, workflow.owner)
            if refused is not None:
                raise refused
        new = new_run(run)
        self._runs.check_size(new.run, f"run {run.id!r}")
        if run.trigger_type != CONTINUED or work.run_id is None:
            await self._runs.create(unit, new, work.bot_id if work.as_holder else None, fence=work.fence)
            return
        await self._runs.continue_as(unit, work.run_id, new, work)
        if hold is not None and hold.cancel_by is not None:  # it ended before its program was told
            await self._runs.cancel(unit, run.id, self._runs.cancel_request(unit, hold.cancel_reason, None))

    async def _signal(self, unit: Unit, signal: NewSignal, work: CommitWork) -> None:
        if work.rights is not None:
            owners = await unit.owners(signal.run_id)
            refused = NotFound("run", signal.run_id) if owners is None else work.rights.refuse_signal(owners)
            if refused is not None:
                raise refused
        await self._signals.send(unit, new_signal(signal), work.sender)

    # ── What the worker itself does ──────────────────────────────────────────────────────────────────────

    async def retry_runs(self, transaction: Transaction, mailbox_id: str, seqs: Iterable[int]) -> None:
        """Resume the runs that messages of a mailbox began, if they stopped because of an error."""
        unit = self._workflows.unit(transaction)
        await self._retrying.retry_of_messages(unit, mailbox_id, seqs)
        await self._workflows.flush(unit)

    async def recover(self, transaction: Transaction, change: RecoverRuns) -> Recovered:
        """End the holds of runs whose lease has expired, and add a message for each last holder to the log.

        Before that, cancel the runs whose programs had their time to clean up, and some of those that are to be
        cancelled with others.
        """
        unit = self._workflows.unit(transaction)
        cancelled = await expire_cancels(unit, self._runs, change.runs_max)
        await self._workflows.flush(unit)
        cancelled += await cancel_more(unit, self._runs)
        found = await recover(unit, self._runs, change.runs_max)
        due, until, due_left = await find_due(unit, change.due_after, change.due_max)
        left = [seconds for seconds in (due_left, await seconds_to_next_cancel(unit)) if seconds is not None]
        await self._workflows.flush(unit)
        holders = [one.holder for one in found if one.holder is not None]
        rows = await unit.connection.fetch(_KNOWN_BOTS, holders) if holders else ()
        bots = {row[0] for row in rows}
        messages = [crashed_notice(one, change, str(uuid.uuid4())) for one in found if one.holder in bots]
        sent = await self._send(transaction, messages, change.timestamp)
        more = await more_to_cancel(unit.connection)
        return Recovered(found, sent, due, until, min(left, default=None), cancelled, more=more)

    async def start(self, transaction: Transaction, change: StartScheduled) -> Started:
        """Start the runs of schedules that are due, and add messages for the bots that are to open them."""
        unit = self._workflows.unit(transaction)
        started, more = await start_due(unit, self._runs, change.runs_max)
        await self._workflows.flush(unit)
        messages = [
            start_notice(run, bot_id, change, str(uuid.uuid4())) for run, bot_id in started if bot_id is not None
        ]
        sent = await self._send(transaction, messages, change.timestamp)
        return Started([one.run.id for one in started], sent, await seconds_to_next(unit), more)

    async def remove(self, transaction: Transaction, change: RemoveRuns) -> int:
        """Remove runs that have ended."""
        return await remove_runs(transaction.connection, change)

    async def survey(self, reader: Reader, survey: RunSurvey) -> SurveyedRuns:
        """Return runs that have ended, in the order in which they did."""
        return await survey_runs(reader, survey)

    async def _send(
        self, transaction: Transaction, messages: Sequence[NewMessage], timestamp: str
    ) -> list[LogMessage]:
        """Add messages of the worker to the log; return them as they are there."""
        if not messages:
            return []
        first = transaction.last_seq + 1
        lots = lots_of(messages)
        added = await self._arrivals.add(transaction, lots, timestamp)
        await self._conversations.open(transaction.connection, lots, timestamp)
        seqs = [one.seq for lot, outcome in zip(lots, added, strict=True) for one in each(lot, outcome)]
        assert seqs == list(range(first, first + len(messages))), "their ids are new"
        return [in_log(message, seq, timestamp) for seq, message in enumerate(messages, first)]


def _needs(work: CommitWork) -> Needs:
    writes_run = not (work.status is None and work.context is None and work.result is None)
    own = () if work.run_id is None else (work.run_id,)
    return Needs(
        runs=(*own, *(run.parent_run_id for run in work.runs if run.parent_run_id is not None)),
        records=(
            *(own if writes_run else ()),
            *(run.id for run in work.runs),
            *(signal.run_id for signal in work.signals),
        ),
        steps=tuple((step.id, step.run_id) for step in work.steps),
        workflows=tuple(run.workflow_id for run in work.runs),
    )


def _repeated(work: CommitWork, bot_id: str, digest: str, seqs: str) -> CommitOutcome:
    """Return the answer to a commit that was carried out before."""
    if (bot_id, digest) != (work.bot_id, work.digest):
        return NotCommitted(Conflict(f"commit {work.id!r} was carried out before with other contents"))
    return Committed(msgspec.json.decode(seqs, type=list[int | None]))


def _portions(works: Sequence[CommitWork]) -> Iterable[list[CommitWork]]:
    """Yield commits that are carried out together: none is another one's repetition, and their time is the same."""
    portion: list[CommitWork] = []
    ids: set[str] = set()
    for work in works:
        if portion and (work.id in ids or work.timestamp != portion[0].timestamp):
            yield portion
            portion, ids = [], set()
        portion.append(work)
        if work.id is not None:
            ids.add(work.id)
    yield portion
