"""The one writer: every write is an operation, and all queued operations become one transaction.

Owns the writing connection while it runs. Its rules (docs/design.md):

- While one group is being synced the next one fills; there is no timer, and a single operation is committed at
  once.
- A caller is answered after the commit that holds its operation. Cancelling a caller cancels its wait, never the
  transaction.
- An operation that raises fails alone: the group is rolled back and run again, each operation under its own
  savepoint.
  So an operation may run twice and must not keep state between runs.
- Adjacent writes of one kind in the queue are carried out together, by a function for that kind.
- The outcome of a commit that fails with an I/O error is unknown: everything fails from then on.
- SQLite checkpoints the WAL after a commit, but does not report a failure. A growing WAL shows it: then the
  checkpoint
  is tried once more, and a second failure is a disk failure.
- Overlapping readers prevent the WAL from restarting. If it is too long, the writer waits for them briefly.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, cast

import aiosqlite
import anyio

from bus.errors import (
    Conflict,
    NotFound,
    Refused,
    StorageBusy,
    StorageFull,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreFailure,
)

from .wal import RESTART_MILLISECONDS, WalLength

__all__ = [
    "BUSY_MILLISECONDS",
    "OPERATIONS_GROUP_MAX",
    "OPERATIONS_QUEUED_MAX",
    "Joint",
    "Operation",
    "Transaction",
    "Writer",
    "begin_wal_anew",
    "copy_back",
    "refusal",
    "translate",
]

OPERATIONS_QUEUED_MAX = 10_000
"""Further callers wait: the queue must not outgrow memory when the disk stalls."""

OPERATIONS_GROUP_MAX = 1_000
"""Operations in one transaction, so that the first of a long queue is not answered last."""

BUSY_MILLISECONDS = 5_000
"""How long a statement waits for another program's lock, like Python's sqlite3."""

T = TypeVar("T")
W = TypeVar("W")


class Transaction:
    """What an operation works with: the writing connection, and the log's end within this transaction.

    The transaction begins with its first write, which saves a turn of the database's thread. `alone` is True if
    this operation, or joint, is all of it; one that makes several writes sets it to False.
    """

    __slots__ = ("alone", "connection", "last_seq")

    def __init__(self, connection: aiosqlite.Connection, last_seq: int, *, alone: bool) -> None:
        self.connection = connection
        self.last_seq = last_seq
        self.alone = alone

    async def execute_last(self, sql: str, parameters: Sequence[Any]) -> Iterable[sqlite3.Row]:
        """Carry out the last write of an operation, and return its rows.

        If it is the only write of the only operation, it begins and commits the transaction by itself, in one turn
        of the database's thread instead of two: Python's sqlite3 begins a transaction before a statement that
        starts with INSERT, UPDATE or DELETE, but not before one that starts with WITH.
        """
        if self.alone and not self.connection.in_transaction:
            sql = f"WITH alone AS (SELECT 1) {sql}"
        return await self.connection.execute_fetchall(sql, parameters)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Keep all changes made within, or none if it raises; the rest of the group is unaffected."""
        if not self.connection.in_transaction:
            # As the first statement, the savepoint would be the transaction itself, and its release the commit.
            await self.connection.execute("BEGIN IMMEDIATE")
        await self.connection.execute("SAVEPOINT part")
        last_seq = self.last_seq
        try:
            yield
        except Exception as error:
            if isinstance(error, sqlite3.Error) and translate(error) is not None:
                raise
            self.last_seq = last_seq
            await self.connection.execute("ROLLBACK TO part")
            await self.connection.execute("RELEASE part")
            raise
        await self.connection.execute("RELEASE part")


Operation = Callable[[Transaction], Awaitable[T]]

Joint = Callable[[Transaction, Sequence[W]], Awaitable[Sequence[T | StoreError]]]
"""Carries out several writes of one kind in order; the outcome of a refused write is its error."""


def translate(error: sqlite3.Error) -> StoreError | None:
    """Return our error for a SQLite error about the disk or a lock, or None for any other."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("the disk is full; nothing was stored")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageBusy("another program holds the database's write lock; nothing was stored")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY):
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        return StoreFailed(f"the database reported {name}: {error}")
    return None


def refusal(error: sqlite3.IntegrityError, *, missing: NotFound, conflict: str | None = None) -> Refused:
    """Return our error for a broken constraint: `missing` for a foreign key, or a Conflict for any other."""
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return missing
    return Conflict(conflict or str(error))


async def copy_back(connection: aiosqlite.Connection) -> None:
    """Checkpoint the WAL as far as readers allow. Raises sqlite3.Error if the disk reports an error.

    What does not fit on the disk stays in the WAL, and is not lost.
    """
    try:
        await connection.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        if not isinstance(translate(error), StorageBusy | StorageFull):
            raise


async def begin_wal_anew(connection: aiosqlite.Connection) -> None:
    """Checkpoint the whole WAL, and let the next write restart it, if its readers are done soon.

    Readers that begin meanwhile do not prolong this: nothing is written, so they read what is checkpointed.
    """
    await connection.execute_fetchall(f"PRAGMA busy_timeout = {RESTART_MILLISECONDS}")
    try:
        await connection.execute_fetchall("PRAGMA wal_checkpoint(RESTART)")
    except sqlite3.Error as error:
        if not isinstance(translate(error), StorageBusy | StorageFull):
            raise
    finally:
        await connection.execute_fetchall(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")


class _Pending(Generic[T]):
    """One operation that waits for its commit; or one write, and the function for it and its neighbours."""

    __slots__ = ("error", "joint", "operation", "result", "write")

    def __init__(
        self, operation: Operation[T] | None, *, joint: Joint[Any, T] | None = None, write: Any = None
    ) -> None:
        self.operation = operation
        self.joint = joint
        self.write = write
        self.result: T | None = None
        self.error: BaseException | None = None


class _Group:
    """The operations of one transaction; `done` wakes all who wait for it."""

    __slots__ = ("done", "pendings")

    def __init__(self) -> None:
        self.pendings: list[_Pending[Any]] = []
        self.done = anyio.Event()


class Writer:
    """Runs operations in groups, each group one transaction and one sync.

    `last_seq` is the end of the committed log. `committed` is called with it after every commit, before anyone is
    answered; if it raises StoreFailure, nobody is answered from then on. `growth` is called after every commit, and
    returns what to do about the WAL.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        last_seq: int,
        *,
        committed: Callable[[int], None],
        growth: Callable[[], WalLength],
    ) -> None:
        self._connection = connection
        self._committed = committed
        self._growth = growth
        self.last_seq = last_seq
        self._groups: deque[_Group] = deque()
        self._wake = anyio.Event()
        self._room = anyio.Event()
        self._closing = False
        self._failure: StoreError | None = None
        self.transactions = 0
        self.operations = 0

    def __repr__(self) -> str:
        state = "failed" if self._failure else "closing" if self._closing else "open"
        return f"<Writer {state} queued={self._queued} transactions={self.transactions}>"

    @property
    def _queued(self) -> int:
        return sum(len(group.pendings) for group in self._groups)

    @property
    def _full(self) -> bool:
        # Groups are filled one after the other, so a small number of groups need not be counted.
        return len(self._groups) * OPERATIONS_GROUP_MAX >= OPERATIONS_QUEUED_MAX <= self._queued

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation in the next transaction; return its result once that is synced to disk.

        Raises what the operation raised (then nothing of it was stored), StorageFull, StorageBusy or StoreFailure.
        """
        return await self._wait(_Pending(operation))

    async def join(self, joint: Joint[W, T], write: W) -> T:
        """Carry out a write in the next transaction, together with adjacent writes of the same `joint`.

        Returns and raises as `run` does.
        """
        return await self._wait(_Pending(None, joint=joint, write=write))

    async def _wait(self, pending: _Pending[T]) -> T:
        while self._full and not self._closing and self._failure is None:
            self._room = anyio.Event() if self._room.is_set() else self._room
            await self._room.wait()
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise StoreClosed("the store is closing")
        if not self._groups or len(self._groups[-1].pendings) == OPERATIONS_GROUP_MAX:
            self._groups.append(_Group())
        group = self._groups[-1]
        group.pendings.append(pending)
        self._wake.set()
        await group.done.wait()
        if pending.error is not None:
            raise pending.error
        return cast(T, pending.result)

    async def serve(self) -> None:
        """Write until closed. A transaction that has begun is finished even if this task is cancelled."""
        try:
            while True:
                while not self._groups:
                    if self._closing:
                        return
                    self._wake = anyio.Event()
                    await self._wake.wait()
                group = self._groups.popleft()
                with anyio.CancelScope(shield=True):
                    await self._commit(group)
                self._room.set()
        finally:
            self._closing = True
            self._abandon(StoreClosed("the store was closed before this was written"))

    def close(self) -> None:
        """Accept nothing more; `serve` returns when the queue is written."""
        self._closing = True
        self._wake.set()

    async def _commit(self, group: _Group) -> None:
        pendings, portions = group.pendings, list(_portions(group.pendings))
        transaction = Transaction(self._connection, self.last_seq, alone=len(portions) == 1)
        try:
            try:
                for portion in portions:
                    await _carry_out(portion, transaction)
                if self._connection.in_transaction:
                    await self._connection.commit()
            except Exception as error:
                if isinstance(error, sqlite3.Error) and translate(error) is not None:
                    raise
                await self._connection.rollback()
                transaction = Transaction(self._connection, self.last_seq, alone=False)
                await self._commit_each(pendings, transaction)
            if transaction.last_seq != self.last_seq:
                self.last_seq = transaction.last_seq
            self._committed(self.last_seq)
            length = self._growth()
            if length is WalLength.TOO_LONG:
                await begin_wal_anew(self._connection)
            elif length is WalLength.LONGER:
                await copy_back(self._connection)
        except (sqlite3.Error, OSError, StoreFailure) as error:
            await self._fail(pendings, error)
        self.transactions += 1
        self.operations += len(pendings)
        group.done.set()

    async def _commit_each(self, pendings: Sequence[_Pending[Any]], transaction: Transaction) -> None:
        for pending in pendings:
            pending.error = None
            try:
                async with transaction.savepoint():
                    await _carry_out([pending], transaction)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and translate(error) is not None:
                    raise
                pending.error = error
        await self._connection.commit()

    async def _fail(self, pendings: Sequence[_Pending[Any]], error: sqlite3.Error | OSError | StoreFailure) -> None:
        failure: StoreError | None = error if isinstance(error, StoreFailure) else None
        if failure is None:
            failure = translate(error) if isinstance(error, sqlite3.Error) else None
            failure = failure or StoreFailed(f"the database reported {error}")
            failure.__cause__ = error
        if not isinstance(failure, StorageBusy | StorageFull):
            self._failure = failure
            self._abandon(failure)
        try:
            await self._connection.rollback()
        except sqlite3.Error as rollback_error:
            self._failure = self._failure or StoreFailed(f"the rollback failed: {rollback_error}")
        for pending in pendings:
            pending.error = failure

    def _abandon(self, error: StoreError) -> None:
        while self._groups:
            group = self._groups.popleft()
            for pending in group.pendings:
                pending.error = error
            group.done.set()
        self._room.set()


def _portions(pendings: Sequence[_Pending[Any]]) -> Iterator[list[_Pending[Any]]]:
    """Yield groups of operations that are carried out together, in order."""
    portion: list[_Pending[Any]] = []
    for pending in pendings:
        if portion and (pending.joint is None or pending.joint != portion[0].joint):
            yield portion
            portion = []
        portion.append(pending)
    yield portion


async def _carry_out(pendings: Sequence[_Pending[Any]], transaction: Transaction) -> None:
    """Carry out one operation, or writes that belong together, and note the outcome of each."""
    first = pendings[0]
    if first.operation is not None:
        first.result = await first.operation(transaction)
    elif first.joint is not None:
        outcomes = await first.joint(transaction, [pending.write for pending in pendings])
        for pending, outcome in zip(pendings, outcomes, strict=True):
            pending.result, pending.error = (None, outcome) if isinstance(outcome, StoreError) else (outcome, None)
