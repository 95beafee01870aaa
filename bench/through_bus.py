"""Clients of posthouse through `import bus`, as a bot's author writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import bus

from .links import Inbox, Link
from .messages import Content, value
from .roles import Receiver, Sender

__all__ = ["connect"]

_CREDIT = 1000


class _Inbox:
    def __init__(self, bot: bus.Bot) -> None:
        self._bot = bot
        self._last: bus.Message | None = None

    async def take(self) -> Sequence[Any]:
        message: bus.Message | None = await self._bot.receive()
        bodies: list[Any] = []
        while message is not None:
            bodies.append(message.body)
            await message.ack()
            self._last = message
            message = self._bot.receive_nowait()
        return bodies

    async def confirm(self) -> None:
        if self._last is not None:
            await self._last.ack(confirm=True)


class _Link:
    def __init__(self, bots: dict[str, bus.Bot]) -> None:
        self._bots = bots

    def write(self, sender: int, number: int, due: int) -> dict[str, Any]:
        return value(sender, number, due)

    def read(self, body: dict[str, Any]) -> Content:
        return Content(body["number"], body["due"])

    async def publish(self, sender: Sender, bodies: Sequence[Any]) -> None:
        bot = self._bots[sender.bot]
        if len(bodies) > 1:
            to, channel = (None, sender.to) if sender.is_channel else (sender.to, None)
            await bot.send_all([bus.Draft(to=to, channel=channel, body=body) for body in bodies])
        elif sender.is_channel:
            await bot.publish(sender.to, bodies[0])
        else:
            await bot.send(sender.to, bodies[0])

    async def inbox(self, receiver: Receiver) -> Inbox:
        bot = self._bots[receiver.bot]
        if receiver.channel is not None:
            await bot.subscribe(receiver.channel)
        return _Inbox(bot)

    async def ask(self, sender: Sender, body: Any) -> Any:
        return (await self._bots[sender.bot].request(sender.to, body)).body

    async def answer(self, receiver: Receiver) -> None:
        bot = self._bots[receiver.bot]

        @bot.on_message()
        async def reply(message: bus.Message) -> Any:
            return message.body

        await bot.serve(concurrency=256)


@asynccontextmanager
async def connect(address: str, bots: Sequence[str], *, sends_only: bool = False) -> AsyncIterator[Link]:
    """Connect bots, each with the most credit that there is, or with none."""
    credit = 0 if sends_only else _CREDIT
    async with AsyncExitStack() as stack:
        connected: dict[str, bus.Bot] = {}
        for name in bots:
            bot = bus.connect(address, bot=name, max_in_flight=credit)
            connected[name] = await stack.enter_async_context(bot)
        yield _Link(connected)
