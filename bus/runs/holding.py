"""The hold of a run: claimed, renewed while work goes on, given back while the run only waits, and lost.

Owns when the run is held, and what happens when it no longer is. Its rules:

- A run's records are written with the fence of its hold. A program that has lost the run writes nothing more.
- A run that only waits (for a person, or for a time far away) is given back as paused, so that it occupies no slot
  and
  is not taken for crashed. It is claimed again before work continues.
- A run that a person paused is waited for like one that another program holds; meanwhile it keeps no handler's
  place.
- An unreachable worker ends no hold: only its answer that another program has the run does.

It knows nothing of steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
import msgspec
import uuid_utils

from ..client.home import Home
from ..client.lending import slot, waiting_for_reply
from ..errors import (
    MEANT,
    NOT_NOW,
    BusError,
    ClosedError,
    Fenced,
    InvalidTransition,
    LimitReached,
    RunBusy,
    RunCancelled,
    RunError,
    RunFailed,
    RunHeld,
    RunLost,
    RunNotDue,
    RunPaused,
    SlotsTaken,
    StorageBusy,
    StorageFull,
    WorkerUnavailable,
)
from ..model.openings import OpenedRun, RunOpening
from ..model.records import Claim, RunStatus
from ..model.repository import WorkflowRepository
from .cancelling import Cancelling
from .timing import Polls, Timing, wait

__all__ = ["AWAY", "RUN_ENDS", "Hold", "ended", "meant", "no_fault"]

AWAY = (LimitReached, StorageBusy, StorageFull, WorkerUnavailable)
"""Errors of a worker that cannot write this now; they say nothing about the run."""

_NO_FAULT = (*AWAY, *NOT_NOW, ClosedError)

RUN_ENDS = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
"""The final statuses of a run."""

_LEAVE_SECONDS = 5.0
"""How long a cancelled program may take to record something or give its run back; a lease expires anyway."""

_RENEWALS_A_LEASE = 3

_SURE_SECONDS = 1.0
"""How long after a confirmed write a step may begin without another one."""

_GLANCE_SECONDS = 1.0
"""How long a hold is not checked again: somebody may be told of every step of the run."""

T = TypeVar("T")


class Hold:
    """One program's hold of one run."""

    def __init__(
        self, workflows: WorkflowRepository, run_id: str, bot_id: str, *, lease_seconds: float, timing: Timing
    ) -> None:
        self.workflows = workflows
        self.run_id = run_id
        self.timing = timing
        self.lease_seconds = lease_seconds
        self.fence = 0
        self.held = False
        """Whether the run is held, as far as is known."""
        self.failure: Exception | None = None
        """Why nothing more can be written; a RunError if the run was lost."""
        self.moved_on: Callable[[Claim], Awaitable[bool]] | None = None
        """Returns, for a new claim, whether another program recorded something since the run was given back."""
        self.bot_id = bot_id
        self.opened: OpenedRun | None = None
        """What was found with the run, if it was opened and claimed in one call."""
        self.cancelling = Cancelling(run_id)
        # One id for all claims: the next one repeats a claim or release whose answer was lost.
        self._claim_id = str(uuid_utils.uuid7())
        # Acquired without a turn of the loop, in which other tasks would begin to work.
        self._lock = anyio.Lock(fast_acquire=True)
        self._unsure: RunStatus | None = None
        """The status with which the run was to be given back, while it is unknown whether it was."""
        self.working = 0
        """How many steps and commits are running."""
        self._is_to_rest = False
        """Whether the run is to be given back when none is running any more."""
        self._sure_at = -math.inf
        """When the worker was last asked for something that it carried out only for the run's holder."""
        self._renewing = anyio.CancelScope()
        self._queued = False
        """Whether it has a place in the queue for a slot."""
        self._stirred = anyio.Event()
        """Set when the run is held again, or lost."""
        self._slot = slot.get()
        self._rests = False
        """Whether nothing is done in the run: it is not held, and waits."""
        self.home = Home(f"run {run_id!r}")
        self.home.enter()

    def __repr__(self) -> str:
        state = "lost" if self.failure else "held" if self.held else "not held"
        return f"<Hold of {self.run_id!r} {state} fence={self.fence}>"

    @property
    def renewal_seconds(self) -> float:
        """How often the lease is renewed, and a run that is not held is checked."""
        return self.lease_seconds / _RENEWALS_A_LEASE

    @property
    def is_sure(self) -> bool:
        """Whether the worker has just confirmed that the run is held: nobody else can have taken it since."""
        return self.held and anyio.current_time() - self._sure_at < min(_SURE_SECONDS, self.renewal_seconds)

    # ── Taking and giving back ───────────────────────────────────────────────────────────────────────────

    async def claim(self, timeout: float | None, opening: RunOpening | None = None) -> Claim:
        """Claim the run once nobody holds it and it has a slot. Raise RunBusy after `timeout` seconds.

        With an `opening` it is opened first, which may succeed at once: then `opened` has what was found. Raises
        InvalidTransition for a run that has ended, and what `open_run` does.
        """
        until = math.inf if timeout is None else anyio.current_time() + timeout
        polls = self._claim_polls()
        async with self._queueing():
            while True:
                woken = self.woken()
                try:
                    return await self._claim(opening)
                except (RunHeld, RunNotDue, RunPaused, SlotsTaken) as error:
                    refusal, opening = error, None
                if (left := until - anyio.current_time()) <= 0:
                    raise RunBusy(self.run_id, timeout or 0, str(refusal))
                self._note(rests=True)
                async with waiting_for_reply():
                    await polls.pause(woken, seconds_max=left)

    def _claim_polls(self) -> Polls:
        """Begin to claim the run, which may have to keep its place by that."""
        return self.timing.polls(math.inf if self.timing.place_seconds else self.renewal_seconds)

    @asynccontextmanager
    async def _queueing(self) -> AsyncIterator[None]:
        """Give up the run's place for a slot if the block does not claim it."""
        self._queued = False
        try:
            yield
        except BaseException:
            if self._queued:
                await self.record_at_last(lambda: self.workflows.leave_queue(self.run_id))
            raise

    async def _claim(self, opening: RunOpening | None = None) -> Claim:
        async def claim(opening: RunOpening | None = None) -> Claim:
            asked_at = anyio.current_time()
            try:
                claimed = await (self._open(opening) if opening is not None else self._claim_run())
            except SlotsTaken:
                self._queued = True
                raise
            self.cancelling.note(claimed.run.cancel_by)
            self.fence, self.held, self._unsure, self._sure_at = claimed.fence, True, None, asked_at
            self._stir()
            self._note(rests=False)
            return claimed

        try:
            return await claim(opening)
        except anyio.get_cancelled_exc_class():
            # The claim may have succeeded unnoticed: the same claim again tells, and can then be given back.
            await self.record_at_last(claim)
            await self.give_back()
            raise

    async def _claim_run(self) -> Claim:
        return await self.workflows.claim_run(
            self.run_id,
            self.bot_id,
            self.lease_seconds,
            claim_id=self._claim_id,
            place_seconds=self.timing.place_seconds,
            cleans_up=True,
        )

    async def _open(self, opening: RunOpening) -> Claim:
        opening = msgspec.structs.replace(
            opening,
            lease_seconds=self.lease_seconds,
            claim_id=self._claim_id,
            place_seconds=self.timing.place_seconds,
            cleans_up=True,
        )
        self.opened = await self.workflows.open_run(opening, self.bot_id)
        return self.opened.claim

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Hold the run throughout a block; claim it again first if it was given back."""
        self.working += 1
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
            self.check()
            if not self.held or self._lock.locked():  # otherwise there is nothing to wait for, the common case
                async with self._lock:
                    self.check()
                    if not self.held:
                        await self._take_again()
            yield
        finally:
            self.working -= 1
            if self._is_to_rest and not self.working:
                self._is_to_rest = False
                self.woken().set()  # what only waits gives the run back now

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Write what ends the run. A concurrent renewal is refused by it, and may be answered first."""
        async with self._lock:
            try:
                yield
            except (ClosedError, WorkerUnavailable):
                self.held, self._unsure = False, RunStatus.PENDING  # it may have ended nevertheless
                raise

    async def rest(self) -> bool:
        """Release the run as paused if it is held and nothing is running.

        Return False if that has to be done again, because the worker is away.
        """
        async with self._lock:
            self.check()
            self._is_to_rest = self.working > 0
            if (self.held or self._unsure) and not self.working:
                self.held = False  # from here on a refused renewal means nothing
                self._unsure = RunStatus.PAUSED
                try:
                    await self.guard(self.workflows.release_run(self.run_id, self.fence, RunStatus.PAUSED))
                except AWAY:
                    return False
                self._unsure = None
                self._note(rests=True)
        return True

    def _note(self, *, rests: bool) -> None:
        """Note whether the run only waits, for the message of the handler that executes it."""
        if rests == self._rests:
            return
        self._rests = rests
        self.timing.crowd.resting += 1 if rests else -1
        if self._slot is not None:
            self._slot.run_rests() if rests else self._slot.run_taken()

    @contextlib.contextmanager
    def in_handler(self) -> Iterator[None]:
        """Count the run among those of the handler that executes it, if one does, throughout a block."""
        if self._slot is not None:
            self._slot.run_opened()
        try:
            yield
        finally:
            self._note(rests=False)
            if self._slot is not None:
                self._slot.run_closed()

    async def look(self) -> bool:
        """Check whether the released run has ended. Raises RunCancelled or RunLost if so.

        Return False if that has to be done again, because the worker is away.
        """
        try:
            run = await self.workflows.get_run(self.run_id)
        except AWAY:
            return False
        if run is None or run.status in RUN_ENDS:
            raise self.lose("gone" if run is None else run.status)
        self.cancelling.note(run.cancel_by)
        return True

    def woken(self) -> anyio.Event:
        """Return the event to wait for, to be taken before the store is looked at."""
        return self.timing.woken(self.run_id)

    async def _take_again(self) -> None:
        before = self.fence
        async with self._queueing():
            claim = await self._claim_again()
        if claim.fence > before + 1 and self.moved_on is not None and await self.moved_on(claim):
            await self.give_back()
            raise self.lose(RunStatus.PENDING)

    async def _claim_again(self) -> Claim:
        polls = self._claim_polls()
        while True:
            woken = self.woken()
            try:
                return await self._claim()
            except AWAY:
                await polls.pause(woken, again=True)
            except (RunPaused, SlotsTaken):
                async with waiting_for_reply():
                    await polls.pause(woken)
            except RunHeld:
                raise self.lose(RunStatus.RUNNING) from None
            except InvalidTransition as error:
                raise self.lose(error.current) from None

    async def give_back(self) -> None:
        """Release the run, even if this is cancelled, and ignore errors.

        It is released as pending, or as paused if it only waited.
        """
        if not (self.held or self._unsure) or self.failure is not None:
            return
        status = self._unsure or RunStatus.PENDING
        self.held, self._unsure = False, None
        with anyio.move_on_after(_LEAVE_SECONDS, shield=True), contextlib.suppress(BusError):
            await self.workflows.release_run(self.run_id, self.fence, status)

    # ── Renewing ─────────────────────────────────────────────────────────────────────────────────────────

    async def keep(self, work: anyio.CancelScope) -> None:
        """Renew the lease until `stop_renewing`, while the run is held; cancel `work` if the run is lost."""
        with self._renewing:
            due_at = anyio.current_time() + self.renewal_seconds
            while self.failure is None:
                stirred, woken = self._stirred, self.woken()
                if not self.held:
                    await stirred.wait()
                    due_at = anyio.current_time() + self.renewal_seconds
                    continue
                await wait(woken, max(0.0, due_at - anyio.current_time()))
                if anyio.current_time() >= due_at:
                    await self._renew()
                    due_at = anyio.current_time() + self.renewal_seconds
                elif self.held:
                    await self._check_lease()
                    await wait(self._stirred, _GLANCE_SECONDS)
            work.cancel()

    def _stir(self) -> None:
        """Let `keep` see that the run is held again, or lost."""
        self._stirred.set()
        self._stirred = anyio.Event()

    async def _check_lease(self) -> None:
        """Look whether this program still holds the run, after somebody did something to it."""
        fence = self.fence
        with contextlib.suppress(BusError):  # renewing it tells too
            lease = await self.workflows.get_lease(self.run_id)
            if lease is not None and lease.fence == fence:
                self.cancelling.note(lease.cancel_by)
                return
            run = await self.workflows.get_run(self.run_id)
            async with self._lock:
                if self.held and self.fence == fence:
                    self.lose("gone" if run is None else run.status)

    async def _renew(self) -> None:
        if not self.held:
            return
        fence = self.fence
        try:
            lease = await self.workflows.renew_run(self.run_id, fence, self.lease_seconds)
            self.cancelling.note(lease.cancel_by)
        except Fenced as error:
            async with self._lock:  # this program itself may be ending or releasing the run
                if self.held and self.fence == fence:
                    self.lose(error.status)
        except AWAY:
            pass  # a takeover meanwhile raises the fence, which is noticed later
        except BusError as error:
            if self.held:
                self.failure = error
                self._stir()

    def stop_renewing(self) -> None:
        """End `keep`."""
        self._renewing.cancel()

    # ── Writing ──────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Raise the error that prevents further writes, if any."""
        if self.failure is not None:
            raise self.failure

    def lose(self, status: str) -> Exception:
        """Note that this program has lost the run, and return the error for it."""
        if self.failure is None:
            self.failure = (
                RunCancelled(self.run_id) if status == RunStatus.CANCELLED else RunLost(self.run_id, status)
            )
        self.held = False
        self._stir()
        return self.failure

    async def guard(self, call: Awaitable[T]) -> T:
        """Await a write with the fence. Raise RunLost or RunCancelled if it is fenced."""
        asked_at = anyio.current_time()
        try:
            value = await call
        except Fenced as error:
            raise self.lose(error.status) from None
        self._sure_at = asked_at
        return value

    async def reassure(self) -> None:
        """Ask the worker again if what it confirmed last is older than the lease. Raise as `guard` does.

        The program was stopped meanwhile, or is very slow: somebody else may have taken the run.
        """
        if anyio.current_time() - self._sure_at >= self.lease_seconds:
            await self.guard(self.workflows.renew_run(self.run_id, self.fence, self.lease_seconds))

    async def record(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a repeatable write that must not be lost to a cancellation."""
        try:
            return await self.guard(call())
        except anyio.get_cancelled_exc_class():
            await self.record_at_last(call)
            raise

    async def record_at_last(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make a write while this is cancelled, if that is possible soon."""
        with anyio.move_on_after(_LEAVE_SECONDS, shield=True), contextlib.suppress(BusError):
            await call()


def no_fault(error: BaseException) -> bool:
    """Return True if an error is temporary and nobody's fault: the worker is away, or a limit was reached."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(_NO_FAULT)[1] is None
    return isinstance(error, _NO_FAULT)


def meant(error: BaseException) -> bool:
    """Return True if a run is meant to fail by this error: a step or an approval failed, or the author says so."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(MEANT)[1] is None
    return isinstance(error, MEANT)


def ended(run_id: str, status: str, error: str | None) -> RunError:
    """Return the error for a run that has failed or was cancelled."""
    return RunCancelled(run_id) if status == RunStatus.CANCELLED else RunFailed(run_id, error)
