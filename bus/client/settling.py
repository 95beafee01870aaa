"""How a bot settles messages, and confirms it.

Owns confirmation. When a confirmed ack or term returns, it is on the worker's disk, whatever happened to the
connection or the worker meanwhile: it is repeated in later sessions, in which the bot still holds the message. If
the worker could not carry it out, it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import anyio
import msgspec

from ..errors import NotInFlight, WorkerUnavailable
from ..wire.frames import Ack, Code, Nak, Settled, StoredMessage, Term
from .caller import Caller
from .deliveries import of_another_log

__all__ = ["Delivered", "Settlement", "Settler"]

_AGAIN_SECONDS = 0.05
"""How soon to repeat an ack whose message is being redelivered to this bot: that usually takes milliseconds."""

_COMES_AGAIN = frozenset({"returned", "waiting"})


class Settlement(msgspec.Struct, frozen=True):
    """How a message was settled, and in which session and log: a later confirmation depends on it."""

    how: Literal["ack", "nak", "release", "term"]
    session: int
    epoch: str
    reason: str | None = None


class Delivered:
    """A message that was delivered to this bot, and how it was settled."""

    stored: StoredMessage
    """The message as it came over the wire."""
    settled = False
    """Whether ack, nak, release or term was called."""
    settling: Settlement | None = None
    """How it was settled, and in which session and log."""

    def __repr__(self) -> str:
        state = "settled" if self.settled else f"attempt {self.stored.attempt}"
        return f"<Message {self.seq} {self.stored.message_type!r} from {self.stored.sender_bot_name!r} {state}>"

    @property
    def seq(self) -> int:
        """Its place in the log."""
        return self.stored.seq


class Settler:
    """Settles the messages delivered to a bot."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._connection = caller.connection

    def __repr__(self) -> str:
        return f"<Settler {self._connection!r}>"

    def ack(self, message: Delivered) -> None:
        """Ack a message once, without waiting for anything."""
        connection = self._connection
        connection.home.check()
        if not message.settled and self._note(message, "ack"):
            connection.ack(message.stored.seq)

    async def settle(
        self,
        message: Delivered,
        how: Literal["ack", "nak", "release", "term"],
        *,
        confirm: bool,
        delay: float | None = None,
        reason: str | None = None,
    ) -> None:
        """Settle a message once; with `confirm`, return when that is certain. See the methods of `Message`."""
        connection = self._connection
        connection.home.check()
        if message.settled:
            if confirm:
                await self._confirm(message)
            return
        settling = self._note(message, how, reason)
        if settling is None:
            if confirm:
                raise of_another_log()
        elif how in ("ack", "term") and confirm:
            await self._confirm(message)
        elif how == "ack":
            connection.ack(message.seq)
        elif confirm:
            await self._confirm_return(message, lambda number: _returning(message, settling, delay, number))
        elif how == "term":
            connection.send(Term(seqs=[message.seq], reason=reason))
        else:
            connection.send(_returning(message, settling, delay, None))

    def _note(
        self, message: Delivered, how: Literal["ack", "nak", "release", "term"], reason: str | None = None
    ) -> Settlement | None:
        """Note how a message is settled. Return None if its log was replaced: its seq is another message's now."""
        connection, stored = self._connection, message.stored
        deliveries, welcome = connection.deliveries, connection.welcome
        message.settled = True
        if welcome is None or not deliveries.holds(stored):
            return None
        settling = message.settling = Settlement(how, connection.sessions, welcome.epoch, reason)
        if how == "ack":
            deliveries.settle(stored)
        else:
            deliveries.release(stored)
        return settling

    def note_committed(self, message: Delivered) -> None:
        """Note that a commit settled a message."""
        connection = self._connection
        if not message.settled and connection.welcome is not None:
            message.settled = True
            message.settling = Settlement("ack", connection.sessions, connection.welcome.epoch)
            connection.deliveries.settle(message.stored)

    async def _confirm(self, message: Delivered) -> None:
        """Return when the settling of a message is on disk. Raise if that is impossible."""
        settling, connection = message.settling, self._connection
        if settling is None or connection.welcome is None or settling.epoch != connection.welcome.epoch:
            raise of_another_log()
        if settling.how in ("nak", "release"):
            if settling.session != connection.sessions:
                raise WorkerUnavailable("the session in which this was returned has ended: it is redelivered")
            # The worker answers in order, so this answer means that it has handled the earlier frame.
            await self._confirm_return(message, lambda number: Ack(seqs=[], request=number))
            return

        def make(number: int) -> Ack | Term:
            if settling.how == "ack":
                return Ack(seqs=[message.seq], request=number)
            return Term(seqs=[message.seq], reason=settling.reason, request=number)

        until = anyio.current_time() + connection.welcome.session_timeout
        while True:
            settled = await self._caller.request(
                f"the {settling.how} of {message}", make, Settled, settles=[message.stored]
            )
            state = _passed_over(settled)
            if state is None:
                return
            # An earlier ack of this bot that the worker did not receive is repeated when the message is redelivered
            # to it.
            if settling.how != "ack" or state not in _COMES_AGAIN or anyio.current_time() >= until:
                raise _not_in_flight(message, state)
            await anyio.sleep(_AGAIN_SECONDS)

    async def _confirm_return(self, message: Delivered, make: Callable[[int], Ack | Nak]) -> None:
        state = _passed_over(await self._caller.request(f"the return of {message}", make, Settled, once=True))
        if state is not None:
            raise _not_in_flight(message, state)


def _returning(message: Delivered, settling: Settlement, delay: float | None, number: int | None) -> Nak:
    return Nak(seqs=[message.seq], delay=delay, release=settling.how == "release", request=number)


_PASSED_OVER = {
    "in_flight": "it is in flight for another session of the bot",
    "returned": "it is waiting for redelivery",
    "waiting": "it is waiting for redelivery",
    "settled": "it was settled before",
    "dead": "it is a dead letter, which can be retried",
}


def _passed_over(settled: Settled) -> str | None:
    """Return the state of the message that a settle could not change; None if it changed it."""
    return settled.passed_over[0].state if settled.passed_over else None


def _not_in_flight(message: Delivered, state: str) -> NotInFlight:
    text = f"message {message.seq} could not be settled: {_PASSED_OVER.get(state, f'it is {state}')}"
    return NotInFlight.received(Code.CONFLICT, text, details={"state": state})
