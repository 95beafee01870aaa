"""The keyed store in SQLite.

Owns its SQL. `bus.model.keyed_unit` decides what a write does with the rows that are found here. All writes that
wait together are carried out in one turn of the database's thread; a write alone is committed there, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

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
from .file.database import Database
from .file.writer import Transaction

__all__ = ["SqliteKeyed"]

_WITHOUT_VALUE = """
    SELECT revision, store, key, state, write_id, bot_id, digest, written_at, expires_at FROM keyed_values"""

_FIND_CURRENT = f"{_WITHOUT_VALUE} WHERE store = ? AND key = ? AND {CURRENT}"

_FIND_WRITE = f"{_WITHOUT_VALUE} WHERE write_id = ? AND write_id IS NOT NULL"

_COUNT = f"SELECT COUNT(*) FROM keyed_values WHERE store = ? AND {CURRENT}"

_LAST = "SELECT COALESCE(MAX(revision), 0) FROM keyed_values"

_SAVE = f"INSERT OR REPLACE INTO keyed_values ({KEYED_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_EMPTY = "UPDATE keyed_values SET key = ?2, state = ?3, value = NULL, checksum = ?4 WHERE revision = ?1"

_REMOVE = "DELETE FROM keyed_values WHERE revision = ?"

_GET = f"{KEYED_VALUES} WHERE store = ? AND key = ? AND {CURRENT}"

_LIST = f"""
    {KEYED_VALUES} WHERE store = ?1 AND key >= ?2 AND key > ?3 AND (?4 IS NULL OR key < ?4) AND {VALUED}
        AND (expires_at IS NULL OR expires_at > ?5)
    ORDER BY key LIMIT ?6"""

_STORES = f"""
    WITH RECURSIVE found (store) AS (
        SELECT MIN(store) FROM keyed_values WHERE {VALUED} AND store > ?1
        UNION ALL
        SELECT (SELECT MIN(store) FROM keyed_values WHERE {VALUED} AND store > found.store) FROM found
        WHERE found.store IS NOT NULL)
    SELECT store FROM found WHERE store IS NOT NULL LIMIT ?2"""
"""Each step skips the keys of a store."""

_SEARCHED_MAX = 5_000
"""Rows of all stores among which changes of one are looked for at once: some milliseconds."""

_THROUGH = f"""
    SELECT COUNT(*), COALESCE(MAX(revision), 0), ({_LAST}) FROM (
        SELECT revision FROM keyed_values WHERE revision > ? ORDER BY revision LIMIT {_SEARCHED_MAX})"""

_CHANGES = f"""
    {KEYED_VALUES} WHERE revision > ?1 AND revision <= ?2 AND store = ?3 AND key >= ?4 AND (?5 IS NULL OR key < ?5)
        AND +{CURRENT}
    ORDER BY revision LIMIT ?6"""

_MARK = "SELECT COALESCE(MAX(revision), 0) FROM keyed_values WHERE state = 'swept'"

_EXPIRED = f"""
    {_WITHOUT_VALUE} WHERE expires_at IS NOT NULL AND state IN ('json', 'bytes') AND expires_at <= ?
    ORDER BY expires_at LIMIT ?"""

_NEXT_EXPIRY = (
    "SELECT MIN(expires_at) FROM keyed_values WHERE expires_at IS NOT NULL AND state IN ('json', 'bytes')"
)

_PASSED = f"""
    {_WITHOUT_VALUE} WHERE state = ? AND state IN ('deleted', 'expired', 'replaced', 'swept') AND written_at < ?
    ORDER BY written_at LIMIT ?"""

_EVER = "9999"
"""Later than every time."""


class SqliteKeyed:
    """The KeyedRepository over SQLite; see `bus.model.keyed` for what each method promises."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        """A clock that is not affected when the wall clock is set."""
        self._counts = KeyCounts()

    def __repr__(self) -> str:
        return f"<SqliteKeyed {self._database.path}>"

    def now(self) -> str:
        """Return the time by which values expire."""
        return timestamp(self._clock())

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
        transaction.body_bytes += sum(len(write.value or "") for write in chain.from_iterable(calls))
        return await transaction.connection.run(partial(self._write_all, calls, transaction.alone))

    def _write_all(
        self, calls: Sequence[Sequence[KeyedWrite]], alone: bool, connection: sqlite3.Connection
    ) -> list[list[int | StoreError]]:
        """Carry out writes; with `alone` they are the whole transaction, which is committed. On the thread."""
        unit = self._unit(connection, list(chain.from_iterable(calls)))
        outcomes = [unit.write_all(writes) for writes in calls]
        _flush(connection, unit)
        if alone:
            connection.commit()
        return outcomes

    def write_whole(self, writes: Sequence[KeyedWrite], connection: sqlite3.Connection) -> list[int]:
        """Carry out the writes of a commit and return their revisions, or raise. Runs on the database's thread."""
        unit = self._unit(connection, writes)
        revisions = unit.write_whole(writes)
        _flush(connection, unit)
        return revisions

    def _unit(self, connection: sqlite3.Connection, writes: Sequence[KeyedWrite]) -> KeyedUnit:
        """Return what some writes have to know. Runs on the database's thread."""
        now = self.now()
        found: list[Any] = []
        for write in writes:
            found += connection.execute(_FIND_CURRENT, (write.store, write.key))
            if write.id is not None:
                found += connection.execute(_FIND_WRITE, (write.id,))
        [[last]] = connection.execute(_LAST)
        unit = KeyedUnit(map(row_without_value, found), last, now, self._counts)
        for store in self._counts.unknown(unit.growing(writes), now):
            [[keys]] = connection.execute(_COUNT, (store,))
            self._counts.counted({store: keys}, now)
        return unit

    async def retain(
        self, transaction: Transaction, lots: Sequence[Lot], added: Sequence[Outcome], timestamp: str
    ) -> None:
        """Write the last values of the channels to which lots were added, within a transaction."""
        if writes := retained(lots, added, timestamp):
            transaction.body_bytes += sum(len(write.value or "") for write in writes)
            await transaction.connection.run(partial(self.write_whole, writes))

    async def with_retained(
        self, transaction: Transaction, change: AddSubscription, subscribed: Subscribed
    ) -> Subscribed:
        """Return a subscription with the last value of its channel, if that is asked for, within a transaction."""
        last = await self._last_value(transaction, change.channel) if change.retained else None
        return subscribed if last is None else msgspec.structs.replace(subscribed, retained=retained_message(last))

    async def _last_value(self, transaction: Transaction, channel: str) -> StoredValue | None:
        rows = await transaction.connection.execute_fetchall(_GET, (RETAINED, channel))
        with suppress(RecordDamaged):  # which is told to who reads it alone, and must not stop a batch
            return self._found(rows)
        return None

    async def forget(self, transaction: Transaction, what: What | None) -> None:
        """Remove the values that go with what is removed, within a transaction."""
        if writes := values_in(what):
            await transaction.connection.run(partial(self.write_whole, writes))

    async def erase(
        self, transaction: Transaction, change: Erase, seqs: Collection[int], channels: Iterable[str]
    ) -> tuple[ErasedValue, ...]:
        """Remove values within a transaction, and the last values of channels that are messages with these seqs."""
        values = dict.fromkeys(change.values)
        for channel in channels:
            last = await self._last_value(transaction, channel)
            if last is not None and retained_message(last).seq in seqs:
                values[FoundValue(RETAINED, channel, last.revision)] = None
        writes = deletions(values, change.bot_id)
        [outcomes] = await transaction.connection.run(partial(self._write_all, [writes], False))
        return erased_values(values, outcomes)

    async def get(self, store: str, key: str) -> StoredValue | None:
        """Return a value."""
        return self._found(await self._database.read.execute_fetchall(_GET, (store, key)))

    def _found(self, rows: Iterable[Any]) -> StoredValue | None:
        return next((found for found in keyed_values(rows, self.now()) if found.state.has_value), None)

    async def list_values(
        self, store: str, prefix: str, *, after: str | None, limit: int, bytes_max: int
    ) -> ValuePage:
        """Return values in the order of their keys."""
        revision = await self.last_revision()
        values = (store, prefix, after or "", prefix_end(prefix), self.now(), limit + 1)
        rows, more = await self._database.read.fetch_portion([(_LIST, values)], bytes_max)
        return ValuePage(keyed_values(rows[:limit]), revision, more or len(rows) > limit)

    async def list_changes(self, store: str, prefix: str, *, after: int, limit: int, bytes_max: int) -> ChangePage:
        """Return what was written after a revision."""
        read = self._database.read
        [[searched, through, last]] = await read.execute_fetchall(_THROUGH, (after,))
        values = (after, through, store, prefix, prefix_end(prefix), limit + 1)
        rows, more = await read.fetch_portion([(_CHANGES, values)], bytes_max)
        [[forgotten]] = await read.execute_fetchall(_MARK)  # last: what was swept meanwhile may have been missed
        if 0 < after < forgotten or after > last:
            raise ChangesForgotten(store, after, forgotten)
        changes = keyed_values(rows[:limit], self.now())
        if more or len(rows) > limit:
            return ChangePage(changes, changes[-1].revision, True)
        return ChangePage(changes, max(through, after), searched == _SEARCHED_MAX)

    async def list_stores(self, after: str, limit: int) -> list[str]:
        """Return the names of stores."""
        values = (max(after, BEFORE_NAMES), limit)
        return [store for (store,) in await self._database.read.execute_fetchall(_STORES, values)]

    async def last_revision(self) -> int:
        """Return the revision of the last write."""
        [[last]] = await self._database.read.execute_fetchall(_LAST)
        return int(last)

    async def sweep(self, transaction: Transaction, change: SweepKeyed) -> KeyedSwept:
        """End what expired, and remove what is old, within a transaction."""
        return await transaction.connection.run(partial(self._sweep, change))

    def _sweep(self, change: SweepKeyed, connection: sqlite3.Connection) -> KeyedSwept:
        now, most = self.now(), change.rows_max
        [[last]] = connection.execute(_LAST)
        expired = list(map(row_without_value, connection.execute(_EXPIRED, (now, most))))
        unit = KeyedUnit((), last, now, self._counts)
        for row in expired:
            unit.expire(row)
        before = later(now, -change.marker_seconds)
        markers = [*_passed(connection, "deleted", before, most), *_passed(connection, "expired", before, most)]
        removed: list[int] = []
        if markers:
            mark, removed = swept_markers([*markers, *_passed(connection, "swept", _EVER, most)])
            unit.replace(mark)
        replaced: list[KeyedRow] = []
        if change.repeat_seconds is not None:
            replaced = _passed(connection, "replaced", later(now, -change.repeat_seconds), most)
            removed += [row.revision for row in replaced]
        _flush(connection, unit)
        connection.executemany(_REMOVE, [(revision,) for revision in removed])
        [[next_at]] = connection.execute(_NEXT_EXPIRY)
        seconds = None if next_at is None else (parse_timestamp(next_at) - parse_timestamp(now)).total_seconds()
        stores = tuple(sorted({row.store for row in expired}))
        return KeyedSwept(stores, max(len(expired), len(markers), len(replaced)) >= most, seconds)


def _flush(connection: sqlite3.Connection, unit: KeyedUnit) -> None:
    """Write what a unit changed. Runs on the database's thread."""
    left = [(row.revision, row.key, row.state, sealed_row(row)[-1]) for row in unit.replaced]
    connection.executemany(_EMPTY, left)
    connection.executemany(_SAVE, [sealed_row(row) for row in unit.added])


def _passed(connection: sqlite3.Connection, state: str, before: str, most: int) -> list[KeyedRow]:
    return list(map(row_without_value, connection.execute(_PASSED, (state, before, most))))
