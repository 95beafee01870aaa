"""All records of a database, read in order and written, for a move (`store.moving`).

Owns how a record is stored here: in the columns of its table with the names of its fields. Texts that may have a
zero character are stored in another form (`messages.rows`, `workflows.rows`), and so read and written through it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import asyncpg
import msgspec
import uuid_utils

from bus.errors import DatabaseDamaged, DatabaseUnusable, InvalidValue
from bus.model.databases import LogHead

from ..moving.kinds import FLAGS, KINDS, MESSAGES, Kind, Row, RowKey
from ..moving.movable import FENCES_AHEAD, PORTION_BYTES_MAX, PORTION_ROWS_MAX, Move, Standing
from ..urls import shown
from .messages.loading import load_state
from .messages.rows import escaped, unescaped
from .server.connecting import SCHEMA, connect, is_lost, make_safe, unreachable
from .server.database import Database, open_database
from .server.epoch import note_earlier
from .server.incarnation import read_move
from .server.writer import Transaction
from .workflows.rows import error_text, value_of

__all__ = ["PostgresqlMovable", "PostgresqlSite"]

_CODED: dict[str, dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "bot_messages": {"message_type": (escaped, unescaped)},
    "scheduled_messages": {"message_type": (escaped, unescaped)},
    "dead_letters": {"reason": (escaped, unescaped)},
    "workflow_runs": {"error": (error_text, value_of), "cancel_reason": (error_text, value_of)},
    "workflow_steps": {"error": (error_text, value_of)},
    "security_events": dict.fromkeys(
        ("at", "event", "bot_id", "key", "address", "object", "detail"), (escaped, unescaped)
    ),
}
"""Of each table, the fields that are stored in another form: how they are written, and how they are read."""

_LARGE = {
    "bot_messages": ("body", "headers"),
    "scheduled_messages": ("body", "headers"),
    "mailboxes": ("unsettled", "ahead"),
    "workflows": ("definition",),
    "workflow_runs": ("trigger_payload", "context", "result", "definition", "error"),
    "workflow_steps": ("input", "output", "error"),
    "workflow_signals": ("payload",),
    "workflow_commits": ("seqs",),
    "keyed_values": ("value",),
}
"""The columns that limit a portion by their size."""

_NUMBERED = tuple(kind.name for kind in KINDS if "number" in kind.fields)

_EXISTS = "SELECT to_regclass($1) IS NOT NULL"

_LOG = """
    SELECT epoch, created_at, taint_removed, budgets, last_seq, last_timestamp, earlier
    FROM log CROSS JOIN log_end"""

_NOTE = "INSERT INTO house_move (id, state, place, at) VALUES ($1, $2, $3, $4)"

# The next number follows the last one.
_GO_ON = "SELECT setval(pg_get_serial_sequence('{0}', 'number'), (SELECT max(number) FROM {0}))"


class PostgresqlMovable:
    """See `store.moving.movable.Movable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.place = database.url
        self.warnings = list(database.warnings)

    def __repr__(self) -> str:
        return f"<PostgresqlMovable {self.place}>"

    async def check(self) -> None:
        """See the protocol."""
        await load_state(self._database)

    async def standing(self) -> Standing:
        """See the protocol."""
        return await self._database.writer.run(lambda transaction: _standing(transaction.connection))

    async def read(self, kind: Kind, after: RowKey | None) -> list[Row]:
        """See the protocol."""
        found = await self._database.read.fetch(
            _select(kind, first=after is None), PORTION_ROWS_MAX, PORTION_BYTES_MAX, *(after or ())
        )
        try:
            return _translated(kind, map(tuple, found), 1)
        except (ValueError, msgspec.MsgspecError) as error:
            raise DatabaseDamaged(f"{self.place} is damaged: {kind.label} cannot be read ({error})") from error

    async def last_key(self, kind: Kind) -> RowKey | None:
        """See the protocol."""
        names = kind.fields[: kind.key_size]
        order = ", ".join(f"{name} DESC" for name in names)
        found = await self._database.read.fetch(
            f"SELECT {', '.join(names)} FROM {kind.name} ORDER BY {order} LIMIT 1"
        )
        return tuple(found[0]) if found else None

    async def write(self, kind: Kind, rows: Sequence[Row]) -> None:
        """See the protocol."""
        columns, records = list(kind.fields), _translated(kind, rows, 0)
        if kind.name == "workflows":
            columns.append("concurrency")
            records = [(*record, _concurrency(record[kind.position("definition")])) for record in records]

        async def operation(transaction: Transaction) -> None:
            await transaction.connection.copy_records_to_table(kind.name, records=records, columns=columns)
            if kind is MESSAGES:
                transaction.last_seq = rows[-1][0]
                transaction.last_timestamp = rows[-1][kind.position("timestamp")]

        try:
            await self._database.writer.run(operation)
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, InvalidValue) as error:
            raise DatabaseUnusable(
                f"{self.place} cannot hold {_refused(kind, rows) or f'a record of {kind.label}'} ({error})"
            ) from error

    async def note(self, move: Move | None) -> None:
        """See the protocol."""

        async def operation(transaction: Transaction) -> None:
            await _note(transaction.connection, move)

        await self._database.writer.run(operation)

    async def take_over(self, log: LogHead) -> None:
        """See the protocol."""

        async def operation(transaction: Transaction) -> None:
            await transaction.connection.execute(
                "UPDATE log SET epoch = $1, created_at = $2, taint_removed = $3, budgets = $4, earlier = $5",
                log.epoch,
                log.created_at,
                log.taint_removed,
                log.budgets,
                log.earlier,
            )

        await self._database.writer.run(operation)

    async def open_up(self) -> None:
        """See the protocol."""

        async def operation(transaction: Transaction) -> None:
            for name in _NUMBERED:
                await transaction.connection.execute(_GO_ON.format(name))
            # Without statistics, the server would plan the first queries for small tables.
            await transaction.connection.execute(f"ANALYZE {', '.join(kind.name for kind in KINDS)}")
            await _note(transaction.connection, None)

        await self._database.writer.run(operation)

    async def part(self) -> None:
        """See the protocol."""

        async def operation(transaction: Transaction) -> None:
            connection = transaction.connection
            await connection.execute("UPDATE workflow_runs SET fence = fence + $1", FENCES_AHEAD)
            await note_earlier(connection)
            await connection.execute("UPDATE log SET epoch = $1", str(uuid_utils.uuid7()))
            await _note(connection, None)

        await self._database.writer.run(operation)


class PostgresqlSite:
    """See `store.moving.movable.Site`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = shown(url)

    def __repr__(self) -> str:
        return f"<PostgresqlSite {self.name}>"

    async def look(self) -> Standing:
        """See the protocol."""
        try:
            connection, *_ = await connect(self._url)
            try:
                await make_safe(connection)
                if not await connection.fetchval(_EXISTS, f"{SCHEMA}.log_end"):
                    return Standing(None, {}, None)
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    return await _standing(connection)
            finally:
                connection.terminate()
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            raise DatabaseUnusable(f"{self.name} was made by another version ({error}): serve it once") from error
        except Exception as error:
            if is_lost(None, error):
                raise unreachable(self._url, error) from error
            raise

    @asynccontextmanager
    async def open(self, *, new: bool = False) -> AsyncIterator[PostgresqlMovable]:
        """See the protocol."""
        if not new and (await self.look()).log is None:
            raise DatabaseUnusable(f"there is no store at {self.name}: nothing can be moved")
        async with open_database(self._url, alone=True, moving=True) as database:
            yield PostgresqlMovable(database)


async def _standing(connection: asyncpg.Connection) -> Standing:
    log = await connection.fetchrow(_LOG)
    counts = {kind.name: await connection.fetchval(f"SELECT count(*) FROM {kind.name}") for kind in KINDS}
    move = await read_move(connection)
    return Standing(None if log is None else LogHead(*log), counts, move)


async def _note(connection: asyncpg.Connection, move: Move | None) -> None:
    await connection.execute("DELETE FROM house_move")
    if move is not None:
        await connection.execute(_NOTE, move.id, move.state.value, move.place, move.at)


@cache
def _select(kind: Kind, *, first: bool) -> str:
    """Return a query for a portion: so many records, and of these so many bytes, but at least one."""
    names, key = ", ".join(kind.fields), ", ".join(kind.fields[: kind.key_size])
    marks = ", ".join(f"${number}" for number in range(3, kind.key_size + 3))
    after = "" if first else f"WHERE ({key}) > ({marks})"
    size = " + ".join(f"COALESCE(octet_length({name}), 0)" for name in _LARGE.get(kind.name, ())) or "0"
    return f"""
        SELECT {names} FROM (
            SELECT {names}, sum({size}) OVER part AS bytes, row_number() OVER part AS nth
            FROM (SELECT {names} FROM {kind.name} {after} ORDER BY {key} LIMIT $1) AS portion
            WINDOW part AS (ORDER BY {key} ROWS UNBOUNDED PRECEDING)
        ) AS measured
        WHERE bytes <= $2 OR nth = 1 ORDER BY {key}"""


def _translated(kind: Kind, rows: Any, direction: int) -> list[Row]:
    """Return rows as they are written, or, for 1, as they are read."""
    found: list[Row] = list(rows)
    coded = _CODED.get(kind.name, {}) | {field: (bool, bool) for field in kind.fields if field in FLAGS}
    for field, functions in coded.items():
        at, function = kind.position(field), functions[direction]
        found = [
            row
            if row[at] is None or (value := function(row[at])) is row[at]
            else (*row[:at], value, *row[at + 1 :])
            for row in found
        ]
    return found


def _concurrency(definition: str) -> int | None:
    """Return the limit that a definition sets, which is a column of its own; None if it cannot be read."""
    try:
        limit = msgspec.json.decode(definition)["concurrency"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return None
    return limit if isinstance(limit, int) else None


def _refused(kind: Kind, rows: Sequence[Row]) -> str | None:
    """Return which record has a zero character, which no text of PostgreSQL can have."""
    for row in rows:
        for field, value in zip(kind.fields, row, strict=True):
            if isinstance(value, str) and "\0" in value and field not in _CODED.get(kind.name, {}):
                return f"the zero character in {field} of {kind.label} {kind.key(row)}"
    return None
