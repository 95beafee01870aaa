"""How a bot's messages are sent: in order, in few frames, each with its receipt."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .caller import Caller
from .draft import Draft, payload
from .ids import chosen_id
from .waiting import Receipt, Ticket

__all__ = ["Sender"]


class Sender:
    """Sends messages on a bot's connection."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

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
        [receipt] = await self.send_all((draft,), due_at)
        return receipt

    async def send_all(self, drafts: Iterable[Draft], due_at: float = math.inf) -> list[Receipt]:
        """Send messages, and return their receipts when all are on disk; see `Bot.send_all` and `send`."""
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
