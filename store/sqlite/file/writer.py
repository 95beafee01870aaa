"""The one writer: every write is an operation, and all queued operations become one transaction.

Owns the writing connection while it runs. Its rules (docs/design.md):

- While one group is being synced the next one fills; there is no timer, and a single operation is committed at
  once.
- A caller is answered after the commit that holds its operation. Cancelling a caller cancels its wait, never the
  transaction.
- An operation that raises fails alone: the group is rolled back and run again, each operation under its own
  savepoint. So an operation may run twice and must not keep state between runs.
- Adjacent writes of one kind in the queue are carried out together, by a function for that kind.
- The outcome of a commit that fails with an I/O error is unknown: everything fails from then on.
- The WAL is checkpointed after a transaction was answered, never before. A checkpoint that fails is retried once; a
  second failure is a disk failure.
- Overlapping readers prevent the WAL from restarting. If it is too long, the writer waits for them briefly.
- Work on the whole file is done between two transactions, in its turn.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

import anyio

from bus.errors import StorageBusy, StorageFull, StoreClosed, StoreError, StoreFailed, StoreFailure

from .connection import Statement, StoreConnection, execute_all
from .failures import translate
from .wal import RESTART_MILLISECONDS, WalLength

__all__ = [
    "BUSY_MILLISECONDS",
    "OPERATIONS_GROUP_MAX",
    "OPERATIONS_QUEUED_MAX",
    "Joint",
    "Operation",
    "Plan",
    "Transaction",
    "Whole",
    "Writer",
    "begin_wal_anew",
    "copy_back",
]

OPERATIONS_QUEUED_MAX = 10_000
"""Further callers wait: the queue must not outgrow memory when the disk stalls."""

OPERATIONS_GROUP_MAX = 1_000
"""Operations in one transaction, so that the first of a long queue is not answered last."""

BUSY_MILLISECONDS = 5_000
"""How long a statement waits for another program's lock, like Python's sqlite3."""

_COMMIT_BYTES = 12 * 4096
_ROW_BYTES = 1_000
"""Estimates of what a commit, and each row in it with its indexes, adds to the WAL: Python's sqlite3 does not say.
If they are too low, SQLite's own checkpoint limits the WAL (`wal.CHECKPOINT_BYTES_MAX`).
"""

T = TypeVar("T")
W = TypeVar("W")


class Transaction:
    """What an operation works with: the writing connection, and the log's end within this transaction.

    The transaction begins with its first write, which saves a turn of the database's thread. `alone` is True if
    this operation, or joint, is all of it. `body_bytes` counts what is written beside rows of an ordinary size.
    """

    __slots__ = ("alone", "body_bytes", "connection", "last_seq")

    def __init__(self, connection: StoreConnection, last_seq: int, *, alone: bool) -> None:
        self.connection = connection
        self.last_seq = last_seq
        self.alone = alone
        self.body_bytes = 0

    async def execute_last(self, sql: str, parameters: Sequence[Any]) -> Iterable[sqlite3.Row]:
        """Carry out the last write of an operation, and return its rows.

        If it is the only write of the only operation, it begins and commits the transaction by itself, in one turn
        of the database's thread instead of two.
        """
        if self.alone and not self.connection.in_transaction:
            sql = _alone(sql)
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


def _alone(sql: str) -> str:
    """Return a write as a statement that begins and commits its transaction by itself.

    Python's sqlite3 begins a transaction before a statement that starts with INSERT, UPDATE or DELETE, but not
    before one that starts with WITH.
    """
    return f"WITH alone AS (SELECT 1) {sql}"


Operation = Callable[[Transaction], Awaitable[T]]


class Whole(NamedTuple, Generic[T]):
    """A transaction as statements: what it answers, and the log's end after it, are known before."""

    statements: list[Statement]
    answer: T
    last_seq: int
    body_bytes: int
    """How much it writes, beside rows of an ordinary size."""
    unless: Statement | None = None
    """A query with which the transaction begins: if it finds a row, nothing is written."""


Plan = Callable[[int], Whole[T] | None]
"""Returns a whole transaction, given the log's end before it; None if it depends on what is stored."""

Work = Callable[[StoreConnection], Awaitable[None]]
"""Something that no transaction can contain."""

Joint = Callable[[Transaction, Sequence[W]], Awaitable[Sequence[T | StoreError]]]
"""Carries out several writes of one kind in order; the outcome of a refused write is its error."""


async def copy_back(connection: StoreConnection) -> None:
    """Checkpoint the WAL as far as readers allow. Raises sqlite3.Error if the disk reports an error.

    What does not fit on the disk stays in the WAL, and is not lost.
    """
    try:
        await connection.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        if not isinstance(translate(error), StorageBusy | StorageFull):
            raise


async def begin_wal_anew(connection: StoreConnection) -> bool:
    """Checkpoint the whole WAL, and let the next write restart it, if its readers are done soon; return whether.

    Readers that begin meanwhile do not prolong this: nothing is written, so they read what is checkpointed.
    """
    await connection.execute_fetchall(f"PRAGMA busy_timeout = {RESTART_MILLISECONDS}")
    try:
        [[busy, _, _]] = await connection.execute_fetchall("PRAGMA wal_checkpoint(RESTART)")
        return not busy
    except sqlite3.Error as error:
        if not isinstance(translate(error), StorageBusy | StorageFull):
            raise
        return False
    finally:
        await connection.execute_fetchall(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")


class _Pending(Generic[T]):
    """One operation that waits for its commit; or one write, and the function for it and its neighbours."""

    __slots__ = ("error", "joint", "operation", "result", "whole", "write")

    def __init__(
        self,
        operation: Operation[T] | None,
        *,
        whole: Plan[T] | None = None,
        joint: Joint[Any, T] | None = None,
        write: Any = None,
    ) -> None:
        self.operation = operation
        self.whole = whole
        self.joint = joint
        self.write = write
        self.result: T | None = None
        self.error: BaseException | None = None


class _Group:
    """The operations of one transaction, or work on the whole file; `done` wakes all who wait for it."""

    __slots__ = ("done", "pendings", "work")

    def __init__(self, work: Work | None = None) -> None:
        self.pendings: list[_Pending[Any]] = []
        self.work = work
        self.done = anyio.Event()


class Writer:
    """Runs operations in groups, each group one transaction and one sync.

    `last_seq` is the end of the committed log. `committed` is called with it after every commit, mostly on the
    database's thread, before anyone is answered; if it raises, nobody is answered from then on. `growth` is called
    after the answers with the bytes that were written, about, and returns what to do about the WAL.
    """

    def __init__(
        self,
        connection: StoreConnection,
        last_seq: int,
        *,
        committed: Callable[[int], None],
        growth: Callable[[int], WalLength],
    ) -> None:
        self._connection = connection
        self._committed = committed
        self._growth = growth
        self.last_seq = last_seq
        self._groups: deque[_Group] = deque()
        self._wake = anyio.Event()
        self._room = anyio.Event()
        self._closing = False
        self.failure: StoreError | None = None
        """Why nothing is written any more."""
        self._changes = 0
        self._body_bytes = 0
        self._unmarked: OSError | StoreFailure | None = None
        """Why a transaction was committed and could not be noted: nobody of it is answered."""
        self.transactions = 0
        self.operations = 0

    def __repr__(self) -> str:
        state = "failed" if self.failure else "closing" if self._closing else "open"
        return f"<Writer {state} queued={self._queued} transactions={self.transactions}>"

    @property
    def _queued(self) -> int:
        return sum(len(group.pendings) for group in self._groups)

    @property
    def _full(self) -> bool:
        # Groups are filled one after the other, so a small number of groups need not be counted.
        return len(self._groups) * OPERATIONS_GROUP_MAX >= OPERATIONS_QUEUED_MAX <= self._queued

    async def run(self, operation: Operation[T], *, whole: Plan[T] | None = None) -> T:
        """Run an operation in the next transaction; return its result once that is synced to disk.

        `whole` does the same in one turn of the database's thread. It is tried first if the operation is alone in
        its transaction; if it fails, the operation is run.

        Raises what the operation raised (then nothing of it was stored), StorageFull, StorageBusy or StoreFailure.
        """
        return await self._wait(_Pending(operation, whole=whole))

    async def join(self, joint: Joint[W, T], write: W) -> T:
        """Carry out a write in the next transaction, together with adjacent writes of the same `joint`.

        Returns and raises as `run` does.
        """
        return await self._wait(_Pending(None, joint=joint, write=write))

    async def _wait(self, pending: _Pending[T]) -> T:
        while self._full and not self._closing and self.failure is None:
            self._room = anyio.Event() if self._room.is_set() else self._room
            await self._room.wait()
        if self.failure is not None:
            raise self.failure
        if self._closing:
            raise StoreClosed("the store is closing")
        last = self._groups[-1] if self._groups else None
        if last is None or last.work is not None or len(last.pendings) == OPERATIONS_GROUP_MAX:
            self._groups.append(_Group())
        await self._done(self._groups[-1], pending)
        return cast(T, pending.result)

    async def between(self, work: Work) -> None:
        """Do something between two transactions, after those that wait already. Raise what it raises, as `run`."""
        if self.failure is not None or self._closing:
            raise self.failure or StoreClosed("the store is closing")
        self._groups.append(_Group(work))
        await self._done(self._groups[-1], _Pending(None))

    async def _done(self, group: _Group, pending: _Pending[Any]) -> None:
        group.pendings.append(pending)
        self._wake.set()
        await group.done.wait()
        if pending.error is not None:
            raise pending.error

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
                    if not await self._limit_wal():
                        return
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
                if group.work is not None:
                    await self._work(group.work, pendings[0])
                elif not await self._commit_whole(pendings):
                    for portion in portions:
                        await _carry_out(portion, transaction)
                    await self._finish(transaction)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and translate(error) is not None:
                    raise
                await self._connection.rollback()
                transaction = Transaction(self._connection, self.last_seq, alone=False)
                await self._commit_each(pendings, transaction)
            if self._unmarked is not None:
                raise self._unmarked
        except (sqlite3.Error, OSError, StoreFailure) as error:
            await self._fail(pendings, error)
        self.transactions += 1
        self.operations += len(pendings)
        group.done.set()

    async def _work(self, work: Work, pending: _Pending[None]) -> None:
        try:
            await work(self._connection)
        except (StorageBusy, StorageFull) as error:
            pending.error = error

    async def _limit_wal(self) -> bool:
        """Checkpoint the WAL if it has grown; everyone in it is answered already. Return False if that failed."""
        if self.failure is not None:
            return True  # those who waited were told
        changes = self._connection.total_changes
        written_bytes = _COMMIT_BYTES + _ROW_BYTES * (changes - self._changes) + self._body_bytes
        self._changes, self._body_bytes = changes, 0
        length = self._growth(written_bytes)
        if length is WalLength.FITS:
            return True
        checkpoint = begin_wal_anew if length is WalLength.TOO_LONG else copy_back
        try:
            try:
                await checkpoint(self._connection)
            except sqlite3.Error:
                await checkpoint(self._connection)
        except sqlite3.Error as error:
            await self._fail((), error)
        return self.failure is None

    async def _commit_whole(self, pendings: Sequence[_Pending[Any]]) -> bool:
        """Commit what is alone and known in whole, in one turn of the database's thread.

        Return False, with nothing written, if it is not, or if the log has one of its ids.
        """
        pending = pendings[0]
        if len(pendings) > 1 or pending.whole is None:
            return False
        try:
            whole = pending.whole(self.last_seq)
            if whole is None or not await self._connection.run(partial(self._write, whole)):
                return False
        except sqlite3.IntegrityError:
            return False
        pending.result = whole.answer
        self.last_seq = whole.last_seq
        self._body_bytes = whole.body_bytes
        return True

    def _write(self, whole: Whole[Any], connection: sqlite3.Connection) -> bool:
        """Write a whole transaction; return False if it must not be. Runs on the database's thread."""
        try:
            if len(whole.statements) == 1 and whole.unless is None:
                [(sql, values)] = whole.statements
                connection.execute(_alone(sql), values)
            else:
                connection.execute("BEGIN IMMEDIATE")
                if whole.unless is not None and connection.execute(*whole.unless).fetchone() is not None:
                    connection.rollback()
                    return False
                execute_all(connection, whole.statements)
            self._end(whole.last_seq, connection)
        except BaseException:
            connection.rollback()
            raise
        finally:
            whole.statements.clear()  # the thread keeps what it did last until it has something else to do
        return True

    async def _finish(self, transaction: Transaction) -> None:
        """Commit, and note it, before anyone is answered."""
        if self._connection.in_transaction:
            await self._connection.run(partial(self._end, transaction.last_seq))
        else:  # its only statement was the commit, too: a turn of the thread is saved
            self._note(transaction.last_seq)
        self.last_seq = transaction.last_seq
        self._body_bytes = transaction.body_bytes

    def _end(self, last_seq: int, connection: sqlite3.Connection) -> None:
        """Commit, and note it; runs on the database's thread."""
        if connection.in_transaction:
            connection.commit()
        self._note(last_seq)

    def _note(self, last_seq: int) -> None:
        try:
            self._committed(last_seq)
        except (OSError, StoreFailure) as error:
            self._unmarked = error
        except Exception as error:  # it is committed, and nobody may write it again
            self._unmarked = StoreFailed(f"a commit could not be noted: {error!r}")

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
        await self._finish(transaction)

    async def _fail(self, pendings: Sequence[_Pending[Any]], error: sqlite3.Error | OSError | StoreFailure) -> None:
        failure: StoreError | None = error if isinstance(error, StoreFailure) else None
        if failure is None:
            failure = translate(error) if isinstance(error, sqlite3.Error) else None
            failure = failure or StoreFailed(f"the database reported {error}")
            failure.__cause__ = error
        if not isinstance(failure, StorageBusy | StorageFull):
            self.failure = failure
            self._abandon(failure)
        try:
            await self._connection.rollback()
        except sqlite3.Error as rollback_error:
            self.failure = self.failure or StoreFailed(f"the rollback failed: {rollback_error}")
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
