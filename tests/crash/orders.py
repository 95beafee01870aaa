"""Orders whose bots and worker are killed at random: `python -m tests.crash.orders`.

Owns the rounds: some bots of a shop execute orders, a clerk gives them, and one process after the other is killed
and started again. `order_checks` judges what is there at the end. Limits are as shipped; sessions and leases are
short.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

import bus
from bus.errors import UnknownChannel
from store.sqlite.check import Check

from ..integration.wire import TIMEOUT_SECONDS
from ..integration.wire_worker import REPOSITORY, Process, Worker
from .clerk import Clerk
from .command import Outcome, Progress, campaign, play
from .nursery import ForkedWorker, forked, shared_nursery
from .order_checks import Books, Order, faults
from .shop import CLERK, SHOP, Line, Notebook
from .voyages import TOLD, Told

__all__ = ["orders", "play_round"]

_CONFIGURATION = """
[delivery]
backoff_seconds = [0.1]
heartbeat_seconds = 0.5
session_timeout_seconds = 2.0

[workflows]
sweep_seconds = 0.2
"""

_KILLS_A_ROUND = 12
_SHOPS = 2
_ORDERS_A_KILL = 3
_PAUSE_SECONDS = 2.0
"""The most between two kills."""

_CANCELS = 0.8
_FORKS = 0.5
_PAUSES = 0.5
"""How often an order is cancelled, forked, or paused before a kill."""

_STOPS = 0.2
"""How often a process is let stop instead of being killed."""

_PROCESS_PAUSES = 0.1
_STOPPED_SECONDS = 6.0
"""How often, before a kill, a bot is stopped where it is, and for how long: longer than a lease and a session."""

_lines = msgspec.json.Decoder(Line)


class _Shops:
    """The processes of the shop, each with a file of its own."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker = worker
        self._folder = folder
        self._processes: list[Process] = []

    def start(self, count: int) -> None:
        for number in range(count):
            self._processes.append(self._spawn(number))

    def _spawn(self, number: int) -> Process:
        arguments = [self._worker.command, str(self._folder / f"notes-{number}"), str(self._folder / "mended")]
        log = self._folder / "shop.log"
        return forked(shared_nursery(), "tests.crash.shop", arguments, directory=REPOSITORY, log=log)

    def end_one(self, chance: random.Random, *, orderly: bool) -> None:
        """Kill one of them, or let it stop, and start it again."""
        number = chance.randrange(len(self._processes))
        if orderly:
            self._processes[number].terminate()
            self._processes[number].wait(TIMEOUT_SECONDS)
        else:
            self._end(self._processes[number])
        self._processes[number] = self._spawn(number)

    def pause_one(self, chance: random.Random, notes: Notebook) -> None:
        """Stop one of them where it is for longer than its leases, and let it go on."""
        process = chance.choice(self._processes)
        process.send_signal(signal.SIGSTOP)
        time.sleep(_STOPPED_SECONDS)
        notes.write("continued", "", "", process.pid)
        process.send_signal(signal.SIGCONT)

    def mend(self) -> None:
        """Let no order meet the bug any more."""
        (self._folder / "mended").touch()

    def close(self) -> None:
        for process in self._processes:
            self._end(process)

    def _end(self, process: Process) -> None:
        process.kill()
        process.wait(TIMEOUT_SECONDS)

    def notes(self) -> list[Line]:
        """Return what all of them wrote, in the order of time."""
        lines = [
            _lines.decode(line)
            for file in self._folder.glob("notes-*")
            for line in file.read_bytes().splitlines(keepends=False)
        ]
        return sorted(lines, key=lambda line: line.at)


async def _play(worker: Worker, folder: Path, rounds: int, chance: random.Random, progress: Progress) -> Outcome:
    counted: Counter[str] = Counter()
    with ExitStack() as stack:
        shops = _Shops(worker, folder)
        stack.callback(shops.close)
        async with bus.connect(worker.command, bot=SHOP):
            pass  # the clerk knows it from now on
        async with bus.connect(worker.command, bot=CLERK) as bot:
            notes = Notebook(folder / "notes-clerk")
            clerk = Clerk(bot, chance, notes)
            async with anyio.create_task_group() as tasks:
                shops.start(_SHOPS)
                await clerk.wind_up()
                tasks.start_soon(clerk.attend)
                for number in range(rounds):
                    await clerk.begin(_ORDERS_A_KILL)
                    await clerk.set_sail()
                    await anyio.sleep(chance.uniform(0, _PAUSE_SECONDS))
                    if chance.random() < _CANCELS:
                        await clerk.cancel(among=2 * _ORDERS_A_KILL)
                    if chance.random() < _FORKS:
                        await clerk.fork()
                    if chance.random() < _PAUSES:
                        await clerk.pause(among=2 * _ORDERS_A_KILL)
                    if chance.random() < _PROCESS_PAUSES:
                        counted["paused"] += 1
                        await anyio.to_thread.run_sync(shops.pause_one, chance, notes)
                    await _end_one(worker, shops, chance, counted)
                    if number == rounds // 2:
                        shops.mend()
                        clerk.is_mended = True
                    progress(f"{number + 1} kills, {len(clerk.orders)} orders")
                await clerk.stop_the_clock()
                await clerk.until_all_ended()
                await clerk.fork()
                await clerk.until_all_ended()
                tasks.cancel_scope.cancel()
            books = await _books(bot, clerk, shops.notes())
            found = [*faults(books), *[fault async for fault in _left(bot)]]
    of_orders = Counter(str(books.runs[id].status) for id in books.orders)
    counted.update(
        kills=rounds,
        orders=len(books.orders),
        voyages=len(clerk.voyages),
        forks=sum(map(_is_fork, books.orders.values())),
    )
    counted["set aside"] = sum(line.what == "has set aside" for line in books.notes)
    return Outcome(counted + of_orders, found)


async def _end_one(worker: Worker, shops: _Shops, chance: random.Random, counted: Counter[str]) -> None:
    """Kill the worker or a bot, or let it stop, and start it again."""
    orderly = chance.random() < _STOPS
    if chance.random() < 0.4:
        counted["of the worker"] += 1
        await anyio.to_thread.run_sync(worker.stop if orderly else worker.kill)
        await anyio.to_thread.run_sync(worker.start)
    else:
        counted["of a bot"] += 1
        await anyio.to_thread.run_sync(partial(shops.end_one, chance, orderly=orderly))
    counted["orderly"] += orderly


def _is_fork(order: Order) -> bool:
    return order.fork_of is not None


async def _books(bot: bus.Bot, clerk: Clerk, notes: list[Line]) -> Books:
    """Read what there is at the end."""
    ids = [summary.id for summary in await bot.workflows.list_all_runs(limit=None)]
    found = [run for id in ids if (run := await bot.workflows.get_run(id)) is not None]
    schedules = await bot.workflows.list_schedules()
    return Books(
        orders=clerk.orders,
        cancelled=clerk.cancelled,
        runs={run.id: run for run in found},
        steps={id: await bot.workflows.list_step_logs(id) for id in ids},
        confirmed=Counter(body["order"] for body in await _told(bot, "confirmed")),
        refunded=Counter(body["order"] for body in await _told(bot, "refunded")),
        told=Counter(Told(**body) for body in await _told(bot, TOLD)),
        schedules=schedules,
        notes=notes,
    )


async def _told(bot: bus.Bot, channel: str) -> list[Any]:
    """Return what was told on a channel."""
    found: list[Any] = []
    before: int | None = None
    with suppress(UnknownChannel):  # nothing was ever told there
        while page := await bot.history(channel=channel, limit=1000, before_seq=before):
            found += [message.body for message in page]
            before = page[-1].seq
    return found


async def _left(bot: bus.Bot) -> AsyncIterator[str]:
    for letter in await bot.dead_letters(bot=SHOP):
        yield f"a dead letter is left: {letter}"
    for step in await bot.workflows.list_waiting_approvals(None, None):
        yield f"somebody is still asked: {step.run_id}/{step.step_id}"


def orders(folder: Path, rounds: int, seed: int, progress: Progress, *, lie: str | None = None) -> Outcome:
    """Kill processes so many times while orders are executed, and judge what is left."""
    chance = random.Random(seed)
    with ForkedWorker(folder, _CONFIGURATION, shared_nursery(), lie=lie) as worker:
        outcome = anyio.run(_play, worker, folder, rounds, chance, progress)
        worker.stop()
    reading = Check(worker.database)
    for _ in reading.run():
        pass
    return Outcome(outcome.counts, [*outcome.faults, *reading.damage])


def play_round(seed: int, *, rounds: int = _KILLS_A_ROUND) -> Counter[str]:
    """Play a round; AssertionError where a promise was broken."""
    return play(orders, rounds=rounds, seed=seed)


main = campaign(orders, rounds=100, explain=__doc__)

if __name__ == "__main__":
    main()
