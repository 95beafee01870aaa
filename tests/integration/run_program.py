"""A bot that executes runs of five steps, as a process that stands still at a point, to be killed there or not.

Its arguments are the worker's address, its name, the seconds of its lease, the point, or nothing, and what
completes the run: the end of its `block`, or its last `commit`, when nothing but the message that began it opens it
again. When it comes to the point it writes its name and reads a line: after `go` it goes on, after `lose` it does
so without the answer that it was about to take. A second time it passes the point by.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import bus
from bus.model.records import GlobalOwner, WorkflowDefinition

__all__ = ["STEPS"]

STEPS = ("fetch", "split", "ask", "save", "announce")

FIVE = WorkflowDefinition(id="five", name="five", owner=GlobalOwner())


class Points:
    """Where the program is to stand still, once."""

    def __init__(self, point: str) -> None:
        self._point = point

    def at(self, point: str) -> bool:
        """Note that the program is at a point; tell whether it is to lose the answer that it takes there."""
        if point != self._point:
            return False
        self._point = ""
        print(point, flush=True)  # noqa: T201
        # All of it stands still, its connection and its lease too, as a process does that gets no time.
        return sys.stdin.readline() == "lose\n"


class Wire:
    """What passes a bot's connection, so that there are points before a frame is sent and before its answer."""

    def __init__(self, connection: Any, points: Points) -> None:
        self._points = points
        self._transmit, self._take = connection._transmit, connection._take
        self._steps: dict[str, str] = {}
        self._sent: dict[int, str] = {}
        connection._transmit, connection._take = self.transmit, self.take

    def transmit(self, frame: bytes) -> None:
        """Send a frame."""
        content = json.loads(frame)
        what = self._name(content)
        if what is not None:
            self._sent[content["request"]] = what
            self._points.at(f"sending {what}")
        self._transmit(frame)

    def take(self, frame: Any) -> None:
        """Take a frame."""
        what = self._sent.get(getattr(frame, "request", None) or 0)
        if what is None or not self._points.at(f"answered {what}"):
            self._take(frame)

    def _name(self, content: dict[str, Any]) -> str | None:
        """Give what a frame records: the beginning of a step, or its end; the end of the run."""
        if content["op"] == "commit":
            return str(content["steps"][0]["step_id"])
        arguments = content.get("arguments", {})
        match content.get("call"):
            case "claim_run":
                return "claim"
            case "take_signal":
                return f"take {arguments['step']['step_id']}"
            case "create_run" if arguments.get("fence") is not None:
                return f"child {arguments['run']['id'].partition('/')[2]}"
            case "create_step_log":
                step = arguments["step"]
                self._steps[step["id"]] = step["step_id"]
                whole = step["status"] == "completed"  # it was over before its beginning was sent
                return str(step["step_id"]) if whole else f"begin {step['step_id']}"
            case "update_step_status":
                return self._steps.get(arguments["step_id"])
            case "update_run_status":
                return "end"
        return None


class Program:
    """The bot and its workflow."""

    def __init__(self, bot: bus.Bot, points: Points, lease_seconds: float, *, completes: bool) -> None:
        self.bot = bot
        self._at = points.at
        self._lease_seconds = lease_seconds
        self._completes = completes
        bot.on_message()(self.begin)
        bot.on_message("workflow.crashed")(self.go_on)

    async def begin(self, message: bus.Message) -> None:
        """Execute the run of a message."""
        self._at("received")
        await self._execute(message.id, message.body, message)
        self._at("left")

    async def go_on(self, message: bus.Message) -> None:
        """Execute a run whose holder was lost, whatever became of its message."""
        if not self._completes:
            await self._execute(message.body["run_id"], None, None)

    async def _execute(self, id: str, input: Any, message: bus.Message | None) -> None:
        async with self.bot.workflows.run(
            "five", id=id, input=input, definition=FIVE, lease_seconds=self._lease_seconds
        ) as run:
            page = await run.step("fetch", self._fetch, run.input)
            self._at("before split")
            words = await run.step("split", self._split, page)
            self._at("before ask")
            async with run.commit("ask", output=words) as tx:
                tx.send(f"{self.bot.name}-reader", {"run": run.id, "words": words})
                self._at("in ask")
            self._at("before save")
            saved = await run.step("save", self._save, words)
            self._at("before announce")
            async with run.commit("announce", output=saved) as tx:
                tx.publish(f"{self.bot.name}-news", {"run": run.id, "saved": saved})
                if message is not None:
                    tx.ack(message)
                if self._completes:
                    tx.complete()
                self._at("in announce")
            self._at("after announce")

    async def _fetch(self, url: str) -> str:
        self._at("in fetch")
        return f"all about {url}"

    async def _split(self, page: str) -> list[str]:
        # A function that blocks would run in a thread, and the lease would be renewed meanwhile.
        self._at("in split")
        return page.split()

    async def _save(self, words: list[str]) -> int:
        self._at("in save")
        return len(words)


def main(url: str, name: str, lease_seconds: str, point: str, end: str) -> None:
    """Serve until killed."""
    bot, points = bus.connect(url, bot=name), Points(point)
    Wire(bot._connection, points)
    Program(bot, points, float(lease_seconds), completes=end == "commit")
    bot.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
