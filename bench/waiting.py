"""What runs cost that only wait: ten thousand of one bot, each begun by a message, while it has other things to do.

Owns the command. A bot serves in a process of its own, and each of the messages begins a run that waits for a
person, or for a time that is far away. When all of them wait, it is measured what they take: the memory of the bot
and of the worker, the processor time of both at rest, the bytes that the worker writes meanwhile, and how long a
request to the same bot takes. Then the runs that wait for a person are answered by messages, and have to complete.
Exits with 0 when every run did what it was to do; how long anything took never decides.

Run as `python -m bench.waiting`.
"""

from __future__ import annotations

import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import anyio
import rich_click as click

import bus
from bus.model.records import GlobalOwner, WorkflowDefinition

from . import machine
from .processes import Client, Worker

__all__ = []

_DEFINITION = WorkflowDefinition(id="waiting", name="waiting", owner=GlobalOwner())

_FAR_SECONDS = 1_000_000.0

_SENT_AT_ONCE = 500

_REQUESTS = 200

_SETTLE_SECONDS = 3600.0
"""The longest that the runs may take to begin, or to end: an end is needed."""


def _serve(pipe: Connection, url: str, wait: str) -> None:
    """Serve a bot whose runs wait; answer each thing that is told with its process and how many runs wait."""
    import os

    bot = bus.Bot("waiter", url)
    waiting = 0
    done = 0

    @bot.on_message("begin")
    async def begin(message: bus.Message) -> None:
        nonlocal waiting, done
        async with bot.workflows.run("waiting", id=message.id, definition=_DEFINITION) as run:
            waiting += 1
            if wait == "approval":
                await run.approval("go")
            else:
                await run.sleep(_FAR_SECONDS)
        waiting -= 1
        done += 1

    @bot.on_message("ping")
    async def ping(message: bus.Message) -> str:
        return "pong"

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda task_status: bot.serve(task_status=task_status))
            pipe.send(os.getpid())
            while True:
                await anyio.to_thread.run_sync(pipe.recv)
                parked = len(bot._connection.deliveries.parked)
                pipe.send((waiting, parked, done))

    anyio.run(main)


def _written_bytes(pid: int) -> int:
    """Return what a process has written to disks."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))


async def _until(client: Client, is_so: Any, what: str) -> None:
    with anyio.fail_after(_SETTLE_SECONDS):
        while True:
            found = await anyio.to_thread.run_sync(client.ask, "look")
            if is_so(*found):
                return
            await anyio.sleep(0.5)
            click.echo(f"\r{what}: waiting {found[0]}, parked {found[1]}, done {found[2]}   ", nl=False, err=True)


async def _latencies(bot: bus.Bot) -> list[float]:
    """Return how long requests to the waiting bot take, in milliseconds."""
    found: list[float] = []
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        await bot.request("waiter", None, message_type="ping")
        found.append((time.perf_counter() - began) * 1000)
    return found


def _told(name: str, latencies: list[float]) -> str:
    ordered = sorted(latencies)
    return f"{name}: p50 {statistics.median(ordered):.1f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.1f} ms"


async def _measure(runs: int, rest_seconds: float, wait: str) -> None:
    with Worker() as worker, Client(_serve, worker.url, wait) as client:
        pid = await anyio.to_thread.run_sync(client.answer, 60.0)
        async with bus.connect(worker.url, bot="asker") as asker:
            await asker.request("waiter", None, message_type="ping")
            before = {name: machine.memory_bytes(each) for name, each in (("bot", pid), ("worker", worker.pid))}
            click.echo(_told("a request, without runs", await _latencies(asker)))
            began = time.perf_counter()
            ids: list[str] = []
            while len(ids) < runs:
                drafts = [bus.Draft(to="waiter", body=None, message_type="begin")] * min(
                    _SENT_AT_ONCE, runs - len(ids)
                )
                ids += [receipt.id for receipt in await asker.send_all(drafts)]
            await _until(client, lambda waiting, parked, done: waiting == parked == runs, "beginning")
            click.echo(f"\n{runs} runs wait for {wait}, after {time.perf_counter() - began:.1f} s")
            for name, each in (("bot", pid), ("worker", worker.pid)):
                grown = machine.memory_bytes(each) - before[name]
                click.echo(f"memory of the {name}: {grown / 1e6:.0f} MB more, {grown / runs / 1e3:.1f} kB a run")
            await anyio.sleep(min(5.0, rest_seconds))
            await _rest(worker.pid, pid, rest_seconds)
            click.echo(_told("a request, beside them", await _latencies(asker)))
            if wait == "approval":
                began = time.perf_counter()
                for id in ids:
                    await asker.send("waiter", {"run_id": id, "step": "go"}, message_type="workflow.approve")
                await _until(client, lambda waiting, parked, done: done == runs, "ending")
                click.echo(f"\nanswered by messages, and completed, after {time.perf_counter() - began:.1f} s")


async def _rest(worker: int, bot: int, seconds: float) -> None:
    """Tell what both processes do while nothing happens."""
    spent = {name: sum(machine.processor_seconds(pid)) for name, pid in (("bot", bot), ("worker", worker))}
    written = _written_bytes(worker)
    await anyio.sleep(seconds)
    for name, pid in (("bot", bot), ("worker", worker)):
        used = sum(machine.processor_seconds(pid)) - spent[name]
        click.echo(f"processor time of the {name} at rest: {used / seconds * 1000:.1f} ms a second")
    click.echo(f"written by the worker at rest: {(_written_bytes(worker) - written) / seconds:.0f} bytes a second")


@click.command()
@click.option("--runs", default=10_000, show_default=True, help="How many runs wait.")
@click.option("--rest", default=60.0, show_default=True, help="For how many seconds rest is measured.")
@click.option(
    "--wait", type=click.Choice(["approval", "sleep"]), default="approval", show_default=True, help="For what."
)
def main(runs: int, rest: float, wait: str) -> None:
    """Measure what many runs cost that only wait."""
    anyio.run(_measure, runs, rest, wait)


if __name__ == "__main__":
    main()
