"""What a store of workflows can do, and its rules.

Owns the protocol for bots over a connection and for local users of an open store (`WorkflowRepository`), and what
only the worker beside the store uses (`WorkflowStore`). All methods may wait; all raise `bus.errors`. Nothing here
knows SQL.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from ..errors import StoreError
from .filters import RunCounts, RunFilter
from .openings import OpenedRun, RunOpener, RunOpening
from .owners import CommitRights, RunOwners
from .records import (
    Claim,
    Lease,
    Owner,
    RecoveredRun,
    RunStatus,
    RunSummary,
    Signal,
    StepPage,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)
from .schedules import ScheduleRepository
from .values import OUTPUT_BYTES_MAX

__all__ = [
    "CommitRights",
    "RunNews",
    "RunOwners",
    "StepCreation",
    "StepMove",
    "WorkflowRepository",
    "WorkflowRules",
    "WorkflowStore",
]


class WorkflowRules(msgspec.Struct, frozen=True):
    """A store's rules for workflows; a worker takes them from its configuration."""

    lease_seconds: float = 15.0
    """The lease of a claim or a renewal that specifies none."""

    lease_seconds_max: float = 3600.0
    """The longest lease: how long a dead holder keeps its run."""

    cancel_seconds: float = 60.0
    """How long the program of a run that is to be cancelled may clean up, unless the cancelling says otherwise."""

    recoveries_max: int = 5
    """How often a run may be found without a live holder before only a person can resume it."""

    output_bytes_max: int = OUTPUT_BYTES_MAX
    """The maximum size of a step's output as JSON."""

    signals_max: int = 1000
    """How many signals may wait for one run."""

    record_bytes_max: int | None = None
    """The maximum size of a definition, run or step log as JSON, if it is sent to its readers. None: no limit."""


class StepCreation(msgspec.Struct, frozen=True):
    """The arguments of `create_step_log`, as read back from JSON; with `by`, the fence must be that bot's."""

    step: WorkflowStepLog
    fence: int | None = None
    by: str | None = None


class StepMove(msgspec.Struct, frozen=True):
    """The arguments of `update_step_status`, as read back from JSON; with `by`, the fence must be that bot's.

    `answers` says whether the writer may answer what waits for an approval: if it is false, such a step may only
    fail, without an output; if it is true, nothing else is changed. None: it may do both.
    """

    step_id: str
    status: StepStatus
    output: Any = None
    error: str | None = None
    fence: int | None = None
    by: str | None = None
    answers: bool | None = None


class RunNews(msgspec.Struct, frozen=True):
    """What is to be known of a run that changed, to tell who waits for it.

    `next_runs` are the runs that wait for the slots it shares and have one now, in their order.
    """

    run_id: str
    ended: bool
    last_holder: str | None
    next_runs: tuple[str, ...] = ()
    is_open: bool = False
    """Whether it is to be opened by a program: it is pending or crashed."""
    workflow: tuple[str, ...] = ()
    """The id and the name of its workflow."""
    owner: str | None = None
    """The bot that owns its workflow; None for a global one."""


class WorkflowRepository(RunOpener, ScheduleRepository, Protocol):
    """Definitions, runs and steps: what an executor needs to survive a crash (docs/workflows-reference.md).

    Every write is on disk when its call returns, and may be repeated if its answer was lost. Updating what does not
    exist raises NotFound, a status that cannot follow raises InvalidTransition, and an input or output over 1 MiB
    or a context over 10 MiB raises TooLarge. A write with a `fence` that is no longer the run's raises Fenced and
    changes nothing. A run that stops running, by any write, is no longer held; a write without a fence that ends a
    hold increases the run's fence.

    Lists return at most `limit` records (None: all), skipping the first `offset`.
    """

    @property
    def output_bytes_max(self) -> int:
        """The maximum size of a step's output as JSON, in bytes."""

    # ── Definitions ──────────────────────────────────────────────────────────────────────────────────────

    async def save_definition(self, definition: WorkflowDefinition) -> None:
        """Insert or replace by id. Raise Conflict if its name and owner belong to another id.

        Raise InvalidValue if the definition contradicts itself: duplicate step ids, dependencies that are not steps
        or form a cycle, a config tagged with another type than its step's, a limit below 1.
        """

    async def offer_definition(self, definition: WorkflowDefinition) -> WorkflowDefinition:
        """Save a definition unless a newer one with its id is stored, and return the one that counts.

        One is newer if its version is, or if it once replaced what is offered. So of two programs with different
        definitions of one version, the one that came later prevails, however often both offer theirs. Else like
        `save_definition`, which replaces whatever is stored.
        """

    async def get_definition(self, definition_id: str) -> WorkflowDefinition | None:
        """Return a definition by id."""

    async def get_definition_by_name(self, name: str, owner: Owner) -> WorkflowDefinition | None:
        """Return a definition by name and owner."""

    async def list_definitions(
        self, owner: Owner | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowDefinition]:
        """List by name, owner, id; `None` lists those of all owners."""

    async def delete_definition(self, definition_id: str, *, cascade: bool = False) -> bool:
        """Delete; return False if it did not exist. Raise DefinitionInUse if it has runs, unless `cascade`."""

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create_run(self, run: WorkflowRun, *, fence: int | None = None) -> WorkflowRun:
        """Create, or return the existing run if all fields are equal; otherwise raise Conflict.

        The run keeps the definition as it is at this moment. With `not_before`, a time, nobody can claim it
        earlier. With a `fence`, that of the run `parent_run_id`, it is created for that run by its holder, which
        may repeat the call: it returns what has become of the run, if that is of the same workflow. Raises
        NotFound if there is no such parent.
        """

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
        """Move a run to a status. `error=None` clears the error, `context=None` keeps the context.

        A run that becomes completed may get a `result`, which has at most 1 MiB. Making a crashed run pending or
        paused without a fence means that a person resumed it, and resets its recoveries.
        """

    async def cancel_run(
        self, run_id: str, reason: str | None = None, grace_seconds: float | None = None
    ) -> WorkflowRun:
        """Cancel a run, with its children, and return it. `reason` becomes its error.

        If the program that claimed it last cleans up, and the run has not ended, it is not cancelled at once:
        `cancel_by` says until when the program may clean up (`grace_seconds` from now; None: the store's default;
        0: cancel at once). The run is cancelled when the program says so, at the latest then. Otherwise it is
        cancelled now. So are its children, and theirs, by the same rule: many of them in portions, between which
        others write. If a crash interrupts that, the next worker goes on. Steps of a run that becomes cancelled are
        closed: failed, "cancelled".

        Repeating the call changes nothing, except that a shorter time counts. Raises InvalidTransition if the run
        has completed or failed.
        """

    async def retry_run(self, run_id: str, from_step: str | None = None) -> WorkflowRun:
        """Let a run go on that failed, crashed or is paused: it becomes pending, and its error is cleared.

        If an error stopped it, the failed attempts of the steps that ended it are set aside; if a person or a crash
        did, nothing is, because its program may have gone on after a failure. With `from_step`, the records of that
        step and of all that began after it are set aside. A record that is set aside keeps everything but its step
        id, which gets the end `#set-aside`; a question is not asked any more. The context stays as it is, and the
        count of lost holders is reset. Repeating the call changes nothing.

        Raises RunHeld while a lease is live, InvalidTransition for a run that was completed or cancelled, and
        NotFound for a step without a record.
        """

    async def fork_run(self, run_id: str, new_id: str, before_step: str | None = None) -> WorkflowRun:
        """Create a pending run with the definition, context and records of another one, whatever its status.

        It begins with copies of the records that ended and began before the first of `before_step`; without a step,
        of all but those that a retry would set aside. Repeating the call returns the same run. Raises Conflict if
        `new_id` is another run, and NotFound for a run or a step without a record.
        """

    async def delete_run(self, run_id: str) -> bool:
        """Delete a run that has ended, with its step logs and commits; return False if it does not exist.

        Raises Conflict for a run that has not ended. Afterwards its id means a new run: so do not delete one whose
        message may be delivered again.
        """

    async def emit_run(self, run_id: str, value: Any, *, fence: int | None = None, id: str | None = None) -> bool:
        """Publish an event with what a run's program has to say, for instance how far it is.

        Return False if nobody is told, and nothing was written. A value has at most 16 KiB. With an `id` the call
        may be repeated: it is told once. Raises NotFound, Fenced, InvalidValue or TooLarge.
        """

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id."""

    async def get_latest_run(self, run_id: str) -> WorkflowRun | None:
        """Return the last run as which a run continued: itself, if it did not, or if its successor was deleted.

        A chain is followed for a thousand runs: if what is returned has continued, ask again from there.
        """

    async def watch_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id. Over a connection, the worker then says when something happens to it.

        That is said until the run or the session ends, and is a hint: call again then, and also from time to time.
        """

    async def get_run_definition(self, run_id: str) -> WorkflowDefinition | None:
        """Return the definition that a run was created with, or None if the run does not exist or has none."""

    async def list_runs(
        self,
        workflow_id: str,
        limit: int | None = 50,
        *,
        offset: int = 0,
        where: RunFilter | None = None,
        after: str | None = None,
    ) -> list[WorkflowRun]:
        """List a workflow's runs, newest first: those of a filter, after the run with the id `after`.

        Going on after the last of each list reads any number of runs in a time that grows with it. Raises NotFound
        if the run `after` does not exist any more; then begin again.
        """

    async def list_all_runs(
        self,
        status: RunStatus | None = None,
        limit: int | None = 50,
        *,
        offset: int = 0,
        where: RunFilter | None = None,
        after: str | None = None,
    ) -> list[RunSummary]:
        """List runs of all workflows for people, newest first, of one status or of any; else like `list_runs`."""

    async def count_runs(self, where: RunFilter | None = None) -> RunCounts:
        """Count runs by workflow and status: at most the newest hundred thousand."""

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
        """List the runs of a workflow, by name or id, that a bot (id) is to open, oldest first.

        These are pending or crashed runs that it held last, or that nobody held, if the workflow is its own or a
        global one; with `resting`, also those that were paused because they waited. `run_ids` restricts the list.
        Over a connection, runs that messages of the bot began are left to these messages until they are settled,
        and the session is woken for what is to be opened later.
        """

    async def list_crashed_runs(self, limit: int | None = None, *, offset: int = 0) -> list[WorkflowRun]:
        """List the runs that are `running` without a live lease, oldest first."""

    # ── Holding a run ────────────────────────────────────────────────────────────────────────────────────

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
        """Claim a run that nobody holds: it becomes running, held by a bot (id) under a lease, with a new fence.

        Steps that were left running become failed, "interrupted". The same holder may repeat a claim with its
        `claim_id` while it holds the run: it gets the same fence, and its lease restarts.

        A run without a slot keeps its place in the queue for as long as its lease would be, or for `place_seconds`,
        at most the longest lease, and each further claim prolongs that; over a connection, the place ends with the
        session. A slot is kept free for it meanwhile: use `leave_queue` if you do not want it any more.

        With `cleans_up`, the holder learns from the run, from the claim and from each renewal (`cancel_by`) whether
        the run is to be cancelled, and may clean up then (`cancel_run`). Such a run is claimed without waiting for
        a slot; a claim without `cleans_up` cancels it.

        Raises RunHeld while a lease is live; RunPaused for a run that a person paused (without a fence, and with an
        error that says why) and that was not made pending since; RunNotDue before its `not_before`; SlotsTaken
        while as many runs of its workflow and concurrency key are running, or have waited longer, as the definition
        allows; InvalidTransition for a run that has ended; and Conflict for one that crashed too often, which a
        person has to resume.
        """

    async def leave_queue(self, run_id: str) -> None:
        """Keep no slot for a run whose claim was refused, because nobody waits for it any more.

        It gets its old place back when it is claimed again. Does nothing for a run without a place.
        """

    async def renew_run(self, run_id: str, fence: int, lease_seconds: float | None = None) -> Lease:
        """Restart the lease, even an expired one, unless the run was taken over or recovered meanwhile."""

    async def release_run(self, run_id: str, fence: int, status: RunStatus = RunStatus.PENDING) -> WorkflowRun:
        """Release a run as pending or paused, keeping its error and context."""

    async def get_lease(self, run_id: str) -> Lease | None:
        """Return the lease of a run, live or expired, or None if nobody holds it."""

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def create_step_log(self, step: WorkflowStepLog, *, fence: int | None = None) -> WorkflowStepLog:
        """Create, or return the existing step log if all fields are equal; otherwise raise Conflict.

        If it is running or waits for an approval and has no start time, it begins now.
        """

    async def update_step_status(
        self,
        step_id: str,
        status: StepStatus,
        output: Any = None,
        error: str | None = None,
        *,
        fence: int | None = None,
    ) -> WorkflowStepLog:
        """Move a step log, identified by its own id, to a status. None keeps output and error."""

    async def get_step_log(self, step_id: str) -> WorkflowStepLog | None:
        """Return a step log by its own id."""

    async def list_step_logs(
        self, run_id: str, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List a run's step logs in the order in which they began."""

    async def page_step_logs(self, run_id: str, after: str | None = None) -> StepPage:
        """Return a run's step logs after the one with the id `after`, as many as are read at once, at least one.

        Going on after the last of each page reads a history of any length in a time that grows with it. A step
        that begins meanwhile may be missed. Raises NotFound if `after` is not a step log of the run.
        """

    async def get_completed_step_ids(self, run_id: str) -> list[str]:
        """List the ids of completed steps, in the order they began, each once, without skipped ones."""

    async def list_waiting_approvals(
        self, run_id: str | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List the step logs that wait for an approval, oldest first, of one run or of all that have not ended."""

    # ── Signals ──────────────────────────────────────────────────────────────────────────────────────────

    async def send_signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        id: str | None = None,
        sender: str | None = None,
    ) -> Signal:
        """Send a signal to a run, and return it as it is kept until the run takes it (`Run.wait`).

        Without an `id` it gets one; with an `id` the call may be repeated, and returns the same signal. `sender` is
        the name of the bot, which a worker sets. A payload has at most 256 KiB.

        Raises NotFound, RunEnded for a run that has ended, TooManySignals while too many wait for the run, Conflict
        for an `id` that another signal of the run has, and InvalidValue or TooLarge.
        """

    async def list_signals(
        self, run_id: str, names: Sequence[str] | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[Signal]:
        """List the signals of a run that were not taken, oldest first, of some names or of any."""

    async def take_signal(
        self, step: WorkflowStepLog, names: Sequence[str], until: str | None = None, *, fence: int | None = None
    ) -> WorkflowStepLog:
        """Complete a step with the oldest waiting signal of these names, in one transaction; return the step log.

        The signal is its output, and is taken by no other step. If there is none that was sent `until` a time, the
        step stays pending. A step log that does not exist is created, as pending; one that has ended is returned
        as it is, so the call may be repeated.
        """


class WorkflowStore(WorkflowRepository, Protocol):
    """The repository beside its storage, with what only the worker uses."""

    def on_behalf_of(self, bot_id: str) -> WorkflowStore:
        """Return the same store for one bot: the runs that it creates are its own, and a fence must be its own."""

    async def open_run(self, opening: RunOpening, holder: str, *, is_new: bool = False) -> OpenedRun:
        """Open a run; with `is_new`, raise NotFound if it exists."""

    def limited(self, record_bytes_max: int) -> WorkflowStore:
        """Return the same store with a smaller maximum for records that are written or claimed."""

    def report_events(self, wanted: Callable[[str], bool], came: Callable[[str], None]) -> None:
        """Write events for a channel, beside the log, while they are `wanted` there; call `came` for each."""

    async def owners_of(self, run_ids: Sequence[str]) -> dict[str, RunOwners]:
        """Return whose these runs are, by their ids; those that do not exist are left out."""

    async def end_places(self, run_ids: Sequence[str] | None, seconds: float) -> None:
        """Keep the places of these runs, None for all, for at most so many seconds from now on."""

    async def next_runs(self) -> list[str]:
        """Return the runs that wait for a slot and have one now, of all workflows."""

    async def news_of(self, run_ids: Sequence[str], *, slots: bool) -> list[RunNews]:
        """Return what is to be known of runs that changed; those that do not exist are left out.

        Without `slots`, nobody asks which runs are next.
        """

    async def recover_runs(self, limit: int = 100) -> list[RecoveredRun]:
        """End the holds of runs whose lease has expired, oldest first, at most `limit`, in one transaction.

        The runs become crashed, their running steps failed ("interrupted"), their fences increase, and approvals
        keep waiting. A run that never had a lease is left alone: it is executed by other means. Before that, runs
        whose programs had their time to clean up become cancelled.
        """

    async def write_steps(self, writes: Sequence[StepCreation | StepMove]) -> list[WorkflowStepLog | StoreError]:
        """Carry out calls of `create_step_log` and `update_step_status` together, in order.

        Each has its own outcome, and an error of one does not affect the others. Only StoreFailure, StorageBusy and
        StorageFull are raised, because they concern all of them.
        """
