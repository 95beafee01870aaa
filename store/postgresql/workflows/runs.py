"""Runs of workflows in PostgreSQL: their changes within a unit of work.

`bus.model.transitions` decides which statuses may follow, and `bus.model.leases` who may hold a run: here the run
is read, and the result of the decision written.
"""

from __future__ import annotations

import msgspec

from bus.errors import Conflict, InvalidTransition, InvalidValue, NotFound, SlotsTaken
from bus.model.checked import NewRun, RunChange, check_record_size, run_change
from bus.model.leases import (
    Claimant,
    HeldRun,
    HoldState,
    Slots,
    cancel,
    cancel_error,
    check_fence,
    claim,
    move,
    release,
    renew,
)
from bus.model.records import Claim, Lease, RunStatus, WorkflowRun, later
from bus.model.repository import CommitWork
from bus.model.transitions import advance_run
from bus.model.values import check_texts, same_values
from bus.model.workflows import WorkflowRules

from .events import EventWriting
from .flushing import CANCELLED, INTERRUPTED
from .unit import Unit

__all__ = ["CancelRequest", "Runs"]


class CancelRequest(msgspec.Struct, frozen=True):
    """Why runs are cancelled, and until when their programs may clean up, by the clock of leases."""

    reason: str | None
    cancel_by: str


class Runs:
    """Changes of runs, by the store's rules."""

    def __init__(self, rules: WorkflowRules, events: EventWriting) -> None:
        self.rules = rules
        self.events = events

    def __repr__(self) -> str:
        return f"<Runs {self.rules}>"

    async def create(
        self,
        unit: Unit,
        new: NewRun,
        by: str | None = None,
        *,
        fence: int | None = None,
        predecessor_creator: str | None = None,
        schedule: tuple[str | None, str | None] = (None, None),
    ) -> WorkflowRun:
        """Create a run with its workflow's definition, of the bot `by`; or return the equal one that exists.

        With a fence, that of its parent, the one that exists may have changed since it was created. It belongs to
        the creator of the run that continues as this one, if that is known. A schedule starts the run of a time.
        """
        run = new.run
        if run.parent_run_id is not None:
            await unit.check_fence(run.parent_run_id, fence, by)
        elif fence is not None:
            raise InvalidValue("fence", "it is that of the parent, and this run has none")
        stored = await unit.find(run.id)
        if stored is not None:
            child = (run.parent_run_id, run.workflow_id)
            known = fence is not None and child == (stored.run.parent_run_id, stored.run.workflow_id)
            if known or same_values(stored.run, run):
                return stored.run
            raise Conflict(f"run {run.id!r} is stored with other fields")
        if await unit.workflow(run.workflow_id) is None:
            raise NotFound("workflow", run.workflow_id)
        unit.create(new, predecessor_creator or by, schedule)
        self.events.created(unit, run)
        return run

    async def continue_as(self, unit: Unit, run_id: str, new: NewRun, work: CommitWork) -> WorkflowRun:
        """Create the run as which one continues; it belongs to the bot that created the first one."""
        held = await unit.held(run_id)
        if held.run.continued_as != new.run.id and await unit.find(new.run.id) is not None:
            raise Conflict(
                f"run {run_id!r} cannot continue as {new.run.id!r}, which is another run: delete that one, and"
                " retry this one"
            )
        by, creator = work.bot_id if work.as_holder else None, await unit.created_by(run_id)
        created = await self.create(unit, new, by, fence=work.fence, predecessor_creator=creator)
        self.write(unit, held, HeldRun(msgspec.structs.replace(held.run, continued_as=created.id), held.hold))
        unit.pass_on_signals(run_id, created.id)
        return created

    async def move(self, unit: Unit, change: RunChange) -> WorkflowRun:
        """Move a run to a status."""
        return await self._move(unit, await unit.held(change.run_id), change)

    async def _move(self, unit: Unit, held: HeldRun, change: RunChange) -> WorkflowRun:
        _check_fence(held.run.status, held.hold, change.run_id, change.fence, change.by)
        error = change.error
        if change.status is RunStatus.CANCELLED:
            error = cancel_error(held.hold, error)
        after = advance_run(
            held.run, change.status, error=error, context=change.context, now=unit.now, result=change.result
        )
        if change.context is not None or change.result is not None:
            self.check_size(after, f"run {change.run_id!r}")
        moved = move(held, after, fenced=change.fence is not None)
        if moved is not held:
            self._write(unit, held, moved, change.context_text, change.result_text)
            if after.status is RunStatus.CANCELLED and held.hold.cancel_by is None:
                # Otherwise its children were asked with it.
                self._cancel_children(unit, after.id, self.cancel_request(unit, after.error, None))
        return moved.run

    async def checkpoint(self, unit: Unit, work: CommitWork) -> HoldState:
        """Check a commit's fence, and write its context and status; without a status, that stays.

        Return the hold before.
        """
        run_id, by = work.run_id or "", work.bot_id if work.as_holder else None
        if work.status is None and work.context is None and work.result is None:
            current, hold = await unit.hold(run_id)
            _check_fence(current, hold, run_id, work.fence, by)
            return hold
        held = await unit.held(run_id)
        # A lost hold is reported first, whatever else is wrong with the commit.
        _check_fence(held.run.status, held.hold, run_id, work.fence, by)
        status, error = (held.run.status, held.run.error) if work.status is None else (work.status, work.error)
        change = run_change(
            run_id,
            status,
            error=error,
            context=work.context,
            fence=work.fence,
            by=by,
            result=work.result,
            result_bytes_max=self.rules.output_bytes_max,
        )
        await self._move(unit, held, change)
        return held.hold

    async def claim(self, unit: Unit, run_id: str, claimant: Claimant) -> Claim | SlotsTaken | InvalidTransition:
        """Claim a run. If there is no slot, SlotsTaken is returned, so that the place in the queue is stored.

        InvalidTransition is returned if the claim ends the run, which is to be cancelled.
        """
        check_texts((claimant.holder, claimant.claim_id), "holder or id of a claim")
        held = await unit.held(run_id)
        self.check_size(held.run, f"run {run_id!r}")
        slots = Slots(None, 0, 0, 0)
        if held.run.status != RunStatus.RUNNING:
            slots = await unit.slots(held.run)
        recorded = 0 if held.hold.holder is None else await unit.recorded(run_id)
        after = claim(held, claimant, slots, recoveries_max=self.rules.recoveries_max, recorded=recorded)
        if after is not held:
            self._write(unit, held, after)
        if after.run.status is RunStatus.CANCELLED:
            return InvalidTransition("run", run_id, RunStatus.CANCELLED, RunStatus.RUNNING)
        if after.hold.holder is None or after.hold.expires_at is None:
            return slots.refusal(run_id)
        if after.hold.fence != held.hold.fence:
            unit.close_steps(run_id, INTERRUPTED)
        return Claim(run=after.run, fence=after.hold.fence, expires_at=after.hold.expires_at)

    async def renew(self, unit: Unit, run_id: str, fence: int, expires_at: str, *, by: str | None = None) -> Lease:
        """Restart the lease of a run, without reading its context, which may be large."""
        status, hold = await unit.hold(run_id)
        hold = renew(run_id, status, hold, fence, expires_at, by=by)
        unit.write_hold(run_id, hold)
        holder, cancel_by = hold.holder or "", hold.cancel_by
        return Lease(run_id=run_id, holder=holder, fence=hold.fence, expires_at=expires_at, cancel_by=cancel_by)

    async def release(
        self, unit: Unit, run_id: str, fence: int, status: RunStatus, *, by: str | None = None
    ) -> WorkflowRun:
        """Release a run, as its holder asks."""
        held = await unit.held(run_id)
        after = release(held, fence, status, now=unit.now, by=by)
        if after is not held:
            self._write(unit, held, after)
        return after.run

    # ── Cancelling ───────────────────────────────────────────────────────────────────────────────────────

    def cancel_request(self, unit: Unit, reason: str | None, grace_seconds: float | None) -> CancelRequest:
        """Return what is asked of runs that are cancelled. Raises InvalidValue."""
        most = self.rules.lease_seconds_max
        seconds = self.rules.cancel_seconds if grace_seconds is None else grace_seconds
        if not 0 <= seconds <= most:
            raise InvalidValue("grace_seconds", f"must be 0 to {most:g}, not {seconds:g}")
        return CancelRequest(reason, later(unit.now, seconds))

    async def cancel(self, unit: Unit, run_id: str, request: CancelRequest) -> WorkflowRun:
        """Cancel a run and its children, or ask their programs to clean up, and return the run."""
        held = await unit.held(run_id)
        after = cancel(held, request.reason, request.cancel_by, now=unit.now, lease_now=unit.now)
        if after is not held:
            self._write(unit, held, after)
            self._cancel_children(unit, run_id, request)
        return after.run

    def cancel_with(self, unit: Unit, held: HeldRun, why: str, cancel_by: str) -> HeldRun:
        """Cancel a run because its parent is, and its children; return it."""
        after = cancel(held, why, cancel_by, now=unit.now, lease_now=unit.now)
        if after is not held:
            self._write(unit, held, after)
            unit.cancel_children(held.run.id, why, cancel_by)
        return after

    def _cancel_children(self, unit: Unit, run_id: str, request: CancelRequest) -> None:
        why = f"run {run_id} was cancelled" + ("" if request.reason is None else f": {request.reason}")
        unit.cancel_children(run_id, why, request.cancel_by)

    # ── Reading and writing ──────────────────────────────────────────────────────────────────────────────

    def check_size(self, record: msgspec.Struct, what: str, output: str | None = None) -> None:
        """Raise TooLarge for a record that could not be sent to its readers; `output` is a step log's, as JSON."""
        check_record_size(record, what, self.rules.record_bytes_max, output)

    def write(self, unit: Unit, before: HeldRun, after: HeldRun) -> None:
        """Write a run's status and hold; one that becomes cancelled has its steps closed."""
        self._write(unit, before, after)

    def _write(
        self,
        unit: Unit,
        before: HeldRun,
        after: HeldRun,
        context_text: str | None = None,
        result_text: str | None = None,
    ) -> None:
        unit.write(after, context_text, result_text)
        if after.run.status is RunStatus.CANCELLED and before.run.status is not RunStatus.CANCELLED:
            unit.close_steps(after.run.id, CANCELLED)
        self.events.changed(unit, before.run, after.run)


def _check_fence(status: str, hold: HoldState, run_id: str, fence: int | None, by: str | None) -> None:
    check_fence(run_id, status, hold.fence, fence, last_holder=hold.last_holder, by=by)
