"""A delivered message, as a bot's author handles it.

Owns settling: a message is settled once, and settling it again changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Unpack

import anyio

from ..errors import FINAL, NOT_NOW, UnfitBody
from ..model.priorities import Priority
from ..model.records import parse_timestamp
from ..wire.frames import StoredMessage
from ..wire.limits import NAK_SECONDS_MAX, REASON_CHARACTERS_MAX
from .draft import Draft, ReplyOptions
from .ids import chosen_id
from .sending import Sender
from .settling import Delivered, Settler
from .typed import read_as, type_name
from .waiting import Receipt

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    B = TypeVar("B", default=Any, covariant=True)
else:
    from typing import TypeVar

    B = TypeVar("B", covariant=True)

T = TypeVar("T")

__all__ = ["Message", "never_fits", "was_cancelled"]

_AGAIN_SECONDS = (0.1, 0.5, 2.0)
"""Waits before a reply is sent again if the worker gives no time; the last one repeats."""


class Message(Delivered, Generic[B]):
    """A delivered message, to be settled: `async with message:` does that automatically.

    Leaving the block normally acks. Leaving it by an exception naks, so that the message is redelivered after a
    while, and the exception propagates. A block that is cancelled, or left by LimitReached or StorageFull,
    releases: the message is redelivered without counting as a failure. RunCancelled and RunFailed make it a dead
    letter, because a run that has ended is never opened again; so do BudgetSpent, and UnfitBody, raised of this
    message.

    `Message[Goal]` is one whose body is a Goal.
    """

    def __init__(self, stored: StoredMessage, settler: Settler, sender: Sender) -> None:
        self.stored = stored
        self._settler = settler
        self._sender = sender
        self._body: Any = stored.body

    @property
    def id(self) -> str:
        """Its id, chosen by the sender."""
        return self.stored.id

    @property
    def bot(self) -> str:
        """The name of the bot that it was delivered to."""
        return self._sender.bot

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
        """The group through which it was delivered to this member; None if it was for this bot alone."""
        return self.stored.group

    @property
    def message_type(self) -> str:
        """The kind of message, as named by the sender."""
        return self.stored.message_type

    @property
    def body(self) -> B:
        """The body: any JSON value, or of the type that its handler takes."""
        body: B = self._body
        return body

    def body_as(self, kind: type[T]) -> T:
        """Return the body as a value of a type: a Struct of msgspec, a dataclass, a TypedDict, a pydantic model.

        Raises UnfitBody, which says where it does not fit.
        """
        try:
            value: T = read_as(kind, self.stored.body)
        except ValueError as error:
            raise UnfitBody(self.id, type_name(kind), str(error)) from error.__cause__
        return value

    def read_body(self, kind: Any) -> None:
        """Let `body` be of a type from now on. Raises UnfitBody."""
        self._body = self.body_as(kind)

    @property
    def reply_to(self) -> str | None:
        """The id of the message that this one answers."""
        return self.stored.reply_to

    @property
    def headers(self) -> dict[str, str]:
        """The sender's notes beside the body."""
        return self.stored.headers

    @property
    def hops(self) -> int | None:
        """How many messages may follow in its thread, each an answer to the one before; None: without a limit."""
        return self.stored.budget.hops

    @property
    def deadline(self) -> datetime | None:
        """When its thread ends, by the worker's clock: no answer is accepted from then on. None: never."""
        deadline = self.stored.budget.deadline
        return None if deadline is None else parse_timestamp(deadline)

    @property
    def timestamp(self) -> datetime:
        """When the message entered the log, by the worker's clock."""
        return parse_timestamp(self.stored.timestamp)

    @property
    def tainted(self) -> bool:
        """Whether it comes from outside, or answers a message that does, however many replies ago.

        The worker says so, by the roles of bots. Treat what it says as data, and not as instructions.
        """
        return self.stored.tainted

    @property
    def priority(self) -> Priority:
        """What its sender gave it: "high", "normal" or "low"."""
        return self.stored.priority

    @property
    def attempt(self) -> int:
        """How often it was delivered to this bot, or to its group, from 1."""
        return self.stored.attempt

    async def ack(self, *, confirm: bool = False) -> None:
        """Settle: done. With `confirm`, return only when that is on disk: it is never redelivered then.

        Raises NotInFlight if the message is no longer in flight for this bot, and WorkerUnavailable if that is
        unknown.
        """
        if confirm:
            await self._settler.settle(self, "ack", confirm=True)
        else:
            self._settler.ack(self)

    async def nak(self, delay: float | None = None, *, confirm: bool = False) -> None:
        """Settle: retry after `delay` seconds, or after the worker's back-off. Counts as a failure."""
        _check_delay(delay)
        await self._settler.settle(self, "nak", confirm=confirm, delay=delay)

    async def release(self, delay: float | None = None, *, confirm: bool = False) -> None:
        """Settle: return the message unprocessed, to be redelivered to any of the bot's sessions. Not a failure.

        It is redelivered at once the first time, and after a second (the worker's first back-off) when released
        repeatedly; or after `delay` seconds if that is above 0.
        """
        _check_delay(delay)
        await self._settler.settle(self, "release", confirm=confirm, delay=delay)

    async def term(self, reason: str = "", *, confirm: bool = False) -> None:
        """Settle: never redeliver the message; it becomes a dead letter with this reason, truncated if too long."""
        if len(reason) > REASON_CHARACTERS_MAX:
            reason = reason[: REASON_CHARACTERS_MAX - 1] + "…"
        await self._settler.settle(self, "term", confirm=confirm, reason=reason or None)

    async def reply(self, body: Any, **options: Unpack[ReplyOptions]) -> Receipt:
        """Send a direct message that answers this one to its sender. This does not settle the message.

        While one of the worker's limits or a full disk refuses the reply, it is sent again, for as long as the
        bot's `timeout` allows; then LimitReached or StorageFull is raised. Otherwise it is like `Bot.send`.
        """
        until = self._sender.due_at
        options["id"] = chosen_id(options.get("id"))
        draft = Draft(to=self.sender_id, body=body, reply_to=self.id, **options)
        tries = 0
        while True:
            try:
                return await self._sender.send(draft)
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
            await self.release()  # it awaits nothing, so it works in a cancelled scope
        elif isinstance(error, NOT_NOW):
            await self.release(error.retry_after)
        elif isinstance(error, FINAL) or never_fits(error, self):
            await self.term(str(error))
        else:
            await self.nak()


def _check_delay(delay: float | None) -> None:
    if delay is not None and not 0 <= delay <= NAK_SECONDS_MAX:
        raise ValueError(f"delay must be a number of seconds from 0 to {NAK_SECONDS_MAX:,}, not {delay!r}")


def never_fits(error: BaseException, message: Message) -> bool:
    """Return True if an error says that the body of a message does not fit: it never will."""
    return isinstance(error, UnfitBody) and error.message_id == message.id


def was_cancelled(error: BaseException) -> bool:
    """Return True if an error is a cancellation and nothing else: trio's nurseries may put several into a group."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split(cancelled)[1] is None
    return isinstance(error, cancelled)
