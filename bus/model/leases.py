"""Who holds a run: claims, leases, fences, and the queue for a slot.

Owns what a hold is and how it changes; `transitions` decides which statuses may follow. Its rules:

- A run is held only while it is running. Whatever ends that also ends the hold.
- The fence increases with every claim, and whenever a hold is ended by a write without its fence. So a writer with
  the
  fence of an earlier hold is always detected.
- An expired lease ends nothing by itself: its holder may renew it, unless another claim came first.
- A run that waits for a slot keeps its place as long as it is asked for. Nobody takes the slot of one ahead.
- A run whose program cleans up is not cancelled at once: it is asked, keeps its hold, and has a time for it.
- A run that is paused from outside, with the reason as its error, is stopped: it cannot be claimed before it is
  made
  pending. A run paused by its holder only waits, and it continues when it is claimed.

Pure: times are arguments, as text in the stored form, whose order is the order of times.
"""

from __future__ import annotations

import msgspec

from ..errors import (
    Fenced,
    InvalidTransition,
    InvalidValue,
    RunGivenUp,
    RunHeld,
    RunNotDue,
    RunPaused,
    SlotsTaken,
)
from .records import RunStatus, WorkflowRun
from .transitions import RUN_TRANSITIONS, advance_run

__all__ = [
    "Claimant",
    "HeldRun",
    "HoldState",
    "Slots",
    "cancel",
    "cancel_error",
    "check_fence",
    "claim",
    "expire_cancel",
    "move",
    "release",
    "renew",
    "retry",
]

_RELEASED = {RunStatus.PENDING, RunStatus.PAUSED}


class HoldState(msgspec.Struct, frozen=True):
    """The stored state of a run's hold and of its place in the queue.

    `holder` and `expires_at` are both set or both None. A place in the queue is a number, because a clock may go
    back. `stopped` says that a person paused the run. `progress` is how
    many steps were recorded when the run last lost its holder, and `recoveries` how often it lost one since then
    without another step.
    """

    fence: int = 0
    holder: str | None = None
    expires_at: str | None = None
    claim_id: str | None = None
    recoveries: int = 0
    queue_place: int | None = None
    queued_at: str | None = None
    queued_until: str | None = None
    stopped: bool = False
    last_holder: str | None = None
    """The bot to which the latest claim gave the fence, whether it still holds the run or not."""
    progress: int = 0
    cleans_up: bool = False
    """Whether the program that claimed it last looks whether it is to be cancelled, and cleans up then."""
    cancel_by: str | None = None
    """Until when it may do so; None if the run is not to be cancelled, or has ended."""
    cancel_reason: str | None = None


class HeldRun(msgspec.Struct, frozen=True):
    """A run, and who holds it."""

    run: WorkflowRun
    hold: HoldState

    @property
    def has_error(self) -> bool:
        """Whether its program's error made it stop: not a person, a lost holder, or what it waits for."""
        run = self.run
        paused = run.status == RunStatus.PAUSED and run.error is not None and not self.hold.stopped
        return paused or run.status == RunStatus.FAILED


class Claimant(msgspec.Struct, frozen=True):
    """Who claims a run at `now`, and for how long; `claim_id` identifies a repeated claim.

    If it must wait, its place is kept until `place_until`. One that is kept beyond `place_enough` is left as it is,
    so that a claim that is repeated need not be written each time.
    `now` is by the clock of leases, and `wall` by the one of a run's times.
    """

    holder: str
    now: str
    expires_at: str
    place_until: str
    place_enough: str
    claim_id: str | None = None
    wall: str = ""
    cleans_up: bool = False


class Slots(msgspec.Struct, frozen=True):
    """A workflow's slots for one concurrency key: how many are `running`, and how many wait `ahead`.

    `next_place` is behind all that wait.
    """

    concurrency: int | None
    running: int
    ahead: int
    next_place: int

    @property
    def taken(self) -> bool:
        """Whether this run has to wait: a slot is left for each run ahead of it, so that nobody is overtaken."""
        return self.concurrency is not None and self.running + self.ahead >= self.concurrency

    def refusal(self, run_id: str) -> SlotsTaken:
        """Return the error for a run that has to wait."""
        return SlotsTaken(run_id, self.concurrency or 0, self.ahead)


def check_fence(
    run_id: str, status: str, hold_fence: int, fence: int | None, *, last_holder: str | None, by: str | None
) -> None:
    """Raise Fenced if a write has another fence than the run's; a write without a fence passes.

    With `by`, the bot that writes, the fence must be its own: one that it has read is not.
    """
    if fence is not None and (fence != hold_fence or by not in (None, last_holder)):
        raise Fenced(run_id, fence, status)


def claim(held: HeldRun, claimant: Claimant, slots: Slots, *, recoveries_max: int, recorded: int = 0) -> HeldRun:
    """Return a run as held by its claimant; if it must wait for a slot, unchanged but for its place in the queue.

    `recorded` is how many of its steps are completed, if it is taken over from a lost holder. Raises RunHeld,
    RunPaused, RunNotDue, InvalidTransition or RunGivenUp if it cannot be claimed at all.
    """
    run, hold = held.run, held.hold
    repeated = hold.claim_id is not None and hold.claim_id == claimant.claim_id and hold.holder == claimant.holder
    if repeated:
        return HeldRun(run, msgspec.structs.replace(hold, expires_at=claimant.expires_at))
    after = advance_run(run, RunStatus.RUNNING, error=None, context=None, now=claimant.now)
    if hold.cancel_by is not None and not claimant.cleans_up and not _is_held(hold, claimant.now):
        return expire_cancel(held, claimant.wall)
    if hold.stopped and hold.cancel_by is None:
        raise RunPaused(run.id, run.error or "paused")
    if run.status == RunStatus.PENDING and run.not_before is not None and run.not_before > claimant.wall:
        raise RunNotDue(run.id, run.not_before)
    if hold.holder is not None and hold.expires_at is not None and _is_held(hold, claimant.now):
        raise RunHeld(run.id, hold.holder, hold.expires_at)
    runs_already = run.status == RunStatus.RUNNING
    # Taking over a run with an expired lease counts as a recovery, so that the count does not depend on a race.
    recoveries, progress = hold.recoveries, hold.progress
    if runs_already and hold.holder is not None:
        recoveries, progress = 1 if recorded > progress else recoveries + 1, recorded
    if (runs_already or run.status == RunStatus.CRASHED) and recoveries > recoveries_max:
        raise RunGivenUp(run.id, recoveries)
    if slots.taken and not runs_already and hold.cancel_by is None:
        is_kept = hold.queued_until is not None and hold.queued_until > claimant.place_enough
        return held if is_kept else HeldRun(run, _queued(hold, claimant, slots))
    return HeldRun(
        after,
        HoldState(
            hold.fence + 1,
            claimant.holder,
            claimant.expires_at,
            claimant.claim_id,
            recoveries=recoveries,
            last_holder=claimant.holder,
            progress=progress,
            cleans_up=claimant.cleans_up,
            cancel_by=hold.cancel_by,
            cancel_reason=hold.cancel_reason,
        ),
    )


def _is_held(hold: HoldState, now: str) -> bool:
    return hold.holder is not None and hold.expires_at is not None and hold.expires_at > now


def _queued(hold: HoldState, claimant: Claimant, slots: Slots) -> HoldState:
    first = hold.queue_place is None
    return msgspec.structs.replace(
        hold,
        queue_place=slots.next_place if first else hold.queue_place,
        queued_at=claimant.now if first else hold.queued_at,
        queued_until=claimant.place_until,
    )


def renew(
    run_id: str, status: str, hold: HoldState, fence: int, expires_at: str, *, by: str | None = None
) -> HoldState:
    """Return a hold with a new lease. Raise Fenced if the hold has ended, or is not that of the bot `by`."""
    if hold.fence != fence or hold.holder is None or by not in (None, hold.holder):
        raise Fenced(run_id, fence, status)
    return msgspec.structs.replace(hold, expires_at=expires_at)


def release(held: HeldRun, fence: int, status: RunStatus, *, now: str, by: str | None = None) -> HeldRun:
    """Return a run as its holder releases it, with its error and context.

    Raise Fenced if the hold has ended, or was not that of the bot `by`.
    """
    if status not in _RELEASED:
        raise InvalidValue("status", f"a run must be released as pending or paused, not as {status}")
    hold = held.hold
    check_fence(held.run.id, held.run.status, hold.fence, fence, last_holder=hold.last_holder, by=by)
    after = advance_run(held.run, status, error=held.run.error, context=None, now=now)
    return move(held, after, fenced=True)


def retry(held: HeldRun, lease_now: str) -> HeldRun:
    """Return a run as pending, whatever made it stop: it goes on when somebody claims it.

    Its error and its count of lost holders are cleared. Raises RunHeld while somebody holds it, and
    InvalidTransition if it was completed or cancelled.
    """
    run, hold = held.run, held.hold
    if run.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
        raise InvalidTransition("run", run.id, run.status, RunStatus.PENDING)
    if hold.holder is not None and hold.expires_at is not None and _is_held(hold, lease_now):
        raise RunHeld(run.id, hold.holder, hold.expires_at)
    after = msgspec.structs.replace(run, status=RunStatus.PENDING, error=None, completed_at=None)
    kept = HoldState(
        hold.fence + 1,
        last_holder=hold.last_holder,
        progress=hold.progress,
        cleans_up=hold.cleans_up,
        cancel_by=hold.cancel_by,
        cancel_reason=hold.cancel_reason,
    )
    return HeldRun(after, kept)


def cancel(held: HeldRun, reason: str | None, cancel_by: str, *, now: str, lease_now: str) -> HeldRun:
    """Return a run as cancelled; if its program may have something to clean up, as to be cancelled until a time.

    It may if the last one that claimed the run said so, whether it holds the run or waits for something. Returns
    the same object if nothing changes. Raises InvalidTransition if the run has ended in another way.
    """
    run, hold = held.run, held.hold
    if run.status is RunStatus.CANCELLED:
        return held
    if not hold.cleans_up or cancel_by <= lease_now:
        after = advance_run(run, RunStatus.CANCELLED, error=reason or hold.cancel_reason, context=None, now=now)
        return move(held, after, fenced=False)
    if not RUN_TRANSITIONS[run.status]:
        raise InvalidTransition("run", run.id, run.status, RunStatus.CANCELLED)
    if hold.cancel_by is not None and hold.cancel_by <= cancel_by:
        return held
    hold = msgspec.structs.replace(
        hold, cancel_by=cancel_by, cancel_reason=hold.cancel_reason or reason, stopped=False
    )
    return HeldRun(msgspec.structs.replace(run, cancel_by=cancel_by), hold)


def expire_cancel(held: HeldRun, now: str) -> HeldRun:
    """Return a run that was to be cancelled as cancelled: its program had its time, or does not clean up."""
    error = held.hold.cancel_reason
    return move(held, advance_run(held.run, RunStatus.CANCELLED, error=error, context=None, now=now), fenced=False)


def cancel_error(hold: HoldState, error: str | None) -> str | None:
    """Return the error of a run that becomes cancelled: why it was to be, and how its program ended."""
    return "; ".join(filter(None, (hold.cancel_reason, error))) or None


def move(held: HeldRun, after: WorkflowRun, *, fenced: bool) -> HeldRun:
    """Return a run and its hold after a change of status; `fenced` says that the holder itself wrote it.

    Raises Fenced if only a fence is left of the hold, and the run would be running without a lease.
    """
    run, hold = held.run, held.hold
    if after is run:
        return held
    if fenced and after.status == RunStatus.RUNNING and hold.holder is None:
        raise Fenced(run.id, hold.fence, run.status)
    if after.status != run.status:
        hold = msgspec.structs.replace(hold, queue_place=None, queued_at=None, queued_until=None)
    if after.status == RunStatus.RUNNING:
        return HeldRun(after, msgspec.structs.replace(hold, stopped=False))
    stopped = after.status == RunStatus.PAUSED and (hold.stopped if fenced else after.error is not None)
    resumed = not fenced and run.status == RunStatus.CRASHED and after.status in _RELEASED
    ended = not fenced and (stopped or hold.holder is not None)
    hold = msgspec.structs.replace(
        hold,
        fence=hold.fence + 1 if ended else hold.fence,
        holder=None,
        expires_at=None,
        claim_id=None,
        recoveries=0 if resumed else hold.recoveries,
        stopped=stopped,
        cancel_by=hold.cancel_by if RUN_TRANSITIONS[after.status] else None,
    )
    return HeldRun(msgspec.structs.replace(after, cancel_by=hold.cancel_by), hold)
