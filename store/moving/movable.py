"""What a backend offers to the mover: to read all records of a store in order, and to write them.

Owns the record of a move, which each of the two stores has, and what it means for a worker.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

import msgspec

from bus.errors import DatabaseUnusable
from bus.model.databases import LogHead

from .kinds import Kind, Row, RowKey

__all__ = [
    "FENCES_AHEAD",
    "PORTION_BYTES_MAX",
    "PORTION_ROWS_MAX",
    "Movable",
    "Move",
    "Site",
    "Standing",
    "State",
    "refusal",
    "warning_of",
]

FENCES_AHEAD = 1_000_000
"""How far the fences of a store that goes on from an earlier state are ahead of those in it.

It is more than the claims of a run since then.
"""

PORTION_ROWS_MAX = 2_000
"""Records of a portion, which is one transaction."""

PORTION_BYTES_MAX = 8 * 1024 * 1024
"""Texts of a portion, if it has more than one record."""


class State(StrEnum):
    """How far a move is, as one of its stores has it."""

    LEAVING = "leaving"
    """The source: its records are being copied. A worker that serves it ends the move."""
    LEFT = "left"
    """The source: all records are in the target, which is served from now on."""
    ARRIVING = "arriving"
    """The target: it may lack records."""


class Move(msgspec.Struct, frozen=True):
    """A move that a store is part of."""

    id: str
    state: State
    place: str
    """The other store."""
    at: str
    """When it began."""


class Standing(msgspec.Struct, frozen=True):
    """What a store has: its log, None if it was never opened; the number of records of each kind; and a move."""

    log: LogHead | None
    counts: Mapping[str, int]
    move: Move | None

    @property
    def is_empty(self) -> bool:
        """Whether it has no record, and is part of no move."""
        return self.move is None and not any(self.counts.values())


class Movable(Protocol):
    """A store that is stopped, and locked against workers, while it is open here."""

    place: str
    """Where it is, for people; without passwords."""
    warnings: list[str]
    """What operators should know, one sentence each."""

    async def check(self) -> None:
        """Raise DatabaseDamaged if a worker would not serve it."""

    async def standing(self) -> Standing:
        """Return what it has."""

    async def read(self, kind: Kind, after: RowKey | None) -> list[Row]:
        """Return the next records in the order of their keys, from the first on if `after` is None.

        At most `PORTION_ROWS_MAX`, and about `PORTION_BYTES_MAX`; none if there are no more.
        """

    async def last_key(self, kind: Kind) -> RowKey | None:
        """Return the key of the last record of a kind."""

    async def write(self, kind: Kind, rows: Sequence[Row]) -> None:
        """Store records in one transaction, which is safe when this returns.

        Raise DatabaseUnusable if one cannot be stored here.
        """

    async def note(self, move: Move | None) -> None:
        """Replace the record of the move."""

    async def take_over(self, log: LogHead) -> None:
        """Have the log that another store has: its epoch and its age."""

    async def open_up(self) -> None:
        """Let a worker serve it: the next records follow the last ones, and the record of the move is removed."""

    async def part(self) -> None:
        """Remove the record of the move, and give the log a new epoch: it goes on from here, as another does."""


class Site(Protocol):
    """Where a store is, or is to be."""

    name: str
    """Where, for people; without passwords."""

    async def look(self) -> Standing:
        """Return what is there, without changing or locking it."""

    def open(self, *, new: bool = False) -> AbstractAsyncContextManager[Movable]:
        """Open the store as a worker does, though it is part of a move. If it is not `new`, it must exist.

        Raise DatabaseUnusable if it does not, DatabaseInUse if a worker serves it, and what opening a store raises.
        """


def refusal(place: str, move: Move | None) -> DatabaseUnusable | None:
    """Return why a worker must not serve a store that is part of a move; None if it may, which ends the move."""
    if move is None or move.state is State.LEAVING:
        return None
    if move.state is State.ARRIVING:
        return DatabaseUnusable(
            f"{place} has only a part of {move.place}, from which it is being moved: `posthouse move` from there to"
            " here goes on; or remove it, and begin again"
        )
    return DatabaseUnusable(
        f"{place} was moved to {move.place} on {move.at[:10]}: serve that; `posthouse move --reopen {place}` lets"
        " this one go on instead, without what was acknowledged there"
    )


def warning_of(move: Move | None) -> str | None:
    """Return what a check says about a store that a worker refuses because of a move."""
    if move is None or move.state is State.LEAVING:
        return None
    if move.state is State.ARRIVING:
        return f"it has only a part of {move.place}, from which it is being moved"
    return f"it was moved to {move.place}, so that a worker refuses it"
