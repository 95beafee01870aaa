"""How a bot's messages are sent: in order, in few frames, each with its receipt."""

from __future__ import annotations

from collections.abc import Iterable

import uuid_utils

from .caller import Caller
from .draft import Draft, payload
from .waiting import Receipt, Ticket

__all__ = ["Sender"]


class Sender:
    """Sends messages on a bot's connection."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __repr__(self) -> str:
        return f"<Sender {self._caller!r}>"

    @property
    def timeout(self) -> float | None:
        """How many seconds a message may wait for its receipt; None means forever."""
        return self._caller.timeout

    async def send_all(self, drafts: Iterable[Draft]) -> list[Receipt]:
        """Send messages, and return their receipts when all are on disk; see `Bot.send_all`."""
        ids: list[str] = []
        payloads: list[bytes] = []
        welcome = self._caller.connection.welcome
        frame_bytes_max = None if welcome is None else welcome.max_frame_bytes
        for draft in drafts:
            message_id = draft.id or str(uuid_utils.uuid7())
            ids.append(message_id)
            payloads.append(payload(draft, message_id, frame_bytes_max))
        if not ids:
            return []
        ticket = Ticket(ids, payloads)
        try:
            await self._caller.connection.publish(ticket, timeout=self._caller.timeout)
        except TimeoutError:
            raise self._caller.unavailable(
                f"message {ids[0]}" if len(ids) == 1 else f"{len(ids)} messages"
            ) from None
        finally:
            if ticket.open:
                self._caller.connection.forget(ticket)
        receipts: list[Receipt] = []
        for outcome in ticket.outcomes:
            if not isinstance(outcome, Receipt):
                assert outcome is not None
                raise outcome
            receipts.append(outcome)
        return receipts
