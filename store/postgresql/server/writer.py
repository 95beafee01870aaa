"""The one writer: every write is an operation, and all queued operations become one transaction.

Owns the writing connection. Its rules (docs/decisions/0076-a-log-in-postgresql.md):

- While one group is being committed the next one fills; there is no timer, and a single operation is committed at
  once.
- A caller is answered after the commit that holds its operation. Cancelling a caller cancels its wait. A
  transaction is never cancelled, and has no timeout: a commit that waits for a standby would become visible without
  one.
- An operation that raises fails alone: the group is rolled back and run again, each operation under its own
  savepoint. So an operation may run several times and must not keep state between runs.
- A group of one operation, or of writes of one kind, is one statement that is its transaction, if it can be.
- Adjacent writes of one kind in the queue are carried out together, by a function for that kind.
- If the connection is lost, a new one looks at the number of the last batch that was committed, and nobody is
  answered, and nothing read, before that look has been committed itself. Then the group is answered, or run again.
  A statement may arrive by the lost connection after that look: the next attempt finds its number, and looks again.
- A commit that comes with a warning was not waited for. It is answered after an empty commit that was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

import anyio
import asyncpg

from bus.errors import OwnershipLost, StorageBusy, StorageFull, StoreClosed, StoreError, StoreFailed, StoreFailure

from .connecting import CLOSE_SECONDS_MAX, is_lost, make_safe, refusal, translate
from .incarnation import Incarnation, LogEnd, begin, carry_out_alone, look, move_end
from .primary import ATTEMPTS_MAX, Primary

__all__ = ["Alone", "Joint", "JointAsOne", "Operation", "Transaction", "Writer"]

OPERATIONS_QUEUED_MAX = 10_000
"""Further callers wait: the queue must not outgrow memory while commits wait for a standby."""

OPERATIONS_GROUP_MAX = 1_000
"""Operations in one transaction, so that the first of a long queue is not answered last."""

T = TypeVar("T")
W = TypeVar("W")


class Transaction:
    """What an operation works with: the writing connection, and the log's end within this transaction.

    `time` is the server's clock when the transaction began. `careful` says that an operation failed when all of the
    group was carried out together: what usually is not there may be there this time.

    After an error of a statement, PostgreSQL refuses all others until the transaction or a savepoint is rolled
    back: an operation that goes on after one has made that statement in a `savepoint`.
    """

    __slots__ = ("careful", "connection", "last_seq", "last_timestamp", "time")

    def __init__(self, connection: asyncpg.Connection, time: datetime, end: LogEnd, *, careful: bool) -> None:
        self.connection = connection
        self.careful = careful
        self.time = time
        self.last_seq = end.last_seq
        self.last_timestamp = end.last_timestamp

    @property
    def end(self) -> LogEnd:
        """The log's end."""
        return LogEnd(self.last_seq, self.last_timestamp)

    def move_end(self, messages: int, timestamp: str) -> None:
        """Note that messages were appended."""
        self.last_seq += messages
        self.last_timestamp = max(self.last_timestamp, timestamp)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Keep all changes made within, or none if it raises; the rest of the group is unaffected."""
        await self.connection.execute("SAVEPOINT part")
        end = self.end
        try:
            yield
        except Exception as error:
            if is_lost(self.connection, error):
                raise
            self.last_seq, self.last_timestamp = end
            await self.connection.execute("ROLLBACK TO part; RELEASE part")
            raise
        await self.connection.execute("RELEASE part")


Operation = Callable[[Transaction], Awaitable[T]]


class Alone(NamedTuple):
    """A group as one statement: SQL of `incarnation.one_statement`, its own values, and what it leads to."""

    sql: str
    values: Sequence[Any]
    end: LogEnd
    results: Sequence[Any]
    """What each of its operations, or writes, is answered; for a write that is refused, its error."""


AsOne = Callable[[LogEnd], Alone | None]
"""Returns an operation as one statement, for a log that ends there; None if that depends on what is stored."""

Joint = Callable[[Transaction, Sequence[W]], Awaitable[Sequence[T | StoreError]]]
"""Carries out several writes of one kind in order; the outcome of a refused write is its error."""

JointAsOne = Callable[[asyncpg.Connection, LogEnd, Sequence[W]], Awaitable[Alone | None]]
"""Returns several writes of one kind as one statement, after reading what that depends on; None if it is more.

What is read stays true until the statement: only this worker writes, and the statement is carried out only if no
other one has taken over.
"""


class _Pending(Generic[T]):
    """One operation that waits for its commit; or one write, and the function for it and its neighbours."""

    __slots__ = ("as_one", "error", "joint", "joint_as_one", "operation", "result", "write")

    def __init__(
        self,
        operation: Operation[T] | None,
        joint: Joint[Any, T] | None = None,
        write: Any = None,
        *,
        as_one: AsOne | None = None,
        joint_as_one: JointAsOne[Any] | None = None,
    ) -> None:
        self.operation = operation
        self.as_one = as_one
        self.joint_as_one = joint_as_one
        self.joint = joint
        self.write = write
        self.result: T | None = None
        self.error: StoreError | Exception | None = None


class _Group:
    """The operations of one transaction; `done` wakes all who wait for it."""

    __slots__ = ("done", "pendings")

    def __init__(self) -> None:
        self.pendings: list[_Pending[Any]] = []
        self.done = anyio.Event()


class Writer:
    """Runs operations in groups, each group one transaction, which waits for a standby if the server says so.

    `last_seq` is the end of the committed log.
    """

    def __init__(
        self, primary: Primary, connection: asyncpg.Connection, incarnation: Incarnation, end: LogEnd
    ) -> None:
        self._primary = primary
        self._connection = connection
        self._incarnation = incarnation
        self._end = end
        self._attempted = end
        self._batch = 0
        """The number of the last batch that is known to be committed."""
        self._warned = False
        self._groups: deque[_Group] = deque()
        self._wake = anyio.Event()
        self._room = anyio.Event()
        self._closing = False
        self.failure: StoreError | None = None
        """Why nothing is written any more."""
        self.transactions = 0
        self.doubts = 0
        """How often a connection was lost within a transaction."""
        connection.add_log_listener(self._hear)

    def __repr__(self) -> str:
        state = "failed" if self.failure else "closing" if self._closing else "open"
        return f"<Writer {state} queued={self._queued} transactions={self.transactions} doubts={self.doubts}>"

    @property
    def last_seq(self) -> int:
        """The end of the committed log."""
        return self._end.last_seq

    @property
    def _queued(self) -> int:
        return sum(len(group.pendings) for group in self._groups)

    async def run(self, operation: Operation[T], as_one: AsOne | None = None) -> T:
        """Run an operation in the next transaction; return its result once that is committed and safe.

        If it is alone there, and `as_one` returns a statement, that is carried out instead.

        Raises what the operation raised (then nothing of it was stored), StorageFull, StorageBusy or StoreFailure.
        """
        return await self._wait(_Pending(operation, as_one=as_one))

    async def join(self, joint: Joint[W, T], write: W, as_one: JointAsOne[W] | None = None) -> T:
        """Carry out a write in the next transaction, together with adjacent writes of the same `joint`.

        If there is nothing else, all of them have an `as_one`, and that returns a statement, it is carried out
        instead. Returns and raises as `run` does.
        """
        return await self._wait(_Pending(None, joint, write, joint_as_one=as_one))

    async def _wait(self, pending: _Pending[T]) -> T:
        while self._queued >= OPERATIONS_QUEUED_MAX and not self._closing and self.failure is None:
            self._room = anyio.Event() if self._room.is_set() else self._room
            await self._room.wait()
        if self.failure is not None:
            raise self.failure
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
            while self.failure is None:
                while not self._groups:
                    if self._closing or self.failure is not None:
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

    def abandon(self, error: StoreError) -> None:
        """Write nothing more, and fail all who wait with this error.

        The connection is dropped. It is left open whether a batch that has begun is stored.
        """
        if self.failure is None:
            self.failure = error
            self._primary.abandon(error)
            self._abandon(error)
            self._wake.set()

    async def _commit(self, group: _Group) -> None:
        try:
            await self._until_decided(group.pendings)
        except asyncpg.PostgresError as error:
            failure = translate(error) or StoreFailed(f"PostgreSQL reported {error.sqlstate}: {error}")
            self._refuse(group.pendings, failure)
        except StoreError as error:
            self._refuse(group.pendings, error)
        except Exception as error:
            self._refuse(group.pendings, StoreFailed(f"a transaction could not be written: {error!r}"))
        self.transactions += 1
        group.done.set()

    def _refuse(self, pendings: Sequence[_Pending[Any]], error: StoreError) -> None:
        for pending in pendings:
            pending.error = error
        if not isinstance(error, StorageBusy | StorageFull):
            self.failure = self.failure or error
            self._abandon(error)

    async def _until_decided(self, pendings: Sequence[_Pending[Any]]) -> None:
        """Commit a group, on as many connections as it takes."""
        together, doubted = True, False
        alone: Alone | None = None
        for _ in range(ATTEMPTS_MAX):
            try:
                with self._primary.waiting():
                    # After a doubt it is the same statement again: the answers are those of whichever arrives.
                    alone = alone or (await self._as_one(pendings) if together else None)
                    await (
                        self._attempt(pendings, together=together) if alone is None else self._attempt_alone(alone)
                    )
            except Exception as error:
                if self.failure is not None:
                    raise self.failure from error
                # After a doubt, the number in the row may be that of an earlier attempt, whose statement came late.
                if is_lost(self._connection, error) or (doubted and isinstance(error, OwnershipLost)):
                    doubted = True
                    if not await self._decide():
                        continue
                elif together and not _concerns_all(error):
                    together, alone = False, None
                    continue
                else:
                    raise
            self._batch += 1
            if alone is not None:
                for pending, result in zip(pendings, alone.results, strict=True):
                    pending.result, pending.error = (
                        (None, result) if isinstance(result, StoreError) else (result, None)
                    )
            return
        raise StoreFailed(
            f"the connection was lost {ATTEMPTS_MAX} times in one transaction; look at PostgreSQL's log"
        )

    async def _attempt(self, pendings: Sequence[_Pending[Any]], *, together: bool) -> None:
        """Carry out a group and commit it.

        If this raises, nothing of it is stored, unless the connection is lost.
        """
        connection = self._connection
        await connection.execute("BEGIN")
        try:
            time, begun = await begin(connection, self._incarnation, self._batch + 1)
            transaction = Transaction(connection, time, begun, careful=not together)
            await (_carry_out_together if together else _carry_out_each)(pendings, transaction)
            if transaction.end != begun:
                await move_end(connection, transaction.end)
        except Exception as error:
            if not is_lost(connection, error):
                await connection.execute("ROLLBACK")
            raise
        self._warned = False
        self._attempted = transaction.end
        if await connection.execute("COMMIT") != "COMMIT":
            raise StoreFailed("an operation went on after an error, so that PostgreSQL stored nothing")
        await self._committed(transaction.end)

    async def _as_one(self, pendings: Sequence[_Pending[Any]]) -> Alone | None:
        """Return a group as one statement, if it can be."""
        first, *others = pendings
        if first.as_one is not None:
            return None if others else first.as_one(self._end)
        if first.joint_as_one is None or any(
            each.joint != first.joint or each.joint_as_one is None for each in others
        ):
            return None
        return await first.joint_as_one(self._connection, self._end, [each.write for each in pendings])

    async def _attempt_alone(self, alone: Alone) -> None:
        """Carry out and commit a group as one statement.

        If this raises, nothing of it is stored, unless the connection is lost.
        """
        self._warned = False
        self._attempted = alone.end
        ends = self._end, alone.end
        await carry_out_alone(self._connection, self._incarnation, self._batch + 1, ends, alone.sql, alone.values)
        await self._committed(alone.end)

    async def _committed(self, end: LogEnd) -> None:
        """Make sure that a commit was waited for, and note the end of the log."""
        if self._warned:
            await make_safe(self._connection)
        self._end = end

    async def _decide(self) -> bool:
        """Return True if the batch that was attempted is committed, by a new connection; readers wait meanwhile."""
        self.doubts += 1
        with self._primary.doubt():
            self._connection.terminate()
            self._connection, batch = await self._primary.ask(partial(look, incarnation=self._incarnation))
            self._connection.add_log_listener(self._hear)
        if batch < self._batch:
            missing = self._batch - batch
            raise StoreFailed(
                f"{missing} transactions that were answered are missing: a standby without them was promoted"
            )
        if batch > self._batch + 1:
            raise StoreFailed(f"batch {batch} was committed where {self._batch} was known: another program writes")
        if batch == self._batch:
            return False
        self._end = self._attempted
        return True

    def _hear(self, _: asyncpg.Connection, message: asyncpg.PostgresLogMessage) -> None:
        self._warned = self._warned or message.severity_en == "WARNING"

    def _abandon(self, error: StoreError) -> None:
        while self._groups:
            group = self._groups.popleft()
            for pending in group.pendings:
                pending.error = error
            group.done.set()
        self._room.set()

    async def end(self) -> None:
        """Close the connection, after `serve` has returned. A server that does not answer is not waited for."""
        with suppress(TimeoutError, OSError, asyncpg.PostgresError):
            await self._connection.close(timeout=CLOSE_SECONDS_MAX)


def _concerns_all(error: Exception) -> bool:
    """Return True if an error is not that of one operation."""
    if isinstance(error, asyncpg.PostgresError):
        return translate(error) is not None
    return isinstance(error, StoreFailure | StorageBusy | StorageFull)


def _portions(pendings: Sequence[_Pending[Any]]) -> Iterator[list[_Pending[Any]]]:
    """Yield groups of operations that are carried out together, in order."""
    portion: list[_Pending[Any]] = []
    for pending in pendings:
        if portion and (pending.joint is None or pending.joint != portion[0].joint):
            yield portion
            portion = []
        portion.append(pending)
    yield portion


async def _carry_out_together(pendings: Sequence[_Pending[Any]], transaction: Transaction) -> None:
    for portion in _portions(pendings):
        await _carry_out(portion, transaction)


async def _carry_out_each(pendings: Sequence[_Pending[Any]], transaction: Transaction) -> None:
    """Carry out each operation under its own savepoint, and note its error."""
    for pending in pendings:
        pending.error = None
        try:
            async with transaction.savepoint():
                await _carry_out([pending], transaction)
        except Exception as error:
            if is_lost(transaction.connection, error) or _concerns_all(error):
                raise
            pending.error = refusal(error)


async def _carry_out(pendings: Sequence[_Pending[Any]], transaction: Transaction) -> None:
    """Carry out one operation, or writes that belong together, and note the outcome of each."""
    first = pendings[0]
    if first.operation is not None:
        first.result = await first.operation(transaction)
    elif first.joint is not None:
        outcomes = await first.joint(transaction, [pending.write for pending in pendings])
        for pending, outcome in zip(pendings, outcomes, strict=True):
            pending.result, pending.error = (None, outcome) if isinstance(outcome, StoreError) else (outcome, None)
