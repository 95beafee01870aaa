"""A message that came, as a bot's author holds it.

Owns settling: a message is settled once, and what is said of it after that changes nothing.
"""

from __future__ import annotations

import math
from datetime import datetime
from types import TracebackType
from typing import Any, Unpack

import anyio
import msgspec
import uuid_utils

from ..errors import ENDED, NOT_NOW
from ..model.records import parse_timestamp
from ..wire.frames import StoredMessage
from ..wire.limits import NAK_SECONDS_MAX, REASON_CHARACTERS_MAX
from .draft import Draft, ReplyOptions
from .sending import Sender
from .settling import Delivered, Settler
from .waiting import Receipt

__all__ = ["Message", "was_cancelled"]

_AGAIN_SECONDS = (0.1, 0.5, 2.0)
"""Waits before a reply is sent again where the worker does not say how long; the last one repeats."""


class Message(Delivered):
    """A message that was delivered, to be settled: `async with message:` does that by itself.

    Leaving the block normally acks. Leaving it by an exception naks, so that the message comes back after a while,
    and the exception goes on. A cancelled block, and one that LimitReached or StorageFull leaves, releases: the
    message comes back too, and that is no failure. RunCancelled and RunFailed make it a dead letter: a run that has
    ended is never opened again.
    """

    def __init__(self, stored: StoredMessage, settler: Settler, sender: Sender) -> None:
        super().__init__(stored)
        self._settler = settler
        self._sender = sender

    @property
    def id(self) -> str:
        """Its id, made by the sender."""
        return self.stored.id

    @property
    def sender(self) -> str:
        """The name of the bot that sent it."""
        return self.stored.sender_bot_name

    @property
    def sender_id(self) -> str:
        """The id of the bot that sent it."""
        return self.stored.sender_bot_id

    @property
    def channel(self) -> str | None:
        """The channel that it was published on; None for a direct message."""
        return self.stored.channel

    @property
    def group(self) -> str | None:
        """The group that it was delivered by, to this one of its members; None where it was for this bot alone."""
        return self.stored.group

    @property
    def message_type(self) -> str:
        """What kind of message the sender says it is."""
        return self.stored.message_type

    @property
    def body(self) -> Any:
        """The body, any JSON value."""
        return self.stored.body

    @property
    def reply_to(self) -> str | None:
        """The id of the message that this one answers."""
        return self.stored.reply_to

    @property
    def headers(self) -> dict[str, str]:
        """What the sender noted beside the body."""
        return self.stored.headers

    @property
    def timestamp(self) -> datetime:
        """When the message entered the log, by the worker's clock."""
        return parse_timestamp(self.stored.timestamp)

    @property
    def attempt(self) -> int:
        """How often it was delivered to this bot, or to its group, from 1."""
        return self.stored.attempt

    async def ack(self, *, confirm: bool = False) -> None:
        """Settle: done. With `confirm`, return only when that is on disk: it is never delivered again then.

        Raises NotInFlight where the message is with this bot no more, and WorkerUnavailable where that is unknown.
        """
        await self._settler.settle(self, "ack", confirm=confirm)

    async def nak(self, delay: float | None = None, *, confirm: bool = False) -> None:
        """Settle: try again after `delay` seconds, or after the worker's back-off. Counts as a failure."""
        _check_delay(delay)
        await self._settler.settle(self, "nak", confirm=confirm, delay=delay)

    async def release(self, delay: float | None = None, *, confirm: bool = False) -> None:
        """Settle: give it back undone. It comes again, to any session of this bot, and that is no failure.

        It comes at once the first time, and after a second (the worker's first back-off) when it is given back time
        and again; or after `delay` seconds, where that is above 0.
        """
        _check_delay(delay)
        await self._settler.settle(self, "release", confirm=confirm, delay=delay)

    async def term(self, reason: str = "", *, confirm: bool = False) -> None:
        """Settle: never deliver this again; it becomes a dead letter with the beginning of this reason."""
        if len(reason) > REASON_CHARACTERS_MAX:
            reason = reason[: REASON_CHARACTERS_MAX - 1] + "…"
        await self._settler.settle(self, "term", confirm=confirm, reason=reason or None)

    async def reply(self, body: Any, **options: Unpack[ReplyOptions]) -> Receipt:
        """Send a direct message back to the sender that answers this one. It settles nothing.

        While a limit keeps it out, or the worker's disk is full, it waits and sends it again, for as long as the
        bot's `timeout` allows; then it raises LimitReached or StorageFull. Otherwise it is like `Bot.send`.
        """
        timeout = self._sender.timeout
        until = math.inf if timeout is None else anyio.current_time() + timeout
        draft = Draft(to=self.sender_id, body=body, reply_to=self.id, **options)
        draft = msgspec.structs.replace(draft, id=draft.id or str(uuid_utils.uuid7()))
        tries = 0
        while True:
            try:
                return (await self._sender.send_all([draft]))[0]
            except NOT_NOW as error:
                wait = error.retry_after or _AGAIN_SECONDS[min(tries, len(_AGAIN_SECONDS) - 1)]
                if anyio.current_time() + wait > until:
                    raise
            tries += 1
            await anyio.sleep(wait)

    async def __aenter__(self) -> Message:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.settled:
            return
        if error is None:
            await self.ack()
        elif was_cancelled(error):
            await self.release()  # it waits for nothing, so that a cancelled scope lets it pass
        elif isinstance(error, NOT_NOW):
            await self.release(error.retry_after)
        elif isinstance(error, ENDED):
            await self.term(str(error))
        else:
            await self.nak()


def _check_delay(delay: float | None) -> None:
    if delay is not None and not 0 <= delay <= NAK_SECONDS_MAX:
        raise ValueError(f"delay is a number of seconds from 0 to {NAK_SECONDS_MAX:,}, not {delay!r}")


def was_cancelled(error: BaseException) -> bool:
    """Return True if an error is a cancellation and nothing else: trio's own nurseries put several into a group."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split(cancelled)[1] is None
    return isinstance(error, cancelled)
