"""Chat sessions of pairs of bots: the first direct message of a pair opens one.

Owns what is written to `chat_sessions`.
"""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg
import uuid_utils

from bus.model.repository import Lot

__all__ = ["Conversations"]

_PAIRS_KNOWN_MAX = 100_000
"""Pairs that are remembered to save lookups in the table; beyond it the memory is cleared."""

_OPEN = """
    INSERT INTO chat_sessions (id, session_type, peer_bot_id, opened_by_bot_id, created_at)
    VALUES ($1, 'bot-to-bot', $2, $3, $4) ON CONFLICT DO NOTHING"""


class Conversations:
    """Opens the sessions, once for each pair."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<Conversations known={len(self._known)}>"

    def unknown(self, lots: Iterable[Lot]) -> list[tuple[str, str]]:
        """Return the pairs of sender and recipient that may have no session yet."""
        pairs = {(lot.sender_bot_id, lot.recipient_bot_id) for lot in lots if lot.recipient_bot_id is not None}
        return sorted(pairs - self._known)

    async def open(self, connection: asyncpg.Connection, lots: Iterable[Lot], at: str) -> None:
        """Open a session for each pair that has none, in the caller's transaction."""
        if new := self.unknown(lots):
            rows = [(str(uuid_utils.uuid7()), peer, opener, at) for opener, peer in new]
            await connection.executemany(_OPEN, rows)

    def remember(self, lots: Iterable[Lot]) -> None:
        """Note that the sessions of these messages' pairs are on disk."""
        if len(self._known) >= _PAIRS_KNOWN_MAX:
            self._known.clear()
        for lot in lots:
            if lot.recipient_bot_id is not None:
                self._known.add((lot.sender_bot_id, lot.recipient_bot_id))
