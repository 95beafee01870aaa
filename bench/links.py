"""The clients of a system that has an asyncio client: how they send, receive, ask and answer.

Owns the loops that all of these systems share; a system says in a `Link` how it publishes and receives. All run on
uvloop, with the garbage collector off, as the clients with frames of their own do.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from multiprocessing.connection import Connection
from typing import Any, Protocol

import uvloop

from .messages import Content, Tally, read, write
from .roles import Answered, Order, Receiver, Sender, Taken, Wanted

__all__ = ["ASKER", "Connect", "Inbox", "Link", "PlainLink", "answer", "ask", "consume", "produce"]

ASKER = "asker"
"""The bot that asks."""

_SETTLE_SECONDS = 30.0


class Inbox(Protocol):
    """What one receiver is sent."""

    async def take(self) -> Sequence[Any]:
        """Wait for messages, settle them, and give their bodies."""

    async def confirm(self) -> None:
        """Return when everything that was settled is settled for good."""


class Link(Protocol):
    """One process's connections to a system. A body is whatever its client takes and gives."""

    def write(self, sender: int, number: int, due: int) -> Any:
        """Make the body of a message."""

    def read(self, body: Any) -> Content:
        """Give what a body says."""

    async def publish(self, sender: Sender, bodies: Sequence[Any]) -> None:
        """Publish messages, all at once; return when each is acknowledged."""

    async def inbox(self, receiver: Receiver) -> Inbox:
        """Begin to receive."""

    async def ask(self, sender: Sender, body: Any) -> Any:
        """Send a question and wait for its reply, settled."""

    async def answer(self, receiver: Receiver) -> None:
        """Answer every question with its own body, for ever."""


class PlainLink:
    """What a link has of itself where bodies are bytes, and replies are messages like any other."""

    def __init__(self) -> None:
        self._replies: dict[int, asyncio.Future[bytes]] = {}
        self._opening = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    def write(self, sender: int, number: int, due: int) -> bytes:
        """Make the body of a message."""
        return write(sender, number, due)

    def read(self, body: bytes) -> Content:
        """Give what a body says."""
        return read(body)

    async def publish(self, sender: Sender, bodies: Sequence[bytes]) -> None:
        """Publish messages, all at once; return when each is acknowledged."""
        raise NotImplementedError

    async def inbox(self, receiver: Receiver) -> Inbox:
        """Begin to receive."""
        raise NotImplementedError

    async def ask(self, sender: Sender, body: bytes) -> bytes:
        """Send a question, and wait for the message to the asker that has the same body."""
        async with self._opening:
            if self._reading is None:
                inbox = await self.inbox(Receiver(bot=sender.bot))
                self._reading = asyncio.create_task(self._read_replies(inbox))
        number = read(body).number
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        await self.publish(sender, [body])
        return await reply

    async def _read_replies(self, inbox: Inbox) -> None:
        while True:
            for body in await inbox.take():
                reply = self._replies.pop(read(body).number, None)
                if reply is not None:
                    reply.set_result(body)

    async def answer(self, receiver: Receiver) -> None:
        """Send every question's body to the one asker that there is."""
        inbox = await self.inbox(receiver)
        back = Sender(bot=receiver.bot, number=0, to=ASKER)
        while True:
            await self.publish(back, await inbox.take())


class Connect(Protocol):
    """Connects the bots of a process to an address. Those that only send may have a session beside this one."""

    def __call__(
        self, address: str, bots: Sequence[str], *, sends_only: bool = False
    ) -> AbstractAsyncContextManager[Link]:
        """Give the connections, as a context."""


def produce(pipe: Connection, connect: Connect, address: str, senders: Sequence[Sender]) -> None:
    """Hold bots that send. An `Order` is answered with `Answered`."""

    async def work() -> None:
        async with connect(address, [sender.bot for sender in senders], sends_only=True) as link:
            producing = _Producing(link, senders)
            await _obey(pipe, producing.send)

    uvloop.run(work())


def consume(pipe: Connection, connect: Connect, address: str, receivers: Sequence[Receiver]) -> None:
    """Hold bots that receive and settle whatever comes. A `Wanted` is answered with `Taken`."""

    async def work() -> None:
        async with connect(address, [receiver.bot for receiver in receivers]) as link, asyncio.TaskGroup() as tasks:
            inboxes = [_Counted(await link.inbox(receiver), link.read) for receiver in receivers]
            for inbox in inboxes:
                tasks.create_task(inbox.run())
            await _obey(pipe, lambda wanted: _take(inboxes, wanted))

    uvloop.run(work())


def ask(pipe: Connection, connect: Connect, address: str, senders: Sequence[Sender]) -> None:
    """Be a bot that asks. An `Order` is answered with `Answered`."""

    async def work() -> None:
        async with connect(address, [sender.bot for sender in senders]) as link:
            [sender] = senders
            asking = _Asking(link, sender)
            await _obey(pipe, asking.ask)

    uvloop.run(work())


def answer(pipe: Connection, connect: Connect, address: str, receivers: Sequence[Receiver]) -> None:
    """Be a bot that answers every question with its own body."""

    async def work() -> None:
        async with connect(address, [receiver.bot for receiver in receivers]) as link:
            [receiver] = receivers
            pipe.send("ready")
            await link.answer(receiver)

    uvloop.run(work())


async def _obey(pipe: Connection, carry_out: Callable[[Any], Any]) -> None:
    gc.collect()
    gc.freeze()
    gc.disable()
    pipe.send("ready")
    while True:
        [order] = await asyncio.to_thread(pipe.recv)
        pipe.send(await carry_out(order))


class _Producing:
    def __init__(self, link: Link, senders: Sequence[Sender]) -> None:
        self._link = link
        self._senders = senders
        self._sent = [0] * len(senders)
        self._counts = [0] * len(senders)
        self._latencies = array("q")

    async def send(self, order: Order) -> Answered:
        self._latencies = array("q")
        self._counts = [0] * len(self._senders)
        most = [sent + order.count for sent in self._sent]
        began = time.monotonic_ns()
        until = began + int((order.seconds or 1e6) * 1e9)
        async with asyncio.TaskGroup() as tasks:
            for index, end in enumerate(most):
                for _ in range(max(1, order.window // order.portion)):
                    tasks.create_task(self._keep_sending(index, end, until, order.portion))
        return Answered(counts=self._counts, began=began, ended=time.monotonic_ns(), latencies=self._latencies)

    async def _keep_sending(self, index: int, end: int, until: int, portion: int) -> None:
        sender = self._senders[index]
        while (now := time.monotonic_ns()) < until and self._sent[index] < end:
            first = self._sent[index] + 1
            self._sent[index] = min(end, self._sent[index] + portion)
            numbers = range(first, self._sent[index] + 1)
            bodies = [self._link.write(sender.number, number, now) for number in numbers]
            await self._link.publish(sender, bodies)
            self._latencies.append(time.monotonic_ns() - now)
            self._counts[index] += len(bodies)


class _Counted:
    """An inbox, and what came into it."""

    def __init__(self, inbox: Inbox, read: Callable[[Any], Content]) -> None:
        self.inbox = inbox
        self._read = read
        self.tally = Tally()
        self._came = asyncio.Event()

    async def run(self) -> None:
        while True:
            bodies = await self.inbox.take()
            self.tally.got(map(self._read, bodies), time.monotonic_ns())
            self._came.set()

    async def reach(self, count: int) -> None:
        while len(self.tally) < count:
            self._came.clear()
            await self._came.wait()


async def _take(inboxes: Sequence[_Counted], wanted: Wanted) -> Taken:
    seconds = (wanted.deadline - time.monotonic_ns()) / 1e9
    try:
        async with asyncio.timeout(seconds):
            for inbox, count in zip(inboxes, wanted.counts, strict=True):
                await inbox.reach(count)
    except TimeoutError:
        pass  # what is missing is for whoever gave the order to see
    async with asyncio.timeout(_SETTLE_SECONDS):
        for inbox in inboxes:
            await inbox.inbox.confirm()
    return Taken.of([inbox.tally for inbox in inboxes], time.monotonic_ns())


class _Asking:
    def __init__(self, link: Link, sender: Sender) -> None:
        self._link = link
        self._sender = sender
        self._asked = 0
        self._latencies = array("q")

    async def ask(self, order: Order) -> Answered:
        self._latencies = array("q")
        before = self._asked
        began = time.monotonic_ns()
        until = began + int((order.seconds or 1e6) * 1e9)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(order.window):
                tasks.create_task(self._keep_asking(before + order.count, until))
        count = len(self._latencies)
        return Answered(counts=[count], began=began, ended=time.monotonic_ns(), latencies=self._latencies)

    async def _keep_asking(self, end: int, until: int) -> None:
        while (now := time.monotonic_ns()) < until and self._asked < end:
            self._asked += 1
            body = self._link.write(self._sender.number, self._asked, now)
            reply = await self._link.ask(self._sender, body)
            if self._link.read(reply) != self._link.read(body):
                raise ValueError("a question got another one's reply")
            self._latencies.append(time.monotonic_ns() - now)
