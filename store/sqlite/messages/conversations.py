"""Chat sessions of pairs of bots: the first direct message of a pair opens one.

Owns what is written to `chat_sessions`. The table may be older than posthouse and have other columns; those with
known names are filled, and if an unknown column is required, no sessions are opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import aiosqlite
import uuid_utils

from bus.model.repository import Lot

from ..file.reader import Reader

__all__ = ["Column", "Conversations", "table_columns"]

_PAIRS_KNOWN_MAX = 100_000
"""Pairs that are remembered to save lookups in the table; beyond it the memory is cleared."""

_KNOWN = ("id", "session_type", "peer_bot_id", "opened_by_bot_id", "bot_id", "created_at", "updated_at")


class Column(NamedTuple):
    """A column of the table: whether it requires a value, and whether it can take one of ours."""

    name: str
    demanded: bool
    ours: bool


class Conversations:
    """Opens the sessions, once for each pair."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """Read the table's columns."""
        ours = {column.name for column in columns if column.ours}
        self._columns = [name for name in _KNOWN if name in ours]
        self.unknown_columns = sorted({column.name for column in columns if column.demanded} - set(self._columns))
        self._known: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<Conversations known={len(self._known)} unknown_columns={self.unknown_columns}>"

    async def open(self, connection: aiosqlite.Connection, lots: Iterable[Lot], at: str) -> None:
        """Open a session for each pair that has none, in the caller's transaction."""
        new = self.new_pairs(lots)
        if not new:
            return
        marks = ", ".join("?" * len(self._columns))
        sql = f"INSERT OR IGNORE INTO chat_sessions ({', '.join(self._columns)}) VALUES ({marks})"
        await connection.executemany(sql, [self._row(opener, peer, at) for opener, peer in new])

    def new_pairs(self, lots: Iterable[Lot]) -> set[tuple[str, str]]:
        """Return the pairs of these messages that may have no session yet."""
        if self.unknown_columns:
            return set()
        pairs = {(lot.sender_bot_id, lot.recipient_bot_id) for lot in lots if lot.recipient_bot_id is not None}
        return pairs - self._known

    def remember(self, lots: Iterable[Lot]) -> None:
        """Note that the sessions of these messages' pairs are on disk."""
        if len(self._known) >= _PAIRS_KNOWN_MAX:
            self._known.clear()
        for lot in lots:
            if lot.recipient_bot_id is not None:
                self._known.add((lot.sender_bot_id, lot.recipient_bot_id))

    def _row(self, opener: str, peer: str, at: str) -> tuple[str, ...]:
        values = {
            "id": str(uuid_utils.uuid7()),
            "session_type": "bot-to-bot",
            "peer_bot_id": peer,
            "opened_by_bot_id": opener,
            "bot_id": opener,
            "created_at": at,
            "updated_at": at,
        }
        return tuple(values[column] for column in self._columns)


async def table_columns(connection: Reader) -> list[Column]:
    """Return the columns of `chat_sessions`."""
    foreign = {row[3] for row in await connection.execute_fetchall("PRAGMA foreign_key_list(chat_sessions)")}
    return [
        Column(
            name=name,
            demanded=bool(not_null) and default is None,
            # A key into a foreign table cannot hold our ids, and an integer id fills itself.
            ours=name not in foreign and not (name == "id" and "INT" in kind.upper()),
        )
        for _, name, kind, not_null, default, _ in await connection.execute_fetchall(
            "PRAGMA table_info(chat_sessions)"
        )
    ]
