"""Who gives the orders of a shop: begins, pays, releases, cancels, retries and forks them, and winds up its clock.

Owns what it knows of them, which is what they are judged by (`order_checks`).
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable
from contextlib import suppress

import anyio

import bus
from bus.errors import InvalidTransition, NotFound, RunEnded, RunHeld, TooManySignals
from bus.model.records import RunStatus, StepStatus
from bus.settings import Workflows

from ..integration.wire import TIMEOUT_SECONDS
from .order_checks import Order
from .shop import BUG, CLERK, FAILURE, ITEMS, ORDER, SHOP, TICK, TOCK, Notebook
from .voyages import VOYAGE

__all__ = ["SCHEDULES", "Clerk"]

_END_SECONDS = 4 * TIMEOUT_SECONDS

_GRACE_SECONDS = 3600.0
"""No program is to be away for so long that it has no time to clean up."""

_PAUSED_SECONDS = 2.5
"""Longer than a program may take to notice that it has lost a run, so that no two of them are at work on it."""

_VOYAGES = 0.25
"""How often a voyage is cancelled or paused, and no order."""

_RECOVERIES_MAX = Workflows().recoveries_max

_OVER = (RunStatus.COMPLETED, RunStatus.CANCELLED)

SCHEDULES = tuple(
    bus.WorkflowSchedule(
        id=definition.id,
        workflow_id=definition.id,
        times=bus.IntervalTimes(seconds=1),
        overlap=overlap,
        catch_up=bus.CatchUp.ALL,
    )
    for definition, overlap in ((TICK, bus.Overlap.ALLOW), (TOCK, bus.Overlap.QUEUE))
)
"""One each of whose times starts a run, and one whose runs last longer than a second and do not overlap."""


class Clerk:
    """Gives orders; `notes` is where it writes which steps it has set aside."""

    def __init__(self, bot: bus.Bot, chance: random.Random, notes: Notebook) -> None:
        self.orders: dict[str, Order] = {}
        self.voyages: set[str] = set()
        self.cancelled: set[str] = set()
        """The voyages that may be cancelled."""
        self.is_mended = False
        self._bot = bot
        self._chance = chance
        self._notes = notes
        self._resumed_at: dict[str, float] = {}
        self._troubles = itertools.cycle((BUG, FAILURE, None, None, None))
        self._retried_from = itertools.cycle(("pack", None))

    async def wind_up(self) -> None:
        """Let something be done each second, from now on."""
        for definition in (TICK, TOCK):
            await self._bot.workflows.save_definition(definition)
        for schedule in SCHEDULES:
            await self._bot.workflows.save_schedule(schedule)

    async def stop_the_clock(self) -> None:
        """Let nothing more be started by the clock."""
        for schedule in SCHEDULES:
            await self._bot.workflows.pause_schedule(schedule.id)

    async def begin(self, count: int) -> None:
        """Begin so many orders, by messages and by runs that a bot of the shop finds."""
        for _ in range(count):
            order = Order(total=self._chance.randrange(1000))
            body = {"total": order.total, "trouble": next(self._troubles)}
            if self._chance.random() < 0.5:
                id = (await self._bot.send(SHOP, body, message_type="order")).id
            else:
                id = (await self._bot.workflows.start("order", body, definition=ORDER)).id
            self.orders[id] = order

    async def set_sail(self) -> None:
        """Begin a voyage."""
        seed = {"seed": self._chance.random(), "parts": self._chance.choice([1, 2])}
        self.voyages.add((await self._bot.workflows.start("voyage", seed, definition=VOYAGE)).id)

    async def attend(self) -> None:
        """Do what orders wait for, again and again."""
        while True:
            await self._pay()
            await self._release()
            await self._call()
            await self._resume()
            if self.is_mended:
                await self._retry()
            await anyio.sleep(0.1)

    async def _pay(self) -> None:
        """Pay what is not paid yet, and send its items; each twice, and one more than is waited for."""
        for id, order in list(self.orders.items()):
            if order.is_paid:
                continue
            with suppress(NotFound, RunEnded):  # its message is still on its way; it was cancelled
                for _ in range(2):
                    await self._bot.workflows.send_signal(id, "paid", order.total, id=f"{id}/paid")
                    for item in range(ITEMS + 1):
                        await self._bot.workflows.send_signal(id, "item", item, id=f"{id}/item {item}")
                order.is_paid = True

    async def _call(self) -> None:
        """Send something to a voyage, whether it listens or not."""
        running = await self._bot.workflows.list_all_runs(RunStatus.PAUSED, where=bus.RunFilter(workflow="voyage"))
        for run in running:
            with suppress(NotFound, RunEnded, TooManySignals):
                await self._bot.workflows.send_signal(run.id, "call")

    async def _release(self) -> None:
        for step in await self._bot.workflows.list_waiting_approvals(None, None):
            answer = {"approved": True, "by": CLERK}
            with suppress(InvalidTransition):  # a repeated answer
                await self._bot.workflows.update_step_status(step.id, StepStatus.COMPLETED, answer)

    async def _retry(self) -> None:
        """Let the orders go on that were stopped, whether their messages come again or are dead letters.

        Some of those that failed begin with their packing again.
        """
        workflows = self._bot.workflows
        for run in await workflows.list_all_runs(RunStatus.PAUSED, limit=None):
            if run.error is not None and run.id not in self._resumed_at:
                with suppress(InvalidTransition, RunHeld):
                    await workflows.retry_run(run.id)
        for run in await workflows.list_all_runs(RunStatus.FAILED, limit=None):
            step = next(self._retried_from)
            with suppress(InvalidTransition, RunHeld):
                if step is not None:  # from here on it may be carried out again, whenever the answer comes
                    self._notes.write("sets aside", run.id, step)
                await workflows.retry_run(run.id, step)
                if step is not None:
                    self._notes.write("has set aside", run.id, step)
        for run in await workflows.list_all_runs(RunStatus.CRASHED, limit=None):
            if run.recoveries > _RECOVERIES_MAX:  # the machine is too busy for leases, and nobody opens it any more
                with suppress(InvalidTransition, RunHeld):
                    await workflows.retry_run(run.id)
        if letters := await self._bot.dead_letters(bot=SHOP):
            await self._bot.retry_dead_letters([letter.seq for letter in letters], bot=SHOP)

    async def cancel(self, among: int) -> None:
        """Cancel one of the newest orders, or a voyage, wherever it is; one that is over stays as it is."""
        id = self._one_of(among)
        with suppress(NotFound, InvalidTransition):
            if id in self.orders:
                self.orders[id].may_be_cancelled = True
            else:
                self.cancelled.add(id)
            await self._bot.workflows.cancel_run(id, "another boat is cheaper", _GRACE_SECONDS)

    async def pause(self, among: int) -> None:
        """Take one of the newest orders, or a voyage, from whoever has it, for a while."""
        id = self._one_of(among)
        self._resumed_at[id] = time.monotonic() + _PAUSED_SECONDS
        with suppress(NotFound, InvalidTransition):
            await self._bot.workflows.update_run_status(id, RunStatus.PAUSED, "the clerk has a question")

    async def _resume(self) -> None:
        for id, at in list(self._resumed_at.items()):
            if time.monotonic() > at:
                with suppress(NotFound, InvalidTransition, RunHeld):
                    await self._bot.workflows.retry_run(id)
                del self._resumed_at[id]

    def _one_of(self, among: int) -> str:
        if self.voyages and self._chance.random() < _VOYAGES:
            return self._chance.choice(sorted(self.voyages))
        return self._chance.choice(list(self.orders)[-among:])

    async def fork(self) -> None:
        """Let an order be packed, be confirmed, or go on once more, by a run of its own."""
        forked = {order.fork_of for order in self.orders.values()}
        found = [id for id, order in self.orders.items() if not order.may_be_cancelled and id not in forked]
        before = self._chance.choice(["pack", "confirm", None])
        if found:
            id = self._chance.choice(found)
            with suppress(NotFound):  # it has not come so far
                fork = await self._bot.workflows.fork_run(id, f"{id}-again", before)
                self.orders[fork.id] = Order(total=self.orders[id].total, fork_of=id, forked_before=before)

    async def until_all_ended(self) -> None:
        """Wait until all orders are over, and nothing else is open."""
        deadline = time.monotonic() + _END_SECONDS
        while open_runs := await self._open():
            if time.monotonic() > deadline:
                raise AssertionError(f"these are not over: {open_runs[:3]}")
            await anyio.sleep(0.2)

    async def _open(self) -> list[object]:
        runs: Iterable[bus.RunSummary] = await self._bot.workflows.list_all_runs(limit=None)
        statuses = {run.id: run.status for run in runs}
        unknown = [id for id in (*self.orders, *self.voyages) if id not in statuses]
        return [*unknown, *((id, status) for id, status in statuses.items() if status not in _OVER)]
