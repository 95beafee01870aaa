"""A shop whose bot executes orders, as a process that is killed at any moment: `python -m tests.crash.shop`.

Its arguments are the worker's address and two files. Into the first it writes a line for each step's function that
was `called`, and for each output that a program `saw`, with one write each: a kill leaves it whole or not at
all. Until the second is there, some orders meet a bug, and others fail.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

import bus

from .voyages import VOYAGE, Sailor

__all__ = ["BUG", "CLERK", "FAILURE", "ITEMS", "ORDER", "SHOP", "TICK", "TOCK", "Line", "Notebook"]

SHOP, CLERK = "shop", "clerk"
"""The bots that execute orders, and that begin and answer them."""

ORDER = bus.WorkflowDefinition(id="order", name="order", owner=bus.GlobalOwner())
TICK = bus.WorkflowDefinition(id="tick", name="tick", owner=bus.GlobalOwner())
TOCK = bus.WorkflowDefinition(id="tock", name="tock", owner=bus.GlobalOwner())
_SHIPMENT = bus.WorkflowDefinition(id="shipment", name="shipment", owner=bus.GlobalOwner(), concurrency=4)

BUG, FAILURE = "bug", "failure"
"""What an order meets until the shop is mended: an error that pauses it, and one that fails it."""

ITEMS = 3
"""So many signals of one name are sent to an order, and taken by it."""

_LEASE_SECONDS = 4.0
_PICKERS = 4
_PARCELS = 8
_TOCK_SECONDS = 1.5
"""Longer than from one of its times to the next."""

_FLAKY = bus.Retry(max_attempts=1000, delay=0.001)
"""A kill is a failed attempt, too: none of the steps is to be given up."""


class Line(msgspec.Struct):
    """What a step's function or a program said, when, by a clock that all processes share, and in which process."""

    what: str
    run: str
    step: str
    at: int
    value: Any = None
    by: int = 0


class Notebook:
    """A file of lines."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, run: str, step: str, value: Any = None) -> None:
        """Add a line."""
        line = Line(what, run, step, time.monotonic_ns(), value, os.getpid())
        os.write(self._file, msgspec.json.encode(line) + b"\n")


class Shop:
    """The bot and its workflow."""

    def __init__(self, bot: bus.Bot, notebook: Notebook, mended: Path) -> None:
        self.bot = bot
        self._write = notebook.write
        self._mended = mended
        self._attempts: Counter[str] = Counter()
        bot.on_message("order")(self.begin)
        bot.on_message("workflow.crashed")(self.leave)
        bot.on_run("order", definition=ORDER, lease_seconds=_LEASE_SECONDS)(self.execute)
        bot.on_run("shipment", definition=_SHIPMENT, lease_seconds=_LEASE_SECONDS)(self.ship)
        bot.on_run("tick", definition=TICK, lease_seconds=_LEASE_SECONDS)(self.tick)
        bot.on_run("tock", definition=TOCK, lease_seconds=_LEASE_SECONDS)(self.tock)
        bot.on_run("voyage", definition=VOYAGE, lease_seconds=_LEASE_SECONDS)(Sailor(self._write).sail)

    async def begin(self, message: bus.Message) -> None:
        """Execute the order of a message, which is settled when the order is over, also by a cancellation."""
        try:
            async with self.bot.workflows.run(
                "order", id=message.id, input=message.body, definition=ORDER, lease_seconds=_LEASE_SECONDS
            ) as run:
                await self._order(run, message)
        except* bus.RunCancelled:
            pass

    async def execute(self, run: bus.Run) -> None:
        """Execute an order that no message began."""
        await self._order(run, None)

    async def ship(self, run: bus.Run) -> Any:
        """Ship an order, in as many runs as it has boats to take, one after the other."""
        boats = run.input["boats"]
        try:
            where = await self._step(run, "sail", boats)
            await run.sleep(0.1)
            if boats > 1:
                await run.continue_as_new({"boats": boats - 1})
                return None
        except bus.RunCancelled:
            await self._step(run, "turn back", boats)
            raise
        return where

    async def tick(self, run: bus.Run) -> None:
        """Do what is done each second."""
        await self._step(run, "tick", 0)

    async def tock(self, run: bus.Run) -> None:
        """Do what takes longer than a second, and is not to overlap."""
        await self._step(run, "tock", 0)
        await run.sleep(_TOCK_SECONDS)

    async def leave(self, message: bus.Message) -> None:
        """Do nothing: the message that began the order comes again."""

    async def _order(self, run: bus.Run, message: bus.Message | None) -> None:
        try:
            await self._deliver(run, message)
        except* bus.RunCancelled:
            # Also if that met the charge itself: nobody knows whether it took place.
            returned = await self._step(run, "give back", run.input["total"])
            async with run.commit("refund", output=returned) as tx:
                tx.publish("refunded", {"order": run.id})
            raise

    async def _deliver(self, run: bus.Run, message: bus.Message | None) -> None:
        charged = await self._step(run, "charge", run.input["total"])
        trouble = None if self._mended.exists() else run.input["trouble"]
        if trouble == BUG:
            raise RuntimeError("a bug")
        async with anyio.create_task_group() as tasks:
            for picker in range(_PICKERS):
                tasks.start_soon(self._step, run.branch(str(picker)), "pick", picker)
        for parcel in range(_PARCELS):
            await self._step(run, "pack", parcel)
        if trouble == FAILURE:
            raise bus.FailRun("the boat is full")
        signal = await run.wait("paid", "refused")
        self._write("saw", run.id, "paid", [signal.name, signal.payload])
        items = [(await run.wait("item")).payload for _ in range(ITEMS)]
        self._write("saw", run.id, "items", items)
        shipped = await run.call("shipment", {"boats": 2})
        self._write("saw", run.id, "shipment", shipped)
        answer = await run.approval("release", run.input)
        self._write("saw", run.id, "release", answer["by"])
        async with run.commit("confirm", output=charged) as tx:
            tx.publish("confirmed", {"order": run.id, "charged": charged})
            if message is not None:
                tx.ack(message)
            result = {"charged": charged, "paid": signal.payload, "items": items, "shipped": shipped}
            tx.complete(result=result)

    async def _step(self, run: Any, name: str, value: int) -> Any:
        async def carry_out() -> list[int]:
            place = f"{run.id}/{name}/{value}"
            self._write("called", run.id, f"{name}/{value}")
            await anyio.lowlevel.checkpoint()
            self._attempts[place] += 1
            if (hash(place) + self._attempts[place]) % 3 == 0:
                raise ConnectionError("flaky")
            return [value, time.monotonic_ns()]  # another output each time that it is carried out

        output = await run.step(name, carry_out, input=value, retry=_FLAKY)
        self._write("saw", run.id, f"{name}/{value}", output)
        return output


def main(url: str, notes: str, mended: str) -> None:
    """Serve until killed or stopped."""
    bot = bus.connect(url, bot=SHOP)
    Shop(bot, Notebook(notes), Path(mended))
    bot.run(concurrency=20, stop_timeout=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
