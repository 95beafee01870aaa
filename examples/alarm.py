"""A bot that calls a person when one is needed: it gives events of the worker to a program that notifies.

    NOTIFY="mail -s posthouse ops@example.org" python examples/alarm.py

The program gets a line on standard input. Without NOTIFY the lines are printed. Stop this bot and restart it: it
tells what it missed.
"""

from __future__ import annotations

import os
import shlex

import anyio

import bus
from bus import events

NOTIFY = shlex.split(os.environ.get("NOTIFY", ""))
GRACE_SECONDS = float(os.environ.get("GRACE_SECONDS", "30"))
"""How long a bot may be away before that is an alarm: programs are restarted, and networks hang."""

bot = bus.Bot("alarm", os.environ.get("POSTHOUSE_URL"))


@bot.on_channel("posthouse.events")
async def alarm(message: bus.Message) -> None:
    event = events.read_event(message.message_type, message.body)
    if isinstance(event, events.SessionVanished) and event.sessions == 0 and message.attempt == 1:
        await message.nak(GRACE_SECONDS)  # it comes again, to this program or to the next one, if this one ends
        return
    text = await told(event)
    if text is not None:
        # If this fails, so does the handler: the worker delivers the event again.
        await notify(text)


async def told(event: events.WorkerEvent | None) -> str | None:
    """Return what a person should know and do; None if nobody is needed."""
    match event:
        case events.SessionVanished(bot=str(name), sessions=0) if not await is_online(name):
            return f"{name} is gone: restart it, or remove it with 'posthouse remove bot {name}'"
        case events.DeadLettersAdded(mailbox=str(name), dead_letters=count, listed=listed):
            return f"dead letters of {name}: {count} ({listed[0].reason}); posthouse dead-letters list --bot {name}"
        case events.DeadLettersAdded(dead_letters=count):
            return f"dead letters of many bots: {count}; posthouse dead-letters list"
        case events.MailboxFilling(bot=name, waiting=waiting, messages_max=most):
            return f"{waiting} of at most {most} messages wait for {name or 'one of many bots'}: posthouse bots"
        case events.ApprovalWaiting(run_id=run, step_id=step):
            return f"a run waits for a person: posthouse approve {run} {step}"
        case events.RunsCrashed(runs=count, listed=listed):
            return f"crashed runs: {count}, of {listed[0].workflow_name} first; posthouse runs --status crashed"
        case events.StorageFilling(database_bytes=size):
            return f"little room is left for a database of {size >> 20} MiB: posthouse doctor says what to do"
        case events.StorageFilled(since=since, at=at):
            return f"storage was full from {since} to {at}: make room before it is full again"
    return None


async def is_online(name: str) -> bool:
    return any(each.online for each in await bot.bots() if each.name == name)


async def notify(text: str) -> None:
    if NOTIFY:
        await anyio.run_process(NOTIFY, input=f"{text}\n".encode())
    else:
        print(text, flush=True)


if __name__ == "__main__":
    bot.run()
