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
from bus.errors import InvalidTransition, NotFound, RunEnded, RunHeld
from bus.model.records import RunStatus, StepStatus

from ..integration.wire import TIMEOUT_SECONDS
from .order_checks import Order
from .shop import BUG, CLERK, FAILURE, ITEMS, ORDER, SHOP, TICK, TOCK, Notebook

__all__ = ["SCHEDULES", "Clerk"]

_END_SECONDS = 4 * TIMEOUT_SECONDS

_GRACE_SECONDS = 3600.0
"""No program is to be away for so long that it has no time to clean up."""

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
        self.is_mended = False
        self._bot = bot
        self._chance = chance
        self._notes = notes
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

    async def attend(self) -> None:
        """Do what orders wait for, again and again."""
        while True:
            await self._pay()
            await self._release()
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
            if run.error is not None:
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
        if letters := await self._bot.dead_letters(bot=SHOP):
            await self._bot.retry_dead_letters([letter.seq for letter in letters], bot=SHOP)

    async def cancel(self, among: int) -> None:
        """Cancel one of the newest orders, wherever it is; one that is over stays as it is."""
        id = self._chance.choice(list(self.orders)[-among:])
        with suppress(NotFound, InvalidTransition):
            self.orders[id].may_be_cancelled = True
            await self._bot.workflows.cancel_run(id, "another boat is cheaper", _GRACE_SECONDS)

    async def fork(self) -> None:
        """Let an order that is completed be packed, or confirmed, once more by a run of its own."""
        completed = await self._bot.workflows.list_all_runs(RunStatus.COMPLETED, limit=None)
        forked = {order.fork_of for order in self.orders.values()}
        found = sorted({run.id for run in completed} & self.orders.keys() - forked)
        if found:
            id = self._chance.choice(found)
            before = self._chance.choice(["pack", "confirm"])
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
        unknown = [id for id in self.orders if id not in statuses]
        return [*unknown, *((id, status) for id, status in statuses.items() if status not in _OVER)]
