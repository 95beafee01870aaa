"""A shop whose bot executes orders, as a process that is killed at any moment: `python -m tests.crash.shop`.

Its arguments are the worker's address and two files. Into the first it writes a line for each step's function that
was `called`, and for each output that a program `saw`, with one write each: a kill leaves it whole or not at
all. Until the second is there, some orders meet a bug.
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

__all__ = ["CLERK", "ORDER", "SHOP", "TICK", "Line"]

SHOP, CLERK = "shop", "clerk"
"""The bots that execute orders, and that begin and answer them."""

ORDER = bus.WorkflowDefinition(id="order", name="order", owner=bus.GlobalOwner())
TICK = bus.WorkflowDefinition(id="tick", name="tick", owner=bus.GlobalOwner())
_SHIPMENT = bus.WorkflowDefinition(id="shipment", name="shipment", owner=bus.GlobalOwner(), concurrency=4)

_LEASE_SECONDS = 2.0
_PICKERS = 4
_PARCELS = 8

_FLAKY = bus.Retry(max_attempts=1000, delay=0.001)
"""A kill is a failed attempt, too: none of the steps is to be given up."""


class Line(msgspec.Struct):
    """What a step's function or a program said, and when, by a clock that all processes share."""

    what: str
    run: str
    step: str
    at: int
    value: Any = None


class _Notebook:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, run: str, step: str, value: Any = None) -> None:
        line = Line(what, run, step, time.monotonic_ns(), value)
        os.write(self._file, msgspec.json.encode(line) + b"\n")


class Shop:
    """The bot and its workflow."""

    def __init__(self, bot: bus.Bot, notebook: _Notebook, mended: Path) -> None:
        self.bot = bot
        self._write = notebook.write
        self._mended = mended
        self._attempts: Counter[str] = Counter()
        bot.on_message("order")(self.begin)
        bot.on_message("workflow.crashed")(self.leave)
        bot.on_run("order", definition=ORDER, lease_seconds=_LEASE_SECONDS)(self.execute)
        bot.on_run("shipment", definition=_SHIPMENT, lease_seconds=_LEASE_SECONDS)(self.ship)
        bot.on_run("tick", definition=TICK, lease_seconds=_LEASE_SECONDS)(self.tick)

    async def begin(self, message: bus.Message) -> None:
        """Execute the order of a message."""
        async with self.bot.workflows.run(
            "order", id=message.id, input=message.body, definition=ORDER, lease_seconds=_LEASE_SECONDS
        ) as run:
            await self._order(run, message)

    async def execute(self, run: bus.Run) -> None:
        """Execute an order that no message began."""
        await self._order(run, None)

    async def ship(self, run: bus.Run) -> Any:
        """Ship an order, in as many runs as it has boats to take, one after the other."""
        where = await self._step(run, "sail", run.input["boats"])
        await run.sleep(0.1)
        if run.input["boats"] > 1:
            await run.continue_as_new({"boats": run.input["boats"] - 1})
            return None
        return where

    async def tick(self, run: bus.Run) -> None:
        """Do what is done each second."""
        await self._step(run, "tick", 0)

    async def leave(self, message: bus.Message) -> None:
        """Do nothing: the message that began the order comes again."""

    async def _order(self, run: bus.Run, message: bus.Message | None) -> None:
        charged = await self._step(run, "charge", run.input["total"])
        if run.input["buggy"] and not self._mended.exists():
            raise RuntimeError("a bug")
        async with anyio.create_task_group() as tasks:
            for picker in range(_PICKERS):
                tasks.start_soon(self._step, run.branch(str(picker)), "pick", picker)
        for parcel in range(_PARCELS):
            await self._step(run, "pack", parcel)
        signal = await run.wait("paid", "refused")
        self._write("saw", run.id, "paid", [signal.name, signal.payload])
        shipped = await run.call("shipment", {"boats": 2})
        self._write("saw", run.id, "shipment", shipped)
        answer = await run.approval("release", run.input)
        self._write("saw", run.id, "release", answer["by"])
        async with run.commit("confirm", output=charged) as tx:
            tx.publish("confirmed", {"order": run.id, "charged": charged})
            if message is not None:
                tx.ack(message)
            tx.complete(result={"charged": charged, "paid": signal.payload, "shipped": shipped})

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
    """Serve until killed."""
    bot = bus.connect(url, bot=SHOP)
    Shop(bot, _Notebook(notes), Path(mended))
    bot.run(concurrency=50)


if __name__ == "__main__":
    main(*sys.argv[1:])
