"""The keyed store in PostgreSQL.

Owns its SQL. `bus.model.keyed_unit` decides what a write does with the rows that are found here. All writes that
wait together are read with one statement and written with one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain

import asyncpg
import msgspec

from bus.errors import ChangesForgotten, RecordDamaged, StoreError
from bus.model.erasing import Erase, ErasedValue, FoundValue, deletions, erased_values
from bus.model.keyed import ChangePage, KeyedSwept, KeyedWrite, StoredValue, SweepKeyed, ValuePage, prefix_end
from bus.model.keyed_unit import KeyCounts, KeyedRow, KeyedUnit, swept_markers
from bus.model.records import later, parse_timestamp, timestamp
from bus.model.removing import values_in
from bus.model.repository import AddSubscription, Lot, Outcome, Subscribed, What
from bus.model.retaining import RETAINED, retained, retained_message

from ..keyed_rows import (
    BEFORE_NAMES,
    CURRENT,
    KEYED_COLUMNS,
    KEYED_VALUES,
    VALUED,
    keyed_values,
    row_without_value,
    sealed_row,
)
from .server.database import Database
from .server.writer import Transaction

__all__ = ["PostgresqlKeyed", "flush"]

_NAMES = "revision, store, key, state, write_id, bot_id, digest, written_at, expires_at"

_WITHOUT_VALUE = f"SELECT {_NAMES} FROM keyed_values"

_LAST = "SELECT COALESCE(max(revision), 0) FROM keyed_values"

# A row with the last revision, and nulls, if nothing else is found.
_FIND = f"""
    SELECT last.revision AS last, found.* FROM ({_LAST}) AS last (revision) LEFT JOIN (
        {_WITHOUT_VALUE} WHERE (store, key) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND {CURRENT}
        UNION
        {_WITHOUT_VALUE} WHERE write_id = ANY($3::text[])
    ) AS found ON true"""

_COUNT = f"SELECT store, count(*) FROM keyed_values WHERE store = ANY($1::text[]) AND {CURRENT} GROUP BY store"

# What was there is changed before the rest is inserted: a key has one last write.
_FLUSH = f"""
    WITH gone AS (
        UPDATE keyed_values AS old SET key = new.key, state = new.state, value = NULL, checksum = new.checksum
        FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS new (revision, key, state, checksum)
        WHERE old.revision = new.revision RETURNING old.revision)
    INSERT INTO keyed_values ({KEYED_COLUMNS})
    SELECT * FROM unnest($5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
        $12::text[], $13::text[], $14::text[], $15::bigint[])
    WHERE (SELECT count(*) FROM gone) >= 0"""

_COLUMNS = len(KEYED_COLUMNS.split(", "))

_REMOVE = "DELETE FROM keyed_values WHERE revision = ANY($1::bigint[])"

_TIME = """COALESCE({}::text, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))"""
"""The time in the stored form: a given one or, for null, the server's."""

_GET = f"""
    {KEYED_VALUES} WHERE store = $1 AND key = $2 AND {VALUED}
        AND (expires_at IS NULL OR expires_at > {_TIME.format("$3")})"""

# The first ones by an order: at most $1 and, after the first, $2 bytes; and how many there are, at most $1.
_PORTION = """
    WITH found AS MATERIALIZED (
        SELECT revision, row_number() OVER part AS nth, sum(octet_length(value)) OVER part AS bytes FROM (
            SELECT revision, key, COALESCE(value, '') AS value FROM keyed_values
            WHERE {where} ORDER BY {order} LIMIT $1
        ) AS rows WINDOW part AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING))
    SELECT {columns}, (SELECT count(*) FROM found) FROM keyed_values JOIN found USING (revision)
    WHERE nth = 1 OR bytes <= $2 ORDER BY {order}"""

_LIST = _PORTION.format(
    where=f"store = $3 AND key >= $4 AND key > $5 AND ($6::text IS NULL OR key < $6) AND {VALUED}"
    f" AND (expires_at IS NULL OR expires_at > {_TIME.format('$7')})",
    order="key",
    columns=KEYED_COLUMNS,
)

# Without the empty texts, the planner might read all of the store by its keys.
_CHANGES = _PORTION.format(
    where="revision > $5 AND revision <= $7 AND store || '' = $3 AND key || '' >= $4"
    " AND ($6::text IS NULL OR key || '' < $6)"
    f" AND {CURRENT}",
    order="revision",
    columns=KEYED_COLUMNS,
)

# Each step skips the keys of a store.
_STORES = f"""
    WITH RECURSIVE found (store) AS (
        SELECT min(store) FROM keyed_values WHERE {VALUED} AND store > $1
        UNION ALL
        SELECT (SELECT min(store) FROM keyed_values WHERE {VALUED} AND store > found.store) FROM found
        WHERE found.store IS NOT NULL)
    SELECT store FROM found WHERE store IS NOT NULL LIMIT $2"""

_SEARCHED_MAX = 5_000
"""Rows of all stores among which changes of one are looked for at once: some milliseconds."""

_THROUGH = f"""
    SELECT count(*), COALESCE(max(revision), 0), ({_LAST}), {_TIME.format("$2")} FROM (
        SELECT revision FROM keyed_values WHERE revision > $1 ORDER BY revision LIMIT {_SEARCHED_MAX}
    ) AS searched"""

_MARK = "SELECT COALESCE(max(revision), 0) FROM keyed_values WHERE state = 'swept'"

_EXPIRED = f"""
    {_WITHOUT_VALUE} WHERE expires_at IS NOT NULL AND state IN ('json', 'bytes') AND expires_at <= $1
    ORDER BY expires_at LIMIT $2"""

_NEXT_EXPIRY = (
    "SELECT min(expires_at) FROM keyed_values WHERE expires_at IS NOT NULL AND state IN ('json', 'bytes')"
)

_PASSED = f"{_WITHOUT_VALUE} WHERE state = ANY($1::text[]) AND written_at < $2 ORDER BY written_at LIMIT $3"

_EVER = "9999"
"""Later than every time."""


class PostgresqlKeyed:
    """The KeyedRepository over PostgreSQL; see `bus.model.keyed` for what each method promises.

    Without a `clock`, which is for tests, the time is the database's.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] | None) -> None:
        self._database = database
        self._clock = clock
        self._counts = KeyCounts()

    def __repr__(self) -> str:
        return f"<PostgresqlKeyed {self._database.url}>"

    def _now(self, transaction: Transaction) -> str:
        return timestamp(transaction.time if self._clock is None else self._clock())

    @property
    def _given(self) -> str | None:
        return None if self._clock is None else timestamp(self._clock())

    async def write(self, write: KeyedWrite) -> int:
        """Carry out a write."""
        [outcome] = await self.write_all([write])
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    async def write_all(self, writes: Sequence[KeyedWrite]) -> list[int | StoreError]:
        """Carry out writes together, in order, each with its own outcome."""
        return await self._database.writer.join(self._write_joined, writes)

    async def _write_joined(
        self, transaction: Transaction, calls: Sequence[Sequence[KeyedWrite]]
    ) -> list[list[int | StoreError]]:
        unit = await self.unit(transaction, list(chain.from_iterable(calls)))
        outcomes = [unit.write_all(writes) for writes in calls]
        await flush(transaction.connection, unit)
        return outcomes

    async def unit(self, transaction: Transaction, writes: Sequence[KeyedWrite]) -> KeyedUnit:
        """Return what some writes have to know."""
        now, connection = self._now(transaction), transaction.connection
        keys = sorted({(write.store, write.key) for write in writes})
        ids = [write.id for write in writes if write.id is not None]
        rows = await connection.fetch(_FIND, [store for store, _ in keys], [key for _, key in keys], ids)
        found = [row_without_value(row[1:]) for row in map(tuple, rows) if row[1] is not None]
        unit = KeyedUnit(found, rows[0][0], now, self._counts)
        unknown = self._counts.unknown(unit.growing(writes), now)
        if unknown:
            counts = dict(map(tuple, await connection.fetch(_COUNT, unknown)))
            self._counts.counted(dict.fromkeys(unknown, 0) | counts, now)
        return unit

    async def _write_whole(self, transaction: Transaction, writes: Sequence[KeyedWrite]) -> None:
        unit = await self.unit(transaction, writes)
        unit.write_whole(writes)
        await flush(transaction.connection, unit)

    async def retain(
        self, transaction: Transaction, lots: Sequence[Lot], added: Sequence[Outcome], timestamp: str
    ) -> None:
        """Write the last values of the channels to which lots were added, within a transaction."""
        if writes := retained(lots, added, timestamp):
            await self._write_whole(transaction, writes)

    async def with_retained(
        self, transaction: Transaction, change: AddSubscription, subscribed: Subscribed
    ) -> Subscribed:
        """Return a subscription with the last value of its channel, if that is asked for, within a transaction."""
        for last in await self._last_value(transaction, change.channel) if change.retained else ():
            return msgspec.structs.replace(subscribed, retained=retained_message(last))
        return subscribed

    async def _last_value(self, transaction: Transaction, channel: str) -> list[StoredValue]:
        rows = await transaction.connection.fetch(_GET, RETAINED, channel, self._now(transaction))
        with suppress(RecordDamaged):  # which is told to who reads it alone, and must not stop a batch
            return keyed_values(map(tuple, rows))
        return []

    async def forget(self, transaction: Transaction, what: What | None) -> None:
        """Remove the values that go with what is removed, within a transaction."""
        if writes := values_in(what):
            await self._write_whole(transaction, writes)

    async def erase(
        self, transaction: Transaction, change: Erase, seqs: Collection[int], channels: Iterable[str]
    ) -> tuple[ErasedValue, ...]:
        """Remove values within a transaction, and the last values of channels that are messages with these seqs."""
        values = dict.fromkeys(change.values)
        for channel in channels:
            for last in await self._last_value(transaction, channel):
                if retained_message(last).seq in seqs:
                    values[FoundValue(RETAINED, channel, last.revision)] = None
        writes = deletions(values, change.bot_id)
        [outcomes] = await self._write_joined(transaction, [writes])
        return erased_values(values, outcomes)

    async def get(self, store: str, key: str) -> StoredValue | None:
        """Return a value."""
        rows = await self._database.read.fetch(_GET, store, key, self._given)
        return next(iter(keyed_values(map(tuple, rows))), None)

    async def list_values(
        self, store: str, prefix: str, *, after: str | None, limit: int, bytes_max: int
    ) -> ValuePage:
        """Return values in the order of their keys."""
        revision = await self.last_revision()
        values = (store, prefix, after or "", prefix_end(prefix), self._given)
        found, more = await self._portion(_LIST, limit, bytes_max, *values)
        return ValuePage(found, revision, more)

    async def list_changes(self, store: str, prefix: str, *, after: int, limit: int, bytes_max: int) -> ChangePage:
        """Return what was written after a revision."""
        [[searched, through, last, now]] = await self._database.read.fetch(_THROUGH, after, self._given)
        values = (store, prefix, after, prefix_end(prefix), through)
        changes, more = await self._portion(_CHANGES, limit, bytes_max, *values, now=now)
        [[forgotten]] = await self._database.read.fetch(
            _MARK
        )  # last: what was swept meanwhile may have been missed
        if 0 < after < forgotten or after > last:
            raise ChangesForgotten(store, after, forgotten)
        if more:
            return ChangePage(changes, changes[-1].revision, True)
        return ChangePage(changes, max(through, after), searched == _SEARCHED_MAX)

    async def _portion(
        self, sql: str, limit: int, bytes_max: int, *values: object, now: str | None = None
    ) -> tuple[list[StoredValue], bool]:
        rows = await self._database.read.fetch(sql, limit + 1, bytes_max, *values)
        found = keyed_values((row[:-1] for row in map(tuple, rows[:limit])), now)
        return found, bool(rows) and rows[0][_COLUMNS] > len(found)

    async def list_stores(self, after: str, limit: int) -> list[str]:
        """Return the names of stores."""
        rows = await self._database.read.fetch(_STORES, max(after, BEFORE_NAMES), limit)
        return [store for (store,) in rows]

    async def last_revision(self) -> int:
        """Return the revision of the last write."""
        [[last]] = await self._database.read.fetch(_LAST)
        return int(last)

    async def sweep(self, transaction: Transaction, change: SweepKeyed) -> KeyedSwept:
        """End what expired, and remove what is old, within a transaction."""
        now, most, connection = self._now(transaction), change.rows_max, transaction.connection
        [[last]] = await connection.fetch(_LAST)
        expired = await _rows(connection, _EXPIRED, now, most)
        unit = KeyedUnit((), last, now, self._counts)
        for row in expired:
            unit.expire(row)
        before = later(now, -change.marker_seconds)
        markers = await _rows(connection, _PASSED, ["deleted", "expired"], before, most)
        removed: list[int] = []
        if markers:
            mark, removed = swept_markers([*markers, *await _rows(connection, _PASSED, ["swept"], _EVER, most)])
            unit.replace(mark)
        replaced: list[KeyedRow] = []
        if change.repeat_seconds is not None:
            replaced = await _rows(connection, _PASSED, ["replaced"], later(now, -change.repeat_seconds), most)
            removed += [row.revision for row in replaced]
        await flush(connection, unit)
        if removed:
            await connection.execute(_REMOVE, removed)
        [[next_at]] = await connection.fetch(_NEXT_EXPIRY)
        seconds = None if next_at is None else (parse_timestamp(next_at) - parse_timestamp(now)).total_seconds()
        stores = tuple(sorted({row.store for row in expired}))
        return KeyedSwept(stores, max(len(expired), len(markers), len(replaced)) >= most, seconds)


async def flush(connection: asyncpg.Connection, unit: KeyedUnit) -> None:
    """Write what a unit changed."""
    replaced, added = unit.replaced, unit.added
    if replaced or added:
        left = ([row.revision for row in replaced], [row.key for row in replaced], [row.state for row in replaced])
        seals = [sealed_row(row)[-1] for row in replaced]
        columns = map(list, zip(*map(sealed_row, added), strict=True)) if added else ([] for _ in range(_COLUMNS))
        await connection.execute(_FLUSH, *left, seals, *columns)


async def _rows(connection: asyncpg.Connection, sql: str, *values: object) -> list[KeyedRow]:
    return [row_without_value(tuple(row)) for row in await connection.fetch(sql, *values)]
