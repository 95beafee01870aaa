"""What writes of the keyed store do with the rows that they find: the same in every backend.

Owns the rules (docs/decisions/0100-a-keyed-store.md):

- Revisions rise with every write of the house, whatever store it is in, and none is used twice. The row with the
  highest one is never removed, so that it is known after a restart.
- A deletion, and the end of a value that expired, leave a marker, so that those who watch are told. Markers are
  swept when they are old. The newest one that was swept stays, as the mark before which no changes can be listed.
- A write that was replaced leaves its id for a while, so that repeating it answers the same revision.
- A value that has expired is as good as deleted, whether or not it was swept.

Pure: times are arguments, as text in the stored form, whose order is the order of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..errors import Conflict, Refused, RevisionConflict, StoreError, TooManyKeys
from .keyed import KeyedWrite, StoredValue, ValueState
from .records import later

__all__ = ["KeyCounts", "KeyedRow", "KeyedUnit", "swept_markers"]

_STORES_MAX = 10_000
"""Stores whose keys are counted in memory; beyond it, all are counted anew."""


class KeyCounts:
    """How many keys are in each store, at most: keys that were swept are not noted before it seems to be full.

    Then it is counted, once a second at most.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, str]] = {}

    def __repr__(self) -> str:
        return f"<KeyCounts stores={len(self._counts)}>"

    def unknown(self, growing: Mapping[str, int], now: str) -> list[str]:
        """Return which of these stores are to be counted, that may have so many keys."""
        second = now[:19]
        return sorted(
            store
            for store, most in growing.items()
            if store not in self._counts or (self._counts[store][0] >= most and self._counts[store][1] != second)
        )

    def counted(self, found: Mapping[str, int], now: str) -> None:
        """Note how many keys there are."""
        if len(self._counts) > _STORES_MAX:
            self._counts.clear()
        self._counts |= {store: (keys, now[:19]) for store, keys in found.items()}

    def add(self, store: str, most: int) -> None:
        """Count another key. Raise TooManyKeys."""
        keys, at = self._counts.get(store, (0, ""))
        if keys >= most:
            raise TooManyKeys(store, keys)
        self._counts[store] = keys + 1, at


class KeyedRow(NamedTuple):
    """A row without its checksum, in the order of the columns."""

    revision: int
    store: str
    key: str
    state: str
    value: str | None
    write_id: str | None
    bot_id: str | None
    digest: str | None
    written_at: str
    expires_at: str | None

    def is_live(self, now: str) -> bool:
        """Return True if it is a value that has not expired."""
        return ValueState(self.state).has_value and (self.expires_at is None or self.expires_at > now)

    @property
    def is_current(self) -> bool:
        """Whether it is the last write of its key."""
        return self.state not in (ValueState.REPLACED, ValueState.SWEPT)

    def emptied(self, state: ValueState) -> KeyedRow:
        """Return what is left of it in another state, without its value."""
        return self._replace(state=state.value, value=None)

    def stored_value(self) -> StoredValue:
        """Return it as it is read."""
        found = StoredValue(
            key=self.key,
            revision=self.revision,
            state=ValueState(self.state),
            written_at=self.written_at,
            expires_at=self.expires_at,
            bot_id=self.bot_id,
        )
        if self.value is None:
            return found
        return msgspec.structs.replace(found, value=msgspec.Raw(self.value.encode()))


class KeyedUnit:
    """What the writes of one transaction know of the rows, and what they change.

    `rows` are the last ones of the keys that are written, and those with the ids of the writes; their values are
    not needed.
    """

    def __init__(self, rows: Iterable[KeyedRow], last_revision: int, now: str, counts: KeyCounts) -> None:
        self._current: dict[tuple[str, str], KeyedRow] = {}
        self._written: dict[tuple[str | None, str], KeyedRow] = {}
        self._counts = counts
        self._now = now
        self._first = last_revision
        self._last = last_revision
        self._changed: dict[int, KeyedRow] = {}
        for row in rows:
            self._know(row)

    def __repr__(self) -> str:
        return f"<KeyedUnit last={self._last} changed={len(self._changed)}>"

    def _know(self, row: KeyedRow) -> None:
        if row.is_current:
            self._current[row.store, row.key] = row
        if row.write_id is not None:
            self._written[row.bot_id, row.write_id] = row

    def growing(self, writes: Iterable[KeyedWrite]) -> dict[str, int]:
        """Return the stores to which writes may add keys, and how many each may have."""
        return {write.store: write.keys_max for write in writes if self._adds_key(write)}

    def _adds_key(self, write: KeyedWrite) -> bool:
        return write.state.has_value and (write.store, write.key) not in self._current

    def write(self, write: KeyedWrite) -> int:
        """Carry out a write, and return its revision; raise as `KeyedRepository.write` does."""
        digest = write.digest
        before = None if write.id is None else self._written.get((write.bot_id, write.id))
        if before is not None:
            if before.digest != digest:
                raise Conflict(f"the id {write.id!r} was used for another write")
            return before.revision
        current = self._current.get((write.store, write.key))
        found = current if current is not None and current.is_live(self._now) else None
        revision = 0 if found is None else found.revision
        if write.expected is not None and write.expected != revision:
            raise RevisionConflict(write.store, write.key, write.expected, revision)
        if found is None and not write.state.has_value:
            return 0
        if self._adds_key(write):
            self._counts.add(write.store, write.keys_max)
        if current is not None:
            self._replace(current)
        expires_at = None if write.ttl_seconds is None else later(self._now, write.ttl_seconds)
        return self._add(
            KeyedRow(
                self._last + 1, write.store, write.key, write.state.value, write.value, write.id, write.bot_id,
                digest, self._now, expires_at,
            )
        )  # fmt: skip

    def write_all(self, writes: Iterable[KeyedWrite]) -> list[int | StoreError]:
        """Carry out writes in order, each with its own outcome."""
        outcomes: list[int | StoreError] = []
        for write in writes:
            try:
                outcomes.append(self.write(write))
            except Refused as error:
                outcomes.append(error)
        return outcomes

    def write_whole(self, writes: Iterable[KeyedWrite]) -> list[int]:
        """Carry out writes, all or none of them, and return their revisions; raise as `write` does."""
        before = dict(self._current), dict(self._written), dict(self._changed), self._last
        try:
            return [self.write(write) for write in writes]
        except Refused:
            self._current, self._written, self._changed, self._last = before
            raise

    def expire(self, row: KeyedRow) -> None:
        """End a value that has expired."""
        self._replace(row)
        nobodys = row._replace(revision=self._last + 1, write_id=None, bot_id=None, digest=None)
        self._add(nobodys.emptied(ValueState.EXPIRED)._replace(written_at=self._now, expires_at=None))

    def replace(self, row: KeyedRow) -> None:
        """Store a row that was there in another state, without its value."""
        self._changed[row.revision] = row

    def _replace(self, row: KeyedRow) -> None:
        left = row.emptied(ValueState.REPLACED)
        self.replace(left)
        if row.write_id is not None:
            self._written[row.bot_id, row.write_id] = left

    def _add(self, row: KeyedRow) -> int:
        self._last = row.revision
        self._changed[row.revision] = row
        self._know(row)
        return row.revision

    @property
    def replaced(self) -> list[KeyedRow]:
        """The rows that were there, as they are now: written first, because a key has one last write."""
        return [row for revision, row in self._changed.items() if revision <= self._first]

    @property
    def added(self) -> list[KeyedRow]:
        """The rows that are new."""
        return [row for revision, row in self._changed.items() if revision > self._first]


def swept_markers(markers: Sequence[KeyedRow]) -> tuple[KeyedRow, list[int]]:
    """Return the mark that is left of old markers, among which is the one before, and the revisions to remove."""
    newest = max(markers)
    mark = newest.emptied(ValueState.SWEPT)._replace(key="")  # which may say whose it was
    return mark, [row.revision for row in markers if row.revision != newest.revision]
