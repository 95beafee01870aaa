"""A bot that executes runs which wait for signals, start others and clean up, as a process that stands still.

Its arguments are those of `run_program`: the worker's address, its name, the seconds of its lease, and the point,
or nothing. It executes the run of a message, and the child that this run calls; or, if the message says `undo`, a
run that cleans up when it is cancelled.
"""

from __future__ import annotations

import sys

import anyio

import bus
from bus.model.records import GlobalOwner, WorkflowDefinition

from .run_program import Points, Wire

__all__ = ["FLOW", "PART"]

FLOW, PART = (WorkflowDefinition(id=name, name=name, owner=GlobalOwner()) for name in ("flow", "part"))

_GLANCE_SECONDS = 0.02


class Flow:
    """The bot and its workflows."""

    def __init__(self, bot: bus.Bot, points: Points, lease_seconds: float) -> None:
        self.bot = bot
        self._at = points.at
        self._lease_seconds = lease_seconds
        bot.on_message()(self.begin)
        bot.on_message("workflow.crashed")(self.go_on)

    async def begin(self, message: bus.Message) -> None:
        """Execute the run of a message, and the child that it calls."""
        if message.body == "undo":
            await self._undo(message)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._part, f"{message.id}/part")
            await self._flow(message)
            tasks.cancel_scope.cancel()

    async def go_on(self, message: bus.Message) -> None:
        """Do nothing: the message that began the run is redelivered."""

    async def _flow(self, message: bus.Message) -> None:
        workflows = self.bot.workflows
        async with workflows.run("flow", id=message.id, definition=FLOW, lease_seconds=self._lease_seconds) as run:
            first = await run.wait("go")
            self._at("before side")
            side = await run.start("part", 1, name="side")
            async with run.commit("book", output=side.id) as tx:
                tx.start("part", 2, name="booked")
                tx.signal(f"{message.id}-box", "told", first.payload)
                tx.publish(f"{self.bot.name}-news", {"run": run.id})
            second = await run.wait("go", "stop")
            answer = await run.call("part", 5, name="part")
            self._at("before end")
            async with run.commit("end") as tx:
                tx.ack(message)
                tx.complete(result=[first.payload, second.payload, answer])
        self._at("left")

    async def _undo(self, message: bus.Message) -> None:
        workflows = self.bot.workflows
        async with workflows.run("flow", id=message.id, definition=FLOW, lease_seconds=self._lease_seconds) as run:
            await run.step("charge", self._charge)
            try:
                await run.wait("never")
            except bus.RunCancelled:
                self._at("told")
                await run.step("refund", self._charge)
                self._at("before note")
                async with run.commit("note") as tx:
                    tx.publish(f"{self.bot.name}-news", {"run": run.id})
                raise

    async def _charge(self) -> None:
        await anyio.sleep(_GLANCE_SECONDS)  # so that its beginning is recorded by a call of its own

    async def _part(self, id: str) -> None:
        workflows = self.bot.workflows
        while True:  # until its parent has started it
            if await workflows.get_run(id) is not None:
                break
            await anyio.sleep(_GLANCE_SECONDS)
        async with workflows.run("part", id=id, lease_seconds=self._lease_seconds, timeout=None) as run:
            run.result = run.input * 10


def main(url: str, name: str, lease_seconds: str, point: str) -> None:
    """Serve until killed."""
    bot, points = bus.connect(url, bot=name), Points(point)
    Wire(bot._connection, points)
    Flow(bot, points, float(lease_seconds))
    bot.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
