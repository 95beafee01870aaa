"""The keyed store in memory, for tests of the pure core: what writes do is `bus.model.keyed_unit`, as in a backend.

A method gives other tasks a turn before and after it looks at the rows, and between looks where a backend looks
more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence

from bus.errors import ChangesForgotten, RevisionConflict, StoreError
from bus.model.erasing import Erase, ErasedValue, FoundValue, deletions, erased_values
from bus.model.keyed import (
    ChangePage,
    KeyedSwept,
    KeyedWrite,
    StoredValue,
    SweepKeyed,
    ValuePage,
    ValueState,
    prefix_end,
)
from bus.model.keyed_unit import KeyCounts, KeyedRow, KeyedUnit, swept_markers
from bus.model.records import later, parse_timestamp
from bus.model.repository import LogMessage, Lot, Outcome
from bus.model.retaining import RETAINED, retained, retained_message
from bus.model.wills import WILLS, StoredWill, stored_will

__all__ = ["FakeKeyed"]

NoteWrite = Callable[[KeyedWrite, "int | StoreError"], None]

_MARKERS = (ValueState.DELETED, ValueState.EXPIRED)


class _Turn:
    """Awaited, it lets whoever runs the task do something else."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class FakeKeyed:
    """See the module. `note` is told of each write that is carried out, with its outcome."""

    def __init__(self) -> None:
        self.rows: dict[int, KeyedRow] = {}
        self.clock: Callable[[], str] = lambda: "2026-01-01T00:00:00.000000Z"
        self.note: NoteWrite = lambda write, outcome: None
        self._counts = KeyCounts()

    def restart(self) -> None:
        """Forget what a backend has in memory."""
        self._counts = KeyCounts()

    @property
    def last(self) -> int:
        return max(self.rows, default=0)

    def _unit(self, writes: Sequence[KeyedWrite]) -> KeyedUnit:
        keys, ids = {(write.store, write.key) for write in writes}, {write.id for write in writes} - {None}
        found = [
            row._replace(value=None)
            for row in self.rows.values()
            if (row.is_current and (row.store, row.key) in keys) or row.write_id in ids
        ]
        now = self.clock()
        unit = KeyedUnit(found, self.last, now, self._counts)
        for store in self._counts.unknown(unit.growing(writes), now):
            keys_there = sum(row.is_current and row.store == store for row in self.rows.values())
            self._counts.counted({store: keys_there}, now)
        return unit

    def _flush(self, unit: KeyedUnit) -> None:
        for row in [*unit.replaced, *unit.added]:
            self.rows[row.revision] = row

    def wills(self) -> list[StoredWill]:
        """Return the last wills of all bots."""
        theirs = [row for row in self.rows.values() if row.store == WILLS and row.value is not None]
        return [stored_will(row.stored_value()) for row in theirs]

    # ── Within a transaction ─────────────────────────────────────────────────────────────────────────────

    def carry_out(self, writes: Sequence[KeyedWrite]) -> list[int | StoreError]:
        """Carry out writes, each with its own outcome."""
        unit = self._unit(writes)
        outcomes = unit.write_all(writes)
        self._flush(unit)
        for write, outcome in zip(writes, outcomes, strict=True):
            self.note(write, outcome)
        return outcomes

    def write_whole(self, writes: Sequence[KeyedWrite]) -> list[int]:
        """Carry out writes, all or none of them, and return their revisions."""
        before = self.last
        unit = self._unit(writes)
        try:
            revisions = unit.write_whole(writes)
        except StoreError as error:
            if isinstance(error, RevisionConflict):
                refused = next(each for each in writes if (each.store, each.key) == (error.store, error.key))
                self.note(refused, error)
            self._flush(unit)  # nothing, unless it keeps a part
            raise
        self._flush(unit)
        found = {(row.store, row.key): row.revision for row in self.rows.values() if row.is_current}
        for write in writes:
            revision = found.get((write.store, write.key), 0)
            self.note(write, revision if revision > before else 0)
        return revisions

    def retain(self, lots: Iterable[Lot], outcomes: Iterable[Outcome], timestamp: str) -> None:
        """Write the last values of channels."""
        if writes := retained(lots, outcomes, timestamp):
            self.write_whole(writes)

    def retained(self, channel: str) -> LogMessage | None:
        """Return the last value of a channel."""
        found = self._find(RETAINED, channel)
        return None if found is None else retained_message(found.stored_value())

    def erase(self, change: Erase, seqs: Collection[int], channels: Iterable[str]) -> tuple[ErasedValue, ...]:
        """Remove values, and the last values of channels that are messages with these seqs."""
        values = dict.fromkeys(change.values)
        for channel in channels:
            row = self._find(RETAINED, channel)
            if row is not None and retained_message(row.stored_value()).seq in seqs:
                values[FoundValue(RETAINED, channel, row.revision)] = None
        return erased_values(values, self.carry_out(deletions(values, change.bot_id)))

    def sweep(self, change: SweepKeyed) -> KeyedSwept:
        """End what expired, and remove what is old."""
        now = self.clock()
        unit = KeyedUnit((), self.last, now, self._counts)
        expired = [row for row in self._valued() if row.expires_at is not None and row.expires_at <= now]
        for row in expired:
            unit.expire(row)
        before = later(now, -change.marker_seconds)
        removed: list[int] = []
        if markers := [row for row in self._in(*_MARKERS) if row.written_at < before]:
            mark, removed = swept_markers([*markers, *self._in(ValueState.SWEPT)])
            unit.replace(mark)
        if change.repeat_seconds is not None:
            since = later(now, -change.repeat_seconds)
            removed += [row.revision for row in self._in(ValueState.REPLACED) if row.written_at < since]
        self._flush(unit)
        for revision in removed:
            del self.rows[revision]
        ends = [row.expires_at for row in self._valued() if row.expires_at is not None]
        seconds = (parse_timestamp(min(ends)) - parse_timestamp(now)).total_seconds() if ends else None
        return KeyedSwept(tuple(sorted({row.store for row in expired})), False, seconds)

    def _in(self, *states: ValueState) -> list[KeyedRow]:
        return [row for row in self.rows.values() if row.state in states]

    def _valued(self) -> list[KeyedRow]:
        return [row for row in self.rows.values() if ValueState(row.state).has_value]

    def _find(self, store: str, key: str) -> KeyedRow | None:
        now = self.clock()
        found = (row for row in self._valued() if (row.store, row.key) == (store, key) and row.is_live(now))
        return next(found, None)

    # ── The repository ───────────────────────────────────────────────────────────────────────────────────

    async def write(self, write: KeyedWrite) -> int:
        [outcome] = await self.write_all([write])
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    async def write_all(self, writes: Sequence[KeyedWrite]) -> list[int | StoreError]:
        await _Turn()
        outcomes = self.carry_out(writes)
        await _Turn()
        return outcomes

    async def get(self, store: str, key: str) -> StoredValue | None:
        await _Turn()
        found = self._find(store, key)
        await _Turn()
        return None if found is None else found.stored_value()

    async def list_values(
        self, store: str, prefix: str, *, after: str | None, limit: int, bytes_max: int
    ) -> ValuePage:
        await _Turn()
        revision = await self.last_revision()
        now, end = self.clock(), prefix_end(prefix)
        found = sorted(
            (row for row in self._valued() if row.store == store and row.is_live(now)), key=lambda row: row.key
        )
        found = [row for row in found if row.key >= prefix and row.key > (after or "")]
        found = [row for row in found if end is None or row.key < end]
        await _Turn()
        return ValuePage([row.stored_value() for row in found[:limit]], revision, len(found) > limit)

    async def list_changes(self, store: str, prefix: str, *, after: int, limit: int, bytes_max: int) -> ChangePage:
        await _Turn()
        through = last = self.last
        await _Turn()
        now, end = self.clock(), prefix_end(prefix)
        found = [row for _, row in sorted(self.rows.items()) if row.is_current and row.store == store]
        found = [row for row in found if after < row.revision <= through and row.key >= prefix]
        found = [row for row in found if end is None or row.key < end]
        await _Turn()
        forgotten_through = max((row.revision for row in self._in(ValueState.SWEPT)), default=0)
        if 0 < after < forgotten_through or after > last:
            raise ChangesForgotten(store, after, forgotten_through)
        changes = [_read(row, now) for row in found[:limit]]
        if len(found) > limit:
            return ChangePage(changes, changes[-1].revision, True)
        return ChangePage(changes, max(through, after))

    async def list_stores(self, after: str, limit: int) -> list[str]:
        await _Turn()
        return sorted({row.store for row in self._valued() if row.store > max(after, "/")})[:limit]

    async def last_revision(self) -> int:
        await _Turn()
        return self.last


def _read(row: KeyedRow, now: str) -> StoredValue:
    if row.value is not None and not row.is_live(now):
        row = row.emptied(ValueState.EXPIRED)
    return row.stored_value()
