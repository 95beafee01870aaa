"""What keys cost: a worker with keys beside one without, in turns.

Owns the command. A bot sends messages to itself and settles them, and the processor time of the worker's whole
process is read before and after, with the threads of ZeroMQ, which encrypt. Both workers live during the whole run,
and a round measures each of them, the one that was second before first. Exits with 0 when the run is complete; how
long anything took never decides.

Run as `python -m bench.keyed`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import anyio
import rich_click as click

import bus

from . import machine
from .processes import DATABASE, Worker

__all__ = []

_BODY = {"text": "x" * 200}

_WARM_FRAMES = 20

_SINGLES_PART = 10
"""Frames of one message are sent one after another: a tenth of the messages takes as long."""

_KEYED = '[security]\nmode = "keys"\n'


def _credentials(worker: Worker) -> Path:
    return worker.folder / f"{DATABASE}-admin.creds"


async def _exchange(bot: bus.Bot, frames: int, messages: int) -> None:
    """Send frames of so many messages to the bot itself, and take and settle all of them."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_take, bot, frames * messages)
        for _ in range(frames):
            await bot.send_all([bus.Draft(to=bot.name, body=_BODY)] * messages)


async def _take(bot: bus.Bot, count: int) -> None:
    for _ in range(count):
        await (await bot.receive()).ack()


async def _cost(worker: Worker, bot: bus.Bot, frames: int, messages: int) -> float:
    """Return the worker's processor time a message in microseconds."""
    await _exchange(bot, _WARM_FRAMES, messages)
    before = sum(machine.processor_seconds(worker.pid))
    await _exchange(bot, frames, messages)
    return (sum(machine.processor_seconds(worker.pid)) - before) / (frames * messages) * 1e6


async def _measure(rounds: int, sizes: Sequence[tuple[int, int]]) -> None:
    with Worker() as plain, Worker(_KEYED) as keyed:
        async with (
            bus.connect(plain.url, bot="itself") as of_plain,
            bus.connect(credentials=_credentials(keyed)) as of_keyed,
        ):
            pair = [(plain, of_plain), (keyed, of_keyed)]
            for messages, frames in sizes:
                found: dict[Worker, list[float]] = {plain: [], keyed: []}
                for number in range(rounds):
                    for worker, bot in pair[:: 1 if number % 2 else -1]:
                        found[worker].append(await _cost(worker, bot, frames, messages))
                ratios = [ours / theirs for ours, theirs in zip(found[keyed], found[plain], strict=True)]
                click.echo(
                    f"{messages} messages a frame: {statistics.median(found[keyed]):.1f} us a message with keys, "
                    f"{statistics.median(found[plain]):.1f} without; ratio {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f} to {max(ratios):.2f})"
                )


@click.command()
@click.option("--rounds", default=7, show_default=True, help="How often each worker is measured.")
@click.option("--messages", default=30_000, show_default=True, help="How many messages a measurement has.")
def main(rounds: int, messages: int) -> None:
    """Measure what keys cost the worker, in frames of a hundred messages and of one."""
    anyio.run(_measure, rounds, [(100, messages // 100), (1, messages // _SINGLES_PART)])


if __name__ == "__main__":
    main()
