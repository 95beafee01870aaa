"""Messages that were delivered to a bot and that its program has not received yet, and the credit for more.

Owns waiting for messages, and the warning to the author of a bot that gets none because it settles none.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

import anyio
import anyio.lowlevel

from ..errors import InvalidValue, SubscriptionRemoved
from ..wire.frames import Credit, StoredMessage
from ..wire.limits import CREDIT_MAX
from .caller import Caller
from .forgotten import Forgotten
from .message import Message

__all__ = ["Inbox"]

_RECEIVED_A_TURN = 64
"""Messages received before other tasks get a turn; the acks of one turn share a frame."""

_logger = logging.getLogger("posthouse.client")


class Inbox:
    """See the module. `max_in_flight` is how many messages may be in flight for the bot."""

    def __init__(self, name: str, caller: Caller, max_in_flight: int) -> None:
        if not 0 <= max_in_flight <= CREDIT_MAX:
            raise InvalidValue("max_in_flight", f"it must be 0 to {CREDIT_MAX}, not {max_in_flight}")
        self.max_in_flight = max_in_flight
        self._name = name
        self._caller = caller
        self._connection = caller.connection
        self._messages: deque[Message] = deque()
        self._arrived = anyio.Event()
        self._received = 0
        self._forgotten = Forgotten()
        self._removed: dict[str, SubscriptionRemoved] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"<Inbox {len(self)} max_in_flight={self.max_in_flight}>"

    def put(self, messages: Iterable[Message]) -> None:
        """Add delivered messages."""
        self._messages.extend(messages)
        self._arrived.set()

    def put_first(self, message: Message) -> None:
        """Put back a received message that was not started."""
        self._messages.appendleft(message)
        self._arrived.set()

    def remove(self, stored: StoredMessage) -> Message | None:
        """Remove a message from the inbox and return it, or None if it is not there."""
        if stored.seq not in self._connection.deliveries.held:
            return None
        message = next((message for message in self._messages if message.id == stored.id), None)
        if message is not None:
            self._messages.remove(message)
        return message

    def wake(self) -> None:
        """Wake waiting receivers: the connection may have ended."""
        self._arrived.set()

    def tell(self, removed: SubscriptionRemoved) -> None:
        """Raise an error once, before the next message."""
        self._removed[removed.channel] = removed
        self._arrived.set()

    async def receive_within(self, seconds: float) -> Message:
        """Wait for the next message, and raise TimeoutError if none comes in time."""
        with anyio.fail_after(seconds):
            return await self.receive()

    async def receive(self) -> Message:
        """Wait for the next message. Raise what ended the connection if there is none, and SubscriptionRemoved."""
        self._connection.home.check()
        self._received += 1
        if self._received % _RECEIVED_A_TURN == 0:
            await anyio.lowlevel.checkpoint()
        while not self._messages or self._removed:
            if self._removed:
                raise self._removed.pop(next(iter(self._removed)))
            if self._connection.failure is not None:
                raise self._connection.failure
            deliveries = self._connection.deliveries
            spent = len(deliveries.held) - len(deliveries.parked) >= self.max_in_flight
            if spent and self._forgotten.is_due(self._connection.home.now()):
                self.look_for_forgotten()
            self._arrived = anyio.Event() if self._arrived.is_set() else self._arrived
            await self._arrived.wait()
        return self._messages.popleft()

    def receive_nowait(self) -> Message | None:
        """Return the next message that has arrived, or None."""
        self._connection.home.check()
        return self._messages.popleft() if self._messages else None

    def park(self, message: Message) -> bool:
        """Let a message wait outside the credit, as nobody is at work on it; return False if that cannot be."""
        welcome = self._connection.welcome
        most = 0 if welcome is None else welcome.max_parked
        frame = self._connection.deliveries.park(message.stored, most)
        if frame is not None:
            self._connection.send(frame)
        return frame is not None

    def unpark(self, message: Message) -> None:
        """Note that work on a message goes on."""
        frame = self._connection.deliveries.unpark(message.stored)
        if frame is not None:
            self._connection.send(frame)

    async def set_credit(self, max_in_flight: int) -> None:
        """Change the credit, and return when the worker has confirmed it."""
        await self._caller.ask(
            "the change of credit", lambda number: Credit(request=number, max_in_flight=max_in_flight)
        )
        self.max_in_flight = max_in_flight

    def grant(self, max_in_flight: int) -> None:
        """Change the credit without waiting for an answer."""
        self.max_in_flight = max_in_flight
        self._connection.send(Credit(max_in_flight=max_in_flight))

    def look_for_forgotten(self) -> None:
        """Warn the author of a bot that gets no more messages because it settles none."""
        welcome, deliveries = self._connection.welcome, self._connection.deliveries
        if welcome is None or self._messages or self.max_in_flight == 0:
            return
        warning = self._forgotten.look(
            deliveries.held.values(),
            anyio.current_time(),
            messages_max=min(self.max_in_flight, welcome.max_in_flight or self.max_in_flight)
            + len(deliveries.parked),
        )
        if warning is not None:
            _logger.warning("bot %r: %s", self._name, warning)
