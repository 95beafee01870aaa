"""How long bots wait when the worker that leads hands over: two on three nodes of PostgreSQL, stopped in turns.

Owns the command. One bot sends one message after the other, and another one receives them; both know both workers.
A handover's pause is the longest time between two acknowledged messages. The load of the machine and the processor
time of the worker that takes over stand beside it, as the pause is mostly a matter of both.

Run as `python -m bench.handover`.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import anyio
import rich_click as click

import bus
from tests.integration.wire_worker import Worker
from tests.postgresql.cluster import USER, missing, quorum
from tests.postgresql.promotion import WAITED_FOR

from . import machine

__all__ = ["main"]

_REST_SECONDS = 3.0
"""Between handovers: who was stopped stands by again."""

_AFTER = 20
"""Acknowledged messages after which a handover is over."""

_PATIENCE_SECONDS = 100.0


class _Sender:
    """A bot that sends one message after the other."""

    def __init__(self, bot: bus.Bot) -> None:
        self.bot = bot
        self.acknowledged: list[float] = []
        self._more = anyio.Event()

    async def run(self) -> None:
        while True:
            await self.bot.send("receiver", "a message")
            self.acknowledged.append(time.monotonic())
            self._more.set()
            self._more = anyio.Event()

    async def go_on_at(self, worker: Worker) -> None:
        """Wait until messages are acknowledged by another worker."""
        while self.bot.url != worker.command:
            await self._more.wait()
        wanted = len(self.acknowledged) + _AFTER
        while len(self.acknowledged) < wanted:
            await self._more.wait()


async def _receive(bot: bus.Bot) -> None:
    while True:
        await (await bot.receive()).ack()


async def _measure(workers: tuple[Worker, Worker], handovers: int) -> list[float]:
    """Hand over so many times; print and return the pauses."""
    urls, pauses = [worker.command for worker in workers], []
    async with (
        bus.connect(urls, bot="sender", timeout=_PATIENCE_SECONDS) as sending,
        bus.connect(urls, bot="receiver", timeout=_PATIENCE_SECONDS) as receiving,
        anyio.create_task_group() as tasks,
    ):
        sender = _Sender(sending)
        tasks.start_soon(sender.run)
        tasks.start_soon(_receive, receiving)
        for turn in range(handovers):
            await anyio.sleep(_REST_SECONDS)
            here, there = workers[turn % 2], workers[1 - turn % 2]
            before, first = machine.tree_seconds(there.pid), max(len(sender.acknowledged) - 1, 0)
            await anyio.to_thread.run_sync(here.stop)
            await sender.go_on_at(there)
            spent = machine.tree_seconds(there.pid) - before
            pauses.append(max(later - earlier for earlier, later in pairwise(sender.acknowledged[first:])))
            load, _, _ = os.getloadavg()
            click.echo(f"{pauses[-1]:.3f} s; {spent:.2f} s of the heir's processor time; load {load:.1f}")
            await anyio.to_thread.run_sync(here.start)
        tasks.cancel_scope.cancel()
    return pauses


@click.command()
@click.option("--handovers", default=6, show_default=True, type=click.IntRange(min=1), help="How many.")
def main(handovers: int) -> None:
    """Stop two workers on three nodes of PostgreSQL in turns, and measure how long bots wait."""
    if (reason := missing()) is not None:
        click.echo(f"left out: {reason}")
        sys.exit(2)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="posthouse-handover-")))
        nodes = stack.enter_context(quorum())
        for node in nodes:
            node.configure(WAITED_FOR)
            node.reload()
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        workers: list[Worker] = []
        for name in "ab":
            (folder / name).mkdir()
            workers.append(Worker(folder / name))
            workers[-1].engine = f"postgresql://{USER}@{hosts}/{USER}"
            stack.enter_context(workers[-1])
        one, other = workers
        pauses = anyio.run(_measure, (one, other), handovers)
    click.echo(f"{len(pauses)} handovers: median {statistics.median(pauses):.3f} s, longest {max(pauses):.3f} s")


if __name__ == "__main__":
    main()
