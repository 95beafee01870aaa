"""Orders whose bots and worker are killed at random: `python -m tests.crash.orders`.

Owns the rounds: some bots of a shop execute orders, a clerk begins them, pays and releases them, and one process
after the other is killed and started again. At the end every order has one result, no program saw two outputs of a
step, no step was carried out again after a program saw its output, and nothing is left open. All limits are as
shipped; sessions and leases are short.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec

import bus
from bus.errors import InvalidTransition, NotFound, RunHeld
from bus.model.records import RunStatus, StepStatus
from store.sqlite.check import Check

from ..integration.wire import TIMEOUT_SECONDS
from ..integration.wire_worker import REPOSITORY, Worker
from .command import Outcome, Progress, campaign, play
from .shop import CLERK, ORDER, SHOP, TICK, Line

__all__ = ["contradictions", "orders", "play_round"]

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
_FORKS = 3
_PAUSE_SECONDS = 2.0
"""The most between two kills."""

_END_SECONDS = 4 * TIMEOUT_SECONDS

_OVER = (RunStatus.COMPLETED, RunStatus.CANCELLED)

_ENDED = (StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED)

_lines = msgspec.json.Decoder(Line)


class _Shops:
    """The processes of the shop, each with a file of its own."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker = worker
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = (folder / "shop.log").open("ab")

    def start(self, count: int) -> None:
        for number in range(count):
            self._processes.append(self._spawn(number))

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        arguments = [self._worker.command, str(self._folder / f"notes-{number}"), str(self._folder / "mended")]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.shop", *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def kill_one(self, chance: random.Random) -> None:
        """Kill one of them, and start it again."""
        number = chance.randrange(len(self._processes))
        self._end(self._processes[number])
        self._processes[number] = self._spawn(number)

    def mend(self) -> None:
        """Let no order meet the bug any more."""
        (self._folder / "mended").touch()

    def close(self) -> None:
        for process in self._processes:
            self._end(process)
        self._log.close()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
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


class _Clerk:
    """Begins orders, pays and releases them, and mends the bug."""

    def __init__(self, bot: bus.Bot, chance: random.Random) -> None:
        self.orders: dict[str, dict[str, Any]] = {}
        self._bot = bot
        self._chance = chance

    async def wind_up(self) -> None:
        """Let something be done each second, from now on."""
        await self._bot.workflows.save_definition(TICK)
        schedule = bus.WorkflowSchedule(
            id="tick",
            workflow_id="tick",
            times=bus.IntervalTimes(seconds=1),
            overlap=bus.Overlap.ALLOW,
            catch_up=bus.CatchUp.ALL,
        )
        await self._bot.workflows.save_schedule(schedule)

    async def begin(self, count: int) -> None:
        for _ in range(count):
            body = {"total": self._chance.randrange(1000), "buggy": self._chance.random() < 0.2}
            if self._chance.random() < 0.5:
                id = (await self._bot.send(SHOP, body, message_type="order")).id
            else:
                id = (await self._bot.workflows.start("order", body, definition=ORDER)).id
            self.orders[id] = body

    async def pay(self) -> None:
        """Pay what is not paid yet, each with one signal that is sent twice, and one more that nobody waits for."""
        for id, body in list(self.orders.items()):
            if "paid" in body:
                continue
            with suppress(NotFound):  # its message is still on its way
                for _ in range(2):
                    await self._bot.workflows.send_signal(id, "paid", body["total"], id=f"{id}/paid")
                body["paid"] = True

    async def release(self) -> None:
        for step in await self._bot.workflows.list_waiting_approvals(None, None):
            answer = {"approved": True, "by": CLERK}
            with suppress(InvalidTransition):  # a repeated answer
                await self._bot.workflows.update_step_status(step.id, StepStatus.COMPLETED, answer)

    async def attend(self) -> None:
        """Pay and release, again and again."""
        while True:
            await self.pay()
            await self.release()
            await anyio.sleep(0.1)

    async def retry(self) -> None:
        """Let the orders go on that a bug stopped, whether their messages come again or are dead letters."""
        for run in await self._bot.workflows.list_all_runs(RunStatus.PAUSED, limit=None):
            if run.error is not None:
                with suppress(InvalidTransition, RunHeld):
                    await self._bot.workflows.retry_run(run.id)
        if letters := await self._bot.dead_letters(bot=SHOP):
            await self._bot.retry_dead_letters([letter.seq for letter in letters], bot=SHOP)

    async def fork(self, count: int) -> None:
        """Let some orders that are completed confirm once more, each as a run of its own."""
        for id in list(self.orders)[:count]:
            forked = await self._bot.workflows.fork_run(id, f"{id}-again", "confirm")
            self.orders[forked.id] = self.orders[id]

    async def until_all_ended(self) -> None:
        """Wait until all orders are completed, and nothing else is open."""
        deadline = time.monotonic() + _END_SECONDS
        while True:
            open_runs = [
                run for run in await self._bot.workflows.list_all_runs(limit=None) if run.status not in _OVER
            ]
            unknown = [id for id in self.orders if await self._bot.workflows.get_run(id) is None]
            if not open_runs and not unknown:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"these are not over: {unknown[:3]}, {open_runs[:3]}")
            await self.retry()
            await anyio.sleep(0.2)


async def _play(worker: Worker, folder: Path, rounds: int, chance: random.Random, progress: Progress) -> Outcome:
    kills: Counter[str] = Counter()
    with ExitStack() as stack:
        shops = _Shops(worker, folder)
        stack.callback(shops.close)
        async with bus.connect(worker.command, bot=SHOP):
            pass  # the clerk knows it from now on
        async with bus.connect(worker.command, bot=CLERK) as bot:
            clerk = _Clerk(bot, chance)
            async with anyio.create_task_group() as tasks:
                shops.start(_SHOPS)
                await clerk.wind_up()
                tasks.start_soon(clerk.attend)
                for number in range(rounds):
                    await clerk.begin(_ORDERS_A_KILL)
                    await anyio.sleep(chance.uniform(0, _PAUSE_SECONDS))
                    if chance.random() < 0.4:
                        kills["of the worker"] += 1
                        await anyio.to_thread.run_sync(worker.kill)
                        await anyio.to_thread.run_sync(worker.start)
                    else:
                        kills["of a bot"] += 1
                        await anyio.to_thread.run_sync(shops.kill_one, chance)
                    if number == rounds // 2:
                        shops.mend()
                    progress(f"{number + 1} kills, {len(clerk.orders)} orders")
                await bot.workflows.pause_schedule("tick")
                await clerk.until_all_ended()
                await clerk.fork(_FORKS)
                await clerk.until_all_ended()
                tasks.cancel_scope.cancel()
            faults = [fault async for fault in _faults(bot, clerk.orders, shops.notes())]
    return Outcome(kills + Counter(kills=rounds, orders=len(clerk.orders)), faults)


async def _faults(bot: bus.Bot, orders: dict[str, dict[str, Any]], notes: list[Line]) -> AsyncIterator[str]:
    confirmed: Counter[str] = Counter()
    before: int | None = None
    while True:
        page = await bot.history(channel="confirmed", limit=1000, before_seq=before)
        confirmed.update(message.body["order"] for message in page)
        if len(page) < 1000:
            break
        before = page[-1].seq
    for id, body in orders.items():
        run = await bot.workflows.get_run(id)
        assert run is not None
        if confirmed[id] != 1:
            yield f"order {id} was confirmed {confirmed[id]} times"
        if not isinstance(run.result, dict) or run.result["paid"] != body["total"]:
            yield f"order {id} of {body} has the result {run.result}"
        for step in await bot.workflows.list_step_logs(id):
            if step.status not in _ENDED:
                yield f"step {step.step_id} of order {id} is {step.status} at the end"
    for letter in await bot.dead_letters(bot=SHOP):
        yield f"a dead letter is left: {letter}"
    for step in await bot.workflows.list_waiting_approvals(None, None):
        yield f"somebody is still asked: {step.run_id}/{step.step_id}"
    for fault in contradictions(notes):
        yield fault


def contradictions(notes: Sequence[Line]) -> Iterator[str]:
    """Say where a program saw another output than one before, or a step was carried out again after that."""
    seen: dict[tuple[str, str], Line] = {}
    for line in notes:
        place = line.run, line.step
        first = seen.get(place)
        if line.what == "called" and first is not None:
            yield f"{line.run}/{line.step} was carried out again after its output had been seen"
        elif line.what == "saw" and first is not None and line.value != first.value:
            yield f"{line.run}/{line.step} gave {first.value} and later {line.value}"
        elif line.what == "saw":
            seen.setdefault(place, line)


def orders(folder: Path, rounds: int, seed: int, progress: Progress) -> Outcome:
    """Kill processes so many times while orders are executed, and judge what is left."""
    chance = random.Random(seed)
    with Worker(folder, _CONFIGURATION) as worker:
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
