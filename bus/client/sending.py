"""How a bot's messages are sent: in order, in few frames, each with its receipt."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from .caller import Caller
from .draft import Draft, payload
from .ids import chosen_id
from .waiting import Receipt, Ticket

__all__ = ["SendNext", "SendOperation", "Sender", "Sending", "Through"]

SendOperation = Literal["send", "publish", "request", "reply", "send_all", "commit"]
"""The call by which messages are sent; that of a run is "commit" if they are sent in its transaction."""


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that one call is about to send. Each has its id; a commit's are stored together, or not at all."""

    sender: str
    """The name of the bot."""
    operation: SendOperation
    drafts: tuple[Draft, ...]

    def with_headers(self, headers: Mapping[str, str]) -> Sending:
        """Return the same with these headers on each message, in the place of those with the same names."""
        drafts = [
            msgspec.structs.replace(draft, headers={**(draft.headers or {}), **headers}) for draft in self.drafts
        ]
        return msgspec.structs.replace(self, drafts=tuple(drafts))


SendNext = Callable[[Sending], Awaitable[Sequence[Receipt]]]
"""Sends messages, and returns their receipts, in order, when all are on disk."""


class Through(Protocol):
    """What messages pass before they are sent; false if it is nothing."""

    def __bool__(self) -> bool: ...

    async def send(self, operation: SendOperation, drafts: Sequence[Draft], send: SendNext) -> Sequence[Receipt]:
        """Send messages by `send`, each with its id."""

    def start(self, attributes: dict[str, str]) -> dict[str, str]:
        """Return the attributes of a run that is to be started with these."""


class Sender:
    """Sends messages on a bot's connection."""

    def __init__(self, bot: str, caller: Caller, through: Through) -> None:
        self.bot = bot
        """The name of the bot that sends."""
        self._caller = caller
        self._through = through

    def __repr__(self) -> str:
        return f"<Sender {self._caller!r}>"

    @property
    def due_at(self) -> float:
        """When a message that is sent now must have its receipt, by the loop's clock."""
        return self._caller.connection.due_at(self._caller.timeout)

    async def send(self, draft: Draft, due_at: float = math.inf) -> Receipt:
        """Send a message, and return its receipt when it is on disk; see `Bot.send`.

        Raises TimeoutError if that is not so by `due_at`, and that is before the bot's own timeout.
        """
        [receipt] = await self._send((draft,), due_at, _operation(draft))
        return receipt

    async def send_all(self, drafts: Iterable[Draft], due_at: float = math.inf) -> list[Receipt]:
        """Send messages, and return their receipts when all are on disk; see `Bot.send_all` and `send`."""
        return await self._send(drafts, due_at, "send_all")

    async def _send(self, drafts: Iterable[Draft], due_at: float, operation: SendOperation) -> list[Receipt]:
        if not self._through:
            return await self._transmit(drafts, due_at)
        drafts = list(drafts)
        if not drafts:
            return []
        return list(
            await self._through.send(operation, drafts, lambda sending: self._transmit(sending.drafts, due_at))
        )

    async def _transmit(self, drafts: Iterable[Draft], due_at: float) -> list[Receipt]:
        ids: list[str] = []
        payloads: list[bytes] = []
        caller = self._caller
        welcome = caller.connection.welcome
        frame_bytes_max = None if welcome is None else welcome.max_frame_bytes
        for draft in drafts:
            message_id = chosen_id(draft.id)
            ids.append(message_id)
            payloads.append(payload(draft, message_id, frame_bytes_max))
        if not ids:
            return []
        ticket = Ticket(ids, payloads)
        unavailable_at = self.due_at
        try:
            await caller.connection.publish(ticket, min(due_at, unavailable_at))
        except TimeoutError:
            if due_at < unavailable_at:
                raise
            raise caller.unavailable(f"message {ids[0]}" if len(ids) == 1 else f"{len(ids)} messages") from None
        receipts: list[Receipt] = []
        for outcome in ticket.outcomes:
            if not isinstance(outcome, Receipt):
                assert outcome is not None
                raise outcome
            receipts.append(outcome)
        return receipts


def _operation(draft: Draft) -> SendOperation:
    if draft.expects_reply:
        return "request"
    if draft.reply_to is not None:
        return "reply"
    return "send" if draft.channel is None else "publish"
