"""What is done with whole databases, which URLs of stores name.

Owns the port of the commands that work on a database without a worker. `worker` joins it with the stores.

Pure: it describes what a store does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from .repository import FindRequest, LogMessage, Store, StoreCheck, WorkflowRules

__all__ = ["Databases", "LogExtent", "LogHead", "LogReader", "MoveSurvey", "Moved", "Tell", "label_of"]

Tell = Callable[[tuple[str, int, int | None]], None]
"""Is called with what is being done, how much of it is done, and how much there is, if that is known."""


class LogHead(msgspec.Struct, frozen=True):
    """Which log a store has, and where that ends."""

    epoch: str
    created_at: str
    taint_removed: bool
    budgets: bool
    """Whether a message has, or had, a budget."""
    last_seq: int
    last_timestamp: str
    earlier: str = "[]"
    """The logs that it goes on from, as `model.lineage` writes them."""


class Moved(msgspec.Struct, frozen=True):
    """What became of a move."""

    source: str
    target: str
    log: LogHead
    counts: Mapping[str, int]
    """The number of records of each kind, by the kind's name."""
    damaged: Sequence[int] = ()
    """The seqs of messages that do not match their checksums, here as there."""
    warnings: Sequence[str] = ()
    """What operators should know, one sentence each."""
    already: bool = False
    """Whether it had been moved before, so that nothing was done."""


class MoveSurvey(msgspec.Struct, frozen=True):
    """What a move would move."""

    source: str
    target: str
    counts: Mapping[str, int]
    """The number of records of each kind in the source."""
    arrived: int
    """How many records the target has already, of a move that was interrupted."""


class LogExtent(msgspec.Struct, frozen=True):
    """Which log a store has, and its last seq."""

    epoch: str
    last_seq: int


class LogReader(Protocol):
    """Reads the log of a store, which a worker may be using."""

    async def end(self) -> LogExtent:
        """Return where the log ends now; everything that was acknowledged before is in it."""

    async def names(self) -> dict[str, str]:
        """Return the names of all bots by their ids."""

    async def thread(self, request: FindRequest, through_seq: int) -> list[int]:
        """Return the seqs of a message's thread up to a seq, as `MessageLog.thread` does."""

    async def portion(self, after_seq: int, through_seq: int) -> list[tuple[int, LogMessage | None]]:
        """Return the next messages by their seqs, None for one that is damaged; none if there are no more."""


def label_of(kind: str) -> str:
    """Return the name of a kind of records for people."""
    return kind.removeprefix("bot_").replace("_", " ")


class Databases(Protocol):
    """The databases that URLs name: files, and those of engines.

    All methods raise DatabaseUnusable if one cannot be used, and ValueError or, about moves, DatabaseUnusable for a
    URL that names none.
    """

    def database_path(self, url: str) -> str:
        """Return the path of the file that a URL names. Raise ValueError if it names none."""

    def described(self, url: str) -> str:
        """Return what a URL names, for people: an absolute path, or a URL without its password."""

    def examine(self, url: str) -> list[str]:
        """Return warnings about where a database is, each with what to do. It is not opened.

        Raise StoreFailure for a disk error.
        """

    def check_of(self, url: str) -> StoreCheck:
        """Return a check of a database, which another process may be using."""

    def open_store(self, url: str, *, rules: WorkflowRules | None = None) -> AbstractAsyncContextManager[Store]:
        """Open the store, as a worker does.

        Raise also DatabaseInUse, DatabaseDamaged, DatabaseNewer or StoreFailed.
        """

    def open_log(self, url: str) -> AbstractAsyncContextManager[LogReader]:
        """Open the log to read all of it, while a worker may be using the store."""

    def back_up(self, database: Path, target: Path, tell: Tell) -> StoreCheck:
        """Copy a file that a worker may be using to another one, and return the check of the copy."""

    def restore(self, backup: Path, database: Path, tell: Tell) -> tuple[StoreCheck, Path | None]:
        """Put a copy of a backup in the place of a file; return its check, and where the old file is, if any."""

    async def begin_again(self, url: str) -> str:
        """Assign a new epoch to the log of an engine that was restored to an earlier moment; return it."""

    async def house_key(self, url: str, noted: str | None = None) -> str | None:
        """Return the public key by which the workers at an engine are known; without one, note this one first."""

    async def survey(self, source: str, target: str) -> MoveSurvey:
        """Return what would be moved. Change nothing; raise what the move would, if it is refused at once."""

    async def move(self, source: str, target: str, tell: Tell) -> Moved:
        """Move all records of a store to another place, or go on with a move that was interrupted."""

    async def reopen(self, source: str) -> LogHead:
        """Let a store that was moved go on from where it was left, under a new epoch; return its log."""
