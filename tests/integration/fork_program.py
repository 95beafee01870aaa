"""A program that forks with a bot at hand, and prints what its child finds; it takes an address and a case."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from typing import Any

import anyio
import anyio.to_thread

import bus
from bus.testing import Worker

URL, CASE = sys.argv[1:]

bot = bus.Bot("module", URL if "://" in URL else None, timeout=20)


@bot.on_message()
async def stop(message: bus.Message) -> None:
    """Stop when something comes."""
    say("handled", message.body)
    bot.stop()


def say(*words: Any) -> None:
    """Print a line at once: a forked process ends without its buffers' being written."""
    print(*words, flush=True)  # noqa: T201


def fork(work: Any, *args: Any) -> None:
    """Work in a forked process, and wait for it."""
    child = multiprocessing.get_context("fork").Process(target=work, args=args)
    child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        say("the child hangs")


def reported(call: Any, *args: Any) -> None:
    """Say what a call came to."""
    try:
        say(call(*args))
    except RuntimeError as error:
        say(f"RuntimeError: {error}")


async def use(used: bus.Bot) -> str:
    """Connect a bot and send itself something."""
    async with used:
        await used.send(used.name, "hello")
        return f"{used.name} stored"


async def send(used: bus.Bot) -> str:
    """Send with a bot that is connected somewhere."""
    with anyio.fail_after(20):
        return str(await used.send(used.name, 1))


async def connected() -> None:
    """Fork while a bot is connected."""
    async with bot:
        # Anyio takes the child for a part of the parent's loop; asyncio does not.
        fork(reported, lambda: asyncio.run(send(bot)))
        fork(reported, lambda: asyncio.run(use(bot)))
        say((await bot.send("module", 1)).seq)


def elsewhere() -> None:
    """Use a bot in a thread beside its loop, in that loop, and in another loop of the same thread."""

    entered, leave = asyncio.Event(), asyncio.Event()

    async def stay() -> None:
        async with bot:
            await anyio.to_thread.run_sync(reported, lambda: asyncio.run(send(bot)))
            say((await bot.send("module", 1)).seq)
            entered.set()
            await leave.wait()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        staying = loop.create_task(stay())
        loop.run_until_complete(entered.wait())
        reported(lambda: asyncio.run(send(bot)))
        say(loop.run_until_complete(bot.send("module", 1)).seq)
        leave.set()
        loop.run_until_complete(staying)
    say("trio" in sys.modules)


def main() -> None:
    """Carry out the case."""
    match CASE:
        case "at import":
            anyio.run(use, bus.Bot("parent", URL))
            fork(reported, anyio.run, use, bot)
        case "trio":
            anyio.run(use, bus.Bot("parent", URL), backend="trio")
            fork(reported, lambda: anyio.run(use, bot, backend="trio"))
        case "served":
            anyio.run(use, bus.Bot("module", URL))
            fork(reported, bot.run)
        case "connected":
            anyio.run(connected)
        case "elsewhere":
            elsewhere()
        case "context":
            import zmq

            own = bus.Bot("own", URL, context=zmq.Context())
            fork(reported, anyio.run, use, own)
        case "testing":
            with Worker(URL) as worker:
                fork(reported, lambda: anyio.run(use, worker.connect(bot="a")))
                fork(reported, worker.stop)
                say(anyio.run(use, worker.connect(bot="a")))


if __name__ == "__main__":
    main()
