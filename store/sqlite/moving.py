"""All records of a file, read in order and written, for a move (`store.moving`).

Owns how a record is stored here: in the columns of its table with the names of its fields, but for what is derived
from them (who is meant by a recipient or an owner), and for `number`, which is the row's id.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from functools import cache, partial
from pathlib import Path

import anyio
import uuid_utils

from bus.errors import DatabaseDamaged, DatabaseUnusable
from bus.model.databases import LogHead

from ..moving.kinds import KINDS, MESSAGES, Kind, Row, RowKey
from ..moving.movable import FENCES_AHEAD, PORTION_BYTES_MAX, PORTION_ROWS_MAX, Move, Standing, State
from ..seals import seal
from .file.database import Database, note_earlier, open_database
from .file.lockfile import is_held
from .file.place import find_place
from .file.read_only import UNREADABLE, open_read_only, unreadable
from .file.schema import read_move
from .file.writer import Transaction
from .messages.loading import load_state

__all__ = ["SqliteMovable", "SqliteSite"]

_CHAT_SESSIONS = "chat_sessions"
"""The one table that may be another program's, with other columns: then its rows are not ours to move."""

_SEALED = {"bot_subscriptions": (0, 1, 2, 3, 4, 5), "channel_groups": (0, 1, 3), "mailboxes": tuple(range(7))}
"""What the checksums of tables cover that had none at first: rows of that time get one when they are moved."""

_DERIVED = {
    "bot_messages": {"recipient_type": "CASE WHEN :recipient_bot_id IS NULL THEN 'channel' ELSE 'direct' END"},
    "workflows": {"owner_type": "CASE WHEN :owner_bot_id IS NULL THEN 'global' ELSE 'bot' END"},
}
"""Columns that are no fields, and their values."""

_LOG = "SELECT epoch, created_at, taint_removed, budgets, earlier FROM log"

_END = "SELECT seq, timestamp FROM bot_messages ORDER BY seq DESC LIMIT 1"

_NOTE = "INSERT INTO house_move (id, state, place, at) VALUES (?, ?, ?, ?)"


class SqliteMovable:
    """See `store.moving.movable.Movable`."""

    def __init__(self, database: Database, *, has_foreign_sessions: bool) -> None:
        self._database = database
        self._has_foreign_sessions = has_foreign_sessions
        self.place = str(database.path)
        self.warnings = list(database.warnings)
        if has_foreign_sessions:
            self.warnings.append(
                f"{_CHAT_SESSIONS} of {self.place} has columns of another program, so its records are not moved"
            )

    def __repr__(self) -> str:
        return f"<SqliteMovable {self.place}>"

    async def check(self) -> None:
        """See the protocol."""
        await load_state(self._database)

    async def standing(self) -> Standing:
        """See the protocol."""
        return await self._database.writer.run(lambda transaction: transaction.connection.run(_standing))

    async def read(self, kind: Kind, after: RowKey | None) -> list[Row]:
        """See the protocol."""
        if kind.name == _CHAT_SESSIONS and self._has_foreign_sessions:
            return []
        statement = (_select(kind, first=after is None), (*(after or ()), PORTION_ROWS_MAX))
        found, _ = await self._database.read.fetch_portion([statement], PORTION_BYTES_MAX)
        rows: list[Row] = [tuple(row) for row in found]
        covered = _SEALED.get(kind.name)
        if covered is not None:
            rows = [
                row if row[-1] is not None else (*row[:-1], seal(*map(row.__getitem__, covered))) for row in rows
            ]
        return rows

    async def last_key(self, kind: Kind) -> RowKey | None:
        """See the protocol."""
        names = _names(kind)[: kind.key_size]
        order = ", ".join(f"{name} DESC" for name in names)
        sql = f"SELECT {', '.join(names)} FROM {kind.name} ORDER BY {order} LIMIT 1"
        found = await self._database.read.execute_fetchall(sql)
        return tuple(found[0]) if found else None

    async def write(self, kind: Kind, rows: Sequence[Row]) -> None:
        """See the protocol."""

        async def operation(transaction: Transaction) -> None:
            await transaction.connection.run(partial(_insert, kind=kind, rows=rows))
            if kind is MESSAGES:
                transaction.last_seq = rows[-1][0]

        try:
            await self._database.writer.run(operation)
        except sqlite3.IntegrityError as error:
            raise DatabaseDamaged(
                f"a record of {kind.label} cannot be stored in {self.place} ({error}): its own store is damaged"
            ) from error

    async def note(self, move: Move | None) -> None:
        """See the protocol."""
        if self._has_foreign_sessions and move is not None and move.state is State.ARRIVING:
            raise DatabaseUnusable(f"{self.place} has {_CHAT_SESSIONS} of another program: move to a new file")

        async def operation(transaction: Transaction) -> None:
            await transaction.connection.execute("DELETE FROM house_move")
            if move is not None:
                await transaction.connection.execute(_NOTE, (move.id, move.state.value, move.place, move.at))

        await self._database.writer.run(operation)

    async def take_over(self, log: LogHead) -> None:
        """See the protocol."""

        async def operation(transaction: Transaction) -> None:
            values = (log.created_at, log.taint_removed, log.budgets, log.earlier)
            sql = "UPDATE log SET created_at = ?, taint_removed = ?, budgets = ?, earlier = ?"
            await transaction.connection.execute(sql, values)

        await self._database.writer.run(operation)
        await self._database.rename(log.epoch)

    async def open_up(self) -> None:
        """See the protocol."""
        await self.note(None)

    async def part(self) -> None:
        """See the protocol."""

        async def operation(transaction: Transaction) -> None:
            await transaction.connection.execute("UPDATE workflow_runs SET fence = fence + ?", (FENCES_AHEAD,))
            await note_earlier(transaction.connection)

        await self._database.writer.run(operation)
        await self._database.rename(str(uuid_utils.uuid7()))
        await self.note(None)


class SqliteSite:
    """See `store.moving.movable.Site`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.name = str(self._path.absolute())

    def __repr__(self) -> str:
        return f"<SqliteSite {self.name}>"

    async def look(self) -> Standing:
        """See the protocol."""
        return await anyio.to_thread.run_sync(_look_at, self._path)

    @asynccontextmanager
    async def open(self, *, new: bool = False) -> AsyncIterator[SqliteMovable]:
        """See the protocol."""
        if not new and not await anyio.Path(self._path).exists():
            raise DatabaseUnusable(f"there is no store at {self.name}: nothing can be moved")
        async with open_database(self._path, moving=True) as database:
            foreign = await database.writer.run(lambda transaction: transaction.connection.run(_is_foreign))
            yield SqliteMovable(database, has_foreign_sessions=foreign)


def _look_at(path: Path) -> Standing:
    place = find_place(path)
    if not place.database.exists() or not place.database.stat().st_size:
        return Standing(None, {}, None)
    if is_held(place.database):
        raise DatabaseUnusable(f"{path} is the store that is to be moved: name another place")
    with closing(open_read_only(place.database, alone=not place.wal.exists())) as connection:
        try:
            return _standing(connection)
        except UNREADABLE as error:
            raise unreadable(place.database, error) from error


def _standing(connection: sqlite3.Connection) -> Standing:
    connection.execute("SAVEPOINT standing")  # all of it at one moment
    try:
        log = connection.execute(_LOG).fetchone()
        end = connection.execute(_END).fetchone() or (0, "")
        counts = {kind.name: connection.execute(_count(connection, kind)).fetchone()[0] for kind in KINDS}
        move = read_move(connection)
    finally:
        connection.execute("RELEASE standing")
    head = None if log is None else LogHead(log[0], log[1], bool(log[2]), bool(log[3]), end[0], end[1], log[4])
    return Standing(head, counts, move)


def _count(connection: sqlite3.Connection, kind: Kind) -> str:
    if kind.name == _CHAT_SESSIONS and _is_foreign(connection):
        return "SELECT 0"
    return f"SELECT COUNT(*) FROM {kind.name}"


def _is_foreign(connection: sqlite3.Connection) -> bool:
    """Return True if the table has other columns than posthouse makes."""
    names = {row[1] for row in connection.execute(f"PRAGMA table_info({_CHAT_SESSIONS})")}
    [ours] = [kind for kind in KINDS if kind.name == _CHAT_SESSIONS]
    return names != set(ours.fields)


def _names(kind: Kind) -> list[str]:
    return ["rowid" if field == "number" else field for field in kind.fields]


@cache
def _select(kind: Kind, *, first: bool) -> str:
    names = _names(kind)
    key = ", ".join(names[: kind.key_size])
    after = "" if first else f"WHERE ({key}) > ({', '.join('?' * kind.key_size)})"
    return f"SELECT {', '.join(names)} FROM {kind.name} {after} ORDER BY {key} LIMIT ?"


@cache
def _insertion(kind: Kind) -> str:
    """Return the insertion of one row, whose values are numbered."""
    derived = _DERIVED.get(kind.name, {})
    columns = [*_names(kind), *derived]
    values = [f"?{number}" for number in range(1, len(kind.fields) + 1)]
    for expression in derived.values():
        field = expression.partition(":")[2].partition(" ")[0]
        values.append(expression.replace(f":{field}", f"?{kind.position(field) + 1}"))
    return f"INSERT INTO {kind.name} ({', '.join(columns)}) VALUES ({', '.join(values)})"


def _insert(connection: sqlite3.Connection, kind: Kind, rows: Sequence[Row]) -> None:
    connection.executemany(_insertion(kind), rows)
