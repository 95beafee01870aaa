"""An agent that plans a trip, books it at three agencies side by side, and waits for a person to agree.

If the person says no, or nothing in time, or if the trip is cancelled, it gives back what it booked. Kill it at any
point and restart it: it continues. It needs examples/agency.py, which books.
"""

import os
from typing import Any

import anyio

import bus

TIMEOUT_SECONDS = float(os.environ.get("TIMEOUT_SECONDS", "300"))
"""How long the person may think."""

LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", "15"))
"""How long a trip stays with a planner that died."""

TRIP = bus.WorkflowDefinition(id="trip", name="trip", owner=bus.GlobalOwner())

PATIENT = bus.Retry(max_attempts=10, delay=1)
"""The agency may be away for a while: no reason to fail the trip."""

bot = bus.Bot("planner", url=os.environ.get("POSTHOUSE_URL"))


@bot.on_message("trip")
async def trip(message: bus.Message) -> None:
    async with bot.workflows.run(
        "trip", id=message.id, input=message.body, definition=TRIP, lease_seconds=LEASE_SECONDS
    ) as run:
        city = run.input["city"]
        parts = await run.step("plan", plan, city)
        say(f"the plan: {', '.join(parts)}")

        booked: dict[str, Any] = {}
        try:
            # Tasks side by side need steps of their own: a branch gives each a prefix.
            async with anyio.create_task_group() as tasks:
                for part in parts:
                    tasks.start_soon(book, run.branch(part), part, booked)
            say(f"booked: {', '.join(sorted(booked.values()))}")

            await run.approval("agree", {"city": city, "booked": booked}, timeout=TIMEOUT_SECONDS)
            say("a person has agreed")
        except* (bus.Rejected, bus.ApprovalTimedOut, bus.RunCancelled) as errors:  # a task group raises groups
            say(f"giving back: {type(errors.exceptions[0]).__name__}")
            # All parts: one may be booked whose step was cancelled before it had the answer.
            for part in parts:
                await run.branch(part).step("give back", ask, "give back", key(run, part), retry=PATIENT)
            say("all was given back")
            raise

        async with run.commit("announce", output=booked) as tx:
            tx.publish("trips", {"city": city, "booked": booked})
            tx.ack(message)
            tx.complete(result=booked)
        say("announced")


async def plan(city: str) -> list[str]:
    # This is where a model would be asked. The recorded plan stays the same, whatever it would say the next time.
    return ["flight", "hotel", "museum"]


async def book(run: bus.Run, part: str, booked: dict[str, Any]) -> None:
    booked[part] = await run.step("book", ask, "book", key(run, part), retry=PATIENT)


def key(run: bus.Run, part: str) -> str:
    # The same however often a step is carried out: the agency books once.
    return f"{run.id}/{part}"


async def ask(what: str, key: str) -> Any:
    reply = await bot.request("agency", key, message_type=what)
    return reply.body


@bot.on_message("message")
async def late(message: bus.Message) -> None:
    """Do nothing with an answer to a process that is gone: the new process has asked again."""


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    bot.run(stop_timeout=0)
