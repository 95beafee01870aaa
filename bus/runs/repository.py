"""The workflow repository over a bot's connection: `bot.workflows`.

Owns making a call look as if the store were local: the same records, the same errors, and lists of any length,
which are read in parts if they do not fit into a frame. Unanswered calls are repeated like any other request. Each
call may be repeated; a claim carries an id for that purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import anyio
import msgspec

from ..client.caller import Caller
from ..client.ids import chosen_id
from ..client.sending import Through
from ..client.settling import Settler
from ..model.filters import RunCounts, RunFilter
from ..model.openings import OpenedRun, RunOpening
from ..model.records import (
    Claim,
    Lease,
    RunStatus,
    RunSummary,
    StepPage,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)
from ..model.values import EMITTED_BYTES_MAX, json_value
from ..wire import calls as calls
from ..wire.opening_calls import OpenRun
from .handle import RunHandle
from .opening import TIMEOUT_SECONDS, open_run
from .run import Run
from .sending import RemoteSignals
from .starting import LEASE_SECONDS, Executor, Start, find_or_create
from .timing import Crowd, Timing
from .values import exact_argument

__all__ = ["RemoteWorkflows"]

_BACKSTOP_SECONDS = 30.0
"""How often a program that waits looks at the store if the worker says nothing: it should not have to."""

_PLACE_SECONDS = 3600.0
"""How long the place of a waiting run is kept: it ends with the session, or when the program gives it up."""


class RemoteWorkflows(RemoteSignals):
    """A WorkflowRepository (`bus.model.workflows` documents each method) that a worker keeps.

    It raises what an open store does. It also raises, like every call of a bot, WorkerUnavailable and ClosedError;
    Forbidden if a run is claimed for another bot; and LimitReached if the worker has too many calls in progress.
    """

    def __init__(self, caller: Caller, settler: Settler, through: Through) -> None:
        super().__init__(caller, settler, through)
        self._backstop_seconds = _BACKSTOP_SECONDS
        self._timing = Timing()
        self._crowd = Crowd()

    def __repr__(self) -> str:
        return f"<RemoteWorkflows of {self._caller!r}>"

    def run(
        self,
        workflow: str,
        *,
        id: str | None = None,
        input: Any = None,
        context: dict[str, Any] | None = None,
        concurrency_key: str | None = None,
        attributes: dict[str, str] | None = None,
        trigger_type: str = "manual",
        trigger_payload: Any = None,
        definition: WorkflowDefinition | None = None,
        lease_seconds: float = LEASE_SECONDS,
        timeout: float | None = TIMEOUT_SECONDS,
    ) -> AbstractAsyncContextManager[Run]:
        """Hold a run of a workflow and execute it: `async with bot.workflows.run("digest", id=…) as run:`.

        `workflow` is the name of a definition, this bot's own or a global one, or its id; `definition` is saved
        first if the run is new. With an `id` the run is created, or continues where it stopped; the arguments for
        creation are ignored if it exists, but another `input` than the one in its context, under that name, raises
        Conflict. `attributes` are few short texts by which it is found (`bus.RunFilter`).

        If another program holds it, or it has no slot, this waits for at most `timeout` seconds (None: forever).

        Leaving the block completes the run, an exception fails it, and a cancellation gives it back; so does an
        error because the worker cannot be reached or a limit was reached. A completed run can be opened too: then
        everything in the block returns what is recorded, and nothing is carried out again.

        Raises UnknownWorkflow, RunBusy, RunFailed or RunCancelled when it is opened. If the run is lost to another
        program or cancelled meanwhile, the block is cancelled, and RunLost or RunCancelled is raised from it.
        """
        start = Start(
            id=id,
            input=input,
            context=context or {},
            concurrency_key=concurrency_key,
            attributes=self._through.start(attributes or {}),
            trigger_type=trigger_type,
            trigger_payload=trigger_payload,
            definition=definition,
        )
        start = start.plain(self._values, workflow)
        return open_run(self._executor(lease_seconds), workflow, start, timeout=timeout)

    async def start(
        self,
        workflow: str,
        input: Any = None,
        *,
        id: str | None = None,
        run_at: datetime | None = None,
        context: dict[str, Any] | None = None,
        concurrency_key: str | None = None,
        attributes: dict[str, str] | None = None,
        trigger_type: str = "manual",
        trigger_payload: Any = None,
        definition: WorkflowDefinition | None = None,
    ) -> RunHandle:
        """Create a run of a workflow for another program, or this one, to execute, and return a handle of it.

        When this returns, the run is on disk, pending. It begins when a program opens it (`run` with its id), and
        not before `run_at`. With an `id` this may be repeated: a run that exists is not created again. The other
        arguments are those of `run`.

        Raises UnknownWorkflow, and Conflict for an `id` that has another workflow or input.
        """
        start = Start(
            id=id,
            input=input,
            context=context or {},
            concurrency_key=concurrency_key,
            attributes=self._through.start(attributes or {}),
            trigger_type=trigger_type,
            trigger_payload=trigger_payload,
            definition=definition,
            run_at=run_at,
        )
        executor = self._executor()
        found = await find_or_create(executor, workflow, start.plain(self._values, workflow))
        return self.handle(found.run.id)

    def handle(self, run_id: str) -> RunHandle:
        """Return a handle of a run, with which its result can be waited for."""
        return RunHandle(self, run_id, self.timing, self._values)

    def _executor(self, lease_seconds: float = LEASE_SECONDS) -> Executor:
        welcome = self._caller.connection.welcome
        if welcome is None:
            raise RuntimeError("a run needs a connected bot: use it inside the bot's context")
        return Executor(
            self,
            welcome.bot_id,
            lease_seconds,
            self.timing,
            self._values,
            begin=self._begin_step,
            opens=welcome.opens_runs,
        )

    def keep_time(self, timing: Timing) -> None:
        """Use the clock of `timing` for runs, for tests in which time is moved."""
        self._timing = timing

    @property
    def timing(self) -> Timing:
        """How programs wait for what happens to runs: a worker that does not say so is asked often."""
        welcome = self._caller.connection.welcome
        timing = msgspec.structs.replace(self._timing, woken=self.woken)
        if welcome is None or not welcome.wakes:
            return timing
        backstop = self._backstop_seconds
        return msgspec.structs.replace(
            timing,
            crowd=self._crowd,
            place_seconds=_PLACE_SECONDS,
            poll_seconds=backstop,
            poll_seconds_max=backstop,
        )

    def woken(self, run_id: str) -> anyio.Event:
        """Return an event that is set when the worker says that something happens to a run.

        It says that to the bot that held the run last, if another bot does something to it, and after `watch_run`
        or a refused claim to the session that called it. The event is also set when the connection is renewed. Take
        it before you look at the run, and look from time to time as well.
        """
        return self._caller.connection.wakes.of(run_id)

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create_run(self, run: WorkflowRun, *, fence: int | None = None) -> WorkflowRun:
        """Create, or return the existing run if all fields are equal."""
        created: WorkflowRun = await self._call(calls.CreateRun(run=run, fence=fence))
        return created

    async def update_run_status(
        self,
        run_id: str,
        status: RunStatus,
        error: str | None = None,
        context: Any = None,
        *,
        fence: int | None = None,
        result: Any = None,
    ) -> WorkflowRun:
        """Move a run to a status. `error=None` clears the error, `context=None` keeps the context."""
        call = calls.UpdateRunStatus(
            run_id=run_id,
            status=status,
            error=json_value(error, f"error of run {run_id!r}"),
            context=exact_argument(context, f"context of run {run_id!r}"),
            fence=fence,
            result=exact_argument(result, f"result of run {run_id!r}"),
        )
        moved: WorkflowRun = await self._call(call)
        return moved

    async def cancel_run(
        self, run_id: str, reason: str | None = None, grace_seconds: float | None = None
    ) -> WorkflowRun:
        """Cancel a run, with its children; one whose program cleans up is asked to do that first."""
        call = calls.CancelRun(
            run_id=run_id,
            reason=json_value(reason, f"reason to cancel run {run_id!r}"),
            grace_seconds=grace_seconds,
        )
        cancelled: WorkflowRun = await self._call(call)
        return cancelled

    async def retry_run(self, run_id: str, from_step: str | None = None) -> WorkflowRun:
        """Resume a run that stopped, as if its failed steps, or those from one on, had not been carried out."""
        retried: WorkflowRun = await self._call(calls.RetryRun(run_id=run_id, from_step=from_step))
        return retried

    async def fork_run(self, run_id: str, new_id: str, before_step: str | None = None) -> WorkflowRun:
        """Create a run with the records of another one up to a step."""
        created: WorkflowRun = await self._call(
            calls.ForkRun(run_id=run_id, new_id=new_id, before_step=before_step)
        )
        return created

    async def delete_run(self, run_id: str) -> bool:
        """Delete a run that has ended. Return False if it did not exist, perhaps because the call was repeated."""
        deleted: bool = await self._call(calls.DeleteRun(run_id=run_id))
        return deleted

    async def emit_run(self, run_id: str, value: Any, *, fence: int | None = None, id: str | None = None) -> bool:
        """Publish an event with what a run's program has to say. Without an `id` the call makes one."""
        what = f"what run {run_id!r} emits"
        plain = self._values.plain(value, what, bytes_max=EMITTED_BYTES_MAX)
        told: bool = await self._call(calls.EmitRun(run_id=run_id, value=plain, fence=fence, id=chosen_id(id)))
        return told

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id."""
        found: WorkflowRun | None = await self._call(calls.GetRun(run_id=run_id))
        return found

    async def get_latest_run(self, run_id: str) -> WorkflowRun | None:
        """Return the last run as which a run continued."""
        found: WorkflowRun | None = await self._call(calls.GetLatestRun(run_id=run_id))
        return found

    async def watch_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id, and let `woken` know of its changes, until it or the session ends."""
        found: WorkflowRun | None = await self._call(calls.WatchRun(run_id=run_id))
        return found

    async def get_run_definition(self, run_id: str) -> WorkflowDefinition | None:
        """Return the definition that a run was created with."""
        found: WorkflowDefinition | None = await self._call(calls.GetRunDefinition(run_id=run_id))
        return found

    async def list_runs(
        self,
        workflow_id: str,
        limit: int | None = 50,
        *,
        offset: int = 0,
        where: RunFilter | None = None,
        after: str | None = None,
    ) -> list[WorkflowRun]:
        """List a workflow's runs, newest first: those of a filter, after the run with the id `after`."""
        call = calls.ListRuns(workflow_id=workflow_id, limit=limit, offset=offset, where=where, after=after)
        return await self._list(call)

    async def list_all_runs(
        self,
        status: RunStatus | None = None,
        limit: int | None = 50,
        *,
        offset: int = 0,
        where: RunFilter | None = None,
        after: str | None = None,
    ) -> list[RunSummary]:
        """List runs of all workflows, newest first; else like `list_runs`."""
        call = calls.ListAllRuns(status=status, limit=limit, offset=offset, where=where, after=after)
        return await self._list(call)

    async def count_runs(self, where: RunFilter | None = None) -> RunCounts:
        """Count runs by workflow and status: at most the newest hundred thousand."""
        counts: RunCounts = await self._call(calls.CountRuns(where=where))
        return counts

    async def list_open_runs(
        self,
        workflow: str,
        holder: str,
        *,
        resting: bool = False,
        run_ids: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[RunSummary]:
        """List the runs of a workflow that this bot is to open, oldest first; `holder` must be this bot.

        From then on, `woken` knows of others that it is to open.
        """
        ids = None if run_ids is None else list(run_ids)
        call = calls.ListOpenRuns(
            workflow=workflow, holder=holder, resting=resting, run_ids=ids, limit=limit, offset=offset
        )
        return await self._list(call)

    async def open_runs(
        self, workflow: str, *, resting: bool = False, run_ids: Sequence[str] | None = None
    ) -> list[RunSummary]:
        """List the runs of a workflow that this bot is to open; see `list_open_runs`."""
        welcome = self._caller.connection.welcome
        assert welcome is not None, "the bot is connected"
        return await self.list_open_runs(workflow, welcome.bot_id, resting=resting, run_ids=run_ids)

    async def list_crashed_runs(self, limit: int | None = None, *, offset: int = 0) -> list[WorkflowRun]:
        """List the runs that are `running` without a live lease, oldest first."""
        return await self._list(calls.ListCrashedRuns(limit=limit, offset=offset))

    # ── Holding a run ────────────────────────────────────────────────────────────────────────────────────

    async def open_run(self, opening: RunOpening, holder: str) -> OpenedRun:
        """Claim a run, and create it first if it does not exist; `holder` must be this bot, by name or id.

        Without a `claim_id` the call makes one, so that it can be repeated.
        """
        opening = msgspec.structs.replace(opening, claim_id=chosen_id(opening.claim_id, "claim_id"))
        opened: OpenedRun = await self._call(OpenRun(opening=opening, holder=holder))
        return opened

    async def claim_run(
        self,
        run_id: str,
        holder: str,
        lease_seconds: float | None = None,
        *,
        claim_id: str | None = None,
        place_seconds: float | None = None,
        cleans_up: bool = False,
    ) -> Claim:
        """Claim a run that nobody holds; `holder` must be this bot, by name or id.

        Without a `claim_id` the call makes one, so that it can be repeated. To call again after WorkerUnavailable,
        pass one: the same claim returns the same fence.
        """
        call = calls.ClaimRun(
            run_id=run_id,
            holder=holder,
            lease_seconds=lease_seconds,
            claim_id=chosen_id(claim_id, "claim_id"),
            place_seconds=place_seconds,
            cleans_up=cleans_up,
        )
        claimed: Claim = await self._call(call)
        return claimed

    async def leave_queue(self, run_id: str) -> None:
        """Keep no slot for a run whose claim was refused."""
        await self._call(calls.LeaveQueue(run_id=run_id))

    async def renew_run(self, run_id: str, fence: int, lease_seconds: float | None = None) -> Lease:
        """Restart the lease."""
        lease: Lease = await self._call(calls.RenewRun(run_id=run_id, fence=fence, lease_seconds=lease_seconds))
        return lease

    async def release_run(self, run_id: str, fence: int, status: RunStatus = RunStatus.PENDING) -> WorkflowRun:
        """Release a run as pending or paused.

        Fenced may also mean that the run was released, the answer lost, and the run claimed by another bot
        meanwhile.
        """
        released: WorkflowRun = await self._call(calls.ReleaseRun(run_id=run_id, fence=fence, status=status))
        return released

    async def get_lease(self, run_id: str) -> Lease | None:
        """Return the lease of a run, live or expired."""
        lease: Lease | None = await self._call(calls.GetLease(run_id=run_id))
        return lease

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def create_step_log(self, step: WorkflowStepLog, *, fence: int | None = None) -> WorkflowStepLog:
        """Create, or return the existing step log if all fields are equal."""
        input = exact_argument(step.input, f"input of step {step.step_id!r}")
        output = exact_argument(step.output, f"output of step {step.step_id!r}")
        step = msgspec.structs.replace(step, input=input, output=output)
        created: WorkflowStepLog = await self._call(calls.CreateStepLog(step=step, fence=fence))
        return created

    def _begin_step(self, step: WorkflowStepLog, fence: int) -> Callable[[], bool] | None:
        """Send a call of `create_step_log`, whose answer nobody waits for; see `_call_later`."""
        return self._call_later(calls.CreateStepLog(step=step, fence=fence))

    async def update_step_status(
        self,
        step_id: str,
        status: StepStatus,
        output: Any = None,
        error: str | None = None,
        *,
        fence: int | None = None,
    ) -> WorkflowStepLog:
        """Move a step log, identified by its own id, to a status. None keeps output and error.

        Without a fence it may be an answer: a program of this bot that waits for it checks at once.
        """
        call = calls.UpdateStepStatus(
            step_id=step_id,
            status=status,
            output=exact_argument(output, f"output of step {step_id!r}"),
            error=json_value(error, f"error of step {step_id!r}"),
            fence=fence,
        )
        moved: WorkflowStepLog = await self._call(call)
        if fence is None:
            self._caller.connection.wakes.wake([moved.run_id])
        return moved

    async def get_step_log(self, step_id: str) -> WorkflowStepLog | None:
        """Return a step log by its own id."""
        found: WorkflowStepLog | None = await self._call(calls.GetStepLog(step_id=step_id))
        return found

    async def list_step_logs(
        self, run_id: str, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List a run's step logs in the order in which they began."""
        if limit is None and offset == 0:
            page = await self.page_step_logs(run_id)
            found = list(page.steps)
            while page.more:
                page = await self.page_step_logs(run_id, page.steps[-1].id)
                found += page.steps
            return found
        return await self._list(calls.ListStepLogs(run_id=run_id, limit=limit, offset=offset))

    async def page_step_logs(self, run_id: str, after: str | None = None) -> StepPage:
        """Return a run's step logs after the one with the id `after`, as many as fit into a frame, at least one."""
        page: StepPage = await self._call(calls.PageStepLogs(run_id=run_id, after=after))
        return page

    async def get_completed_step_ids(self, run_id: str) -> list[str]:
        """List the ids of completed steps, in the order they began, each once, without skipped ones."""
        found: list[str] = await self._call(calls.GetCompletedStepIds(run_id=run_id))
        return found

    async def list_waiting_approvals(
        self, run_id: str | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List the step logs that wait for an approval, oldest first."""
        return await self._list(calls.ListWaitingApprovals(run_id=run_id, limit=limit, offset=offset))
