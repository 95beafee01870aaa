"""Bots that talk and execute workflows while the page is looked at, with texts that would harm a careless one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.from_thread

import bus
from bus.model.records import GlobalOwner, WorkflowDefinition

from .site import Site

__all__ = ["HOSTILE", "SEEN", "Connect", "began", "talk", "working"]

Connect = Callable[[str], bus.Bot]

HOSTILE = '<script>document.title="mine"</script><img src=x onerror=alert(1)>"\'\u202egnp\u200b&amp;'
"""A text that would run, end an attribute, and turn around what follows, if it were not shown as it is."""

SEEN = '<script>document.title="mine"</script><img src=x onerror=alert(1)>"\'\\u202egnp\\u200b&amp;'
"""What a person sees of it."""

_TRIP, _FLAWED, _SLOW = (
    WorkflowDefinition(id=name, name=name, owner=GlobalOwner()) for name in ("trip", "flawed", "slow")
)


@contextmanager
def working(site: Site, hostile: str = HOSTILE) -> Iterator[None]:
    """Let the planner work within a block."""
    planner = _planner(bus.Bot("planner", site.worker.command, tap_url=site.worker.tap), hostile)
    with anyio.from_thread.start_blocking_portal() as portal:
        serving, _ = portal.start_task(partial(planner.serve, stop_timeout=0.5))
        yield
        portal.call(planner.stop)
        serving.result(60)


def _planner(bot: bus.Bot, hostile: str) -> bus.Bot:
    mended: set[str] = set()

    @bot.on_message("trip")
    async def trip(message: bus.Message) -> None:
        async with bot.workflows.run("trip", id=message.id, input=message.body, definition=_TRIP) as run:
            parts = await run.step("plan", plan, run.input["city"])
            for part in parts:
                await run.step(f"book {part}", book, part)
            await run.approval("agree", {"prompt": f"Book {run.input['city']}? {hostile}", "parts": parts})
            async with run.commit("announce", output=parts) as tx:
                tx.publish("trips", {"city": run.input["city"], "booked": parts})
                tx.ack(message)
                tx.complete(result=parts)

    @bot.on_message("flawed")
    async def flawed(message: bus.Message) -> None:
        async with bot.workflows.run("flawed", id=message.id, input=message.body, definition=_FLAWED) as run:
            await run.step("prepare", plan, "Rome")
            await run.step("fetch", fetch, message.id)
            async with run.commit("end") as tx:
                tx.complete(result="mended")

    @bot.on_message("slow")
    async def slow(message: bus.Message) -> None:
        async with bot.workflows.run("slow", id=message.id, input=message.body, definition=_SLOW) as run:
            await run.step("begin", plan, "Oslo")
            await run.wait("go")

    async def plan(city: str) -> list[str]:
        await anyio.sleep(0.05)
        return [f"train to {city}", "hotel"]

    async def book(part: str) -> dict[str, str]:
        await anyio.sleep(0.03)
        return {"booked": part, "remark": hostile}

    async def fetch(id: str) -> str:
        if id not in mended:
            mended.add(id)
            raise bus.FailRun(f"the agency does not answer: {hostile}")
        return "fetched"

    return bot


async def talk(connect: Connect, hostile: str = HOSTILE) -> None:
    """Let bots talk on a channel, to each other and in a thread, and give six messages up."""
    async with connect("worker-1") as worker:
        await worker.subscribe("jobs", group="workers")
    async with connect("author") as author, connect("critic") as critic:
        await critic.subscribe("jobs")
        for number in range(6):
            await author.publish("jobs", {"number": number, "text": hostile}, message_type=hostile[:100])
        for _ in range(6):
            message = await critic.receive()
            await message.term(f"cannot be judged: {hostile}")
        first = await author.send("critic", {"question": "Is it good?"}, headers={"about": hostile})
        second = await critic.send("author", {"answer": hostile}, reply_to=first.id)
        await author.send("critic", "Why?", reply_to=second.id)
        await critic.send("author", {"answer": "It is long."}, reply_to=first.id)
        await author.send("worker-1", {"text": "x" * 100_000})


async def began(connect: Connect, what: str, body: Any) -> str:
    """Let the planner begin a run, and return its id when it is there."""
    async with connect("asker") as asker:
        id = (await asker.send("planner", body, message_type=what)).id
        while True:
            if await asker.workflows.get_run(id) is not None:
                return id
            await anyio.sleep(0.02)
