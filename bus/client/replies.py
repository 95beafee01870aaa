"""Replies that a bot awaits: each is returned to its request once, whichever session it was delivered to.

Owns the open requests. Its rules:

- A delivered reply goes to the request that awaits it, and not into the inbox.
- While the bot was away, a reply may have been stored and delivered to another process of the bot. So after every
  hello, it searches the log for the reply to each open request: a few at a time, oldest first, and again after a
  pause if the worker is busy.
- A reply read from the log is settled only when its request returns it. If the request ends without it, it remains
  an
  ordinary message.
"""

from __future__ import annotations

import random
from contextlib import suppress

import anyio

from ..errors import BusError, ReplyTimeout, RequestError, WorkerUnavailable
from ..wire.frames import StoredMessage, is_id
from ..wire.limits import AWAITED_MAX
from .asking import Asking
from .caller import Caller
from .draft import Draft
from .inbox import Inbox
from .lending import waiting_for_reply
from .message import Message
from .sending import Sender
from .settling import Settler
from .waiting import Awaited

__all__ = ["Replies"]

_THREAD_MAX = 1000
"""Messages searched for one reply."""

_FATE_SECONDS = 5.0
"""How long a request that ends without a reply waits to learn what state its message is in."""

_LOOKS_AT_ONCE = 4
"""Concurrent queries: the worker answers few at once, and other clients return as well."""

_PAUSE_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses after queries that could not be answered; the last one repeats. Randomised to keep clients apart."""


class Replies:
    """See the module. `run` must be running to search for replies."""

    def __init__(self, asking: Asking, caller: Caller, sender: Sender, settler: Settler, inbox: Inbox) -> None:
        self._asking = asking
        self._connection = caller.connection
        self._sender = sender
        self._settler = settler
        self._inbox = inbox
        self._open: dict[str, _Reply] = {}
        self._wanted: dict[str, None] = {}
        """The ids of the requests whose replies to search for, in this order."""
        self._more = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self._closed = False
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Replies open={len(self._open)} wanted={len(self._wanted)}>"

    # ── For requests ─────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, draft: Draft, message_id: str, *, timeout: float) -> Message:
        """Send a message and return the first reply to it, settled; see `Bot.request`."""
        if message_id in self._open:
            raise RuntimeError(f"a request with the id {message_id} is already waiting for its reply")
        due_at = self._connection.due_at(timeout)
        reply = self._open[message_id] = _Reply(draft.to)
        try:
            with suppress(TimeoutError):
                receipt = await self._sender.send(draft, due_at)
                if receipt.duplicate:
                    self._look_for(message_id)
                async with waiting_for_reply():
                    await self._connection.wait(reply, due_at)
        except BaseException:
            if reply.message is not None and not reply.found and not reply.message.settled:
                self._inbox.put([reply.message])  # it arrived just as the request gave up
            raise
        finally:
            del self._open[message_id]
            self._wanted.pop(message_id, None)
        if reply.message is None:
            if self._connection.failure is not None:
                raise self._connection.failure
            raise ReplyTimeout(message_id, draft.to or draft.channel or "", timeout, await self._fate(message_id))
        if reply.found:
            self._settle_found(reply.message)
        else:
            self._settler.ack(reply.message)
        return reply.message

    def _settle_found(self, message: Message) -> None:
        """Mark a reply that was read from the log as settled: a copy delivered later is dropped."""
        connection = self._connection
        held = connection.deliveries.held.get(message.seq)
        if held is None or held.id == message.id:  # otherwise the worker has another log by now
            self._settler.note_committed(message)
            if held is not None:
                connection.ack(message.seq)
        message.settled = True

    async def _fate(self, message_id: str) -> str:
        with anyio.move_on_after(_FATE_SECONDS):
            try:
                fates = (await self._asking.find(message_id)).mailboxes
                return fates[0].state if fates else "nobody"
            except BusError:
                return "unknown"
        return "unknown"

    # ── For sessions ─────────────────────────────────────────────────────────────────────────────────────

    def returning(self) -> list[str]:
        """Return the awaited ids for a hello, oldest first, and schedule a search for replies stored before it."""
        awaited = [id for id, reply in self._open.items() if reply.message is None and is_id(id)]
        for message_id in awaited:
            self._look_for(message_id)
        return awaited[:AWAITED_MAX]

    def take(self, messages: list[Message]) -> list[Message]:
        """Accept the delivered messages that requests await as their replies; return the others."""
        return [message for message in messages if not self._take(message)] if self._open else messages

    def _take(self, message: Message) -> bool:
        reply = self._open.get(message.reply_to or "")
        if reply is None or message.channel is not None or not reply.is_from(message.stored):
            return False
        if reply.message is not None and not (reply.found and reply.message.id == message.id):
            return False
        self._give(reply, message, found=False)
        return True

    def close(self) -> None:
        """Wake all waiting requests, and stop searching."""
        self._closed = True
        for reply in self._open.values():
            reply.finish()
        if self._scope is not None:
            self._scope.cancel()

    # ── Searching the log ────────────────────────────────────────────────────────────────────────────────

    def _look_for(self, message_id: str) -> None:
        """Schedule a search of the log for the reply to a message."""
        self._wanted[message_id] = None
        self._more.set()

    async def run(self) -> None:
        """Search for wanted replies until `close`: a cancelled bot may still make requests until it has left."""
        slots = anyio.Semaphore(_LOOKS_AT_ONCE)
        self._scope = anyio.CancelScope(shield=True)
        with self._scope:
            async with anyio.create_task_group() as tasks:
                while not self._closed:
                    await self._more.wait()
                    await slots.acquire()
                    if self._wanted:
                        message_id = next(iter(self._wanted))
                        del self._wanted[message_id]
                        tasks.start_soon(self._look, message_id, slots)
                    else:
                        self._more = anyio.Event()
                        slots.release()

    async def _look(self, message_id: str, slots: anyio.Semaphore) -> None:
        try:
            reply = self._open.get(message_id)
            if reply is None or reply.message is not None:
                return
            try:
                thread = await self._asking.history(thread=message_id, limit=_THREAD_MAX)
            except BusError as error:
                if isinstance(error, WorkerUnavailable) or (isinstance(error, RequestError) and error.retry):
                    await self._pause()
                    if self._open.get(message_id) is reply:
                        self._look_for(message_id)
                return  # the worker still delivers, even if it cannot answer this
            self._failures = 0
            if self._open.get(message_id) is reply and reply.message is None:
                self._find(message_id, reply, thread)
        finally:
            slots.release()

    async def _pause(self) -> None:
        seconds = _PAUSE_SECONDS[min(self._failures, len(_PAUSE_SECONDS) - 1)]
        self._failures += 1
        await anyio.sleep(seconds * random.uniform(0.5, 1.0))

    def _find(self, message_id: str, reply: _Reply, thread: list[StoredMessage]) -> None:
        """Find the first reply to a request in its thread, which is ordered newest first."""
        welcome = self._connection.welcome
        me = None if welcome is None else welcome.bot_id
        for stored in reversed(thread):
            if stored.reply_to == message_id and stored.recipient.get("bot_id") == me and reply.is_from(stored):
                delivered = self._inbox.remove(stored)
                self._give(
                    reply, delivered or Message(stored, self._settler, self._sender), found=delivered is None
                )
                return

    def _give(self, reply: _Reply, message: Message, *, found: bool) -> None:
        reply.message, reply.found = message, found
        reply.finish()


class _Reply(Awaited):
    """The reply that one request awaits. If a channel was asked, anybody may give it."""

    __slots__ = ("_asked", "found", "message")

    def __init__(self, asked: str | None) -> None:
        super().__init__()
        self._asked = asked
        self.message: Message | None = None
        self.found = False
        """Whether the message was read from the log, and not delivered to this bot."""

    def is_from(self, message: StoredMessage) -> bool:
        """Return True if the bot that was asked, by its name or id, sent a message."""
        return self._asked in (None, message.sender_bot_name, message.sender_bot_id)
