"""The database file: its lock, its connections, and what is done before it can be relied on.

Owns the order of starting (docs/design.md): lock, inspect, open, migrate, checkpoint. The checkpoint is not
housekeeping: a row whose sync never finished before a crash is visible after it, would be answered as a duplicate,
and could still be lost in a power cut; after the checkpoint it is on disk.

Only the writing connection writes and checkpoints. The reading ones are `query_only` and close first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import uuid_utils

from bus.errors import (
    DatabaseDamaged,
    DatabaseLocked,
    DatabaseUnusable,
    StorageBusy,
    StorageFull,
    StoreError,
    StoreFailed,
    StoreFailure,
)
from bus.model.lineage import written_earlier
from bus.model.records import timestamp
from bus.model.repository import StoreWatch

from ...moving.movable import FENCES_AHEAD, refusal
from .compacting import prepare_to_compact
from .connection import StoreConnection
from .failures import translate
from .lockfile import LockFile
from .place import check_place, find_place, opening_failure, place_warnings
from .reader import Reader, lenient_text
from .schema import TRUST_NOTHING, Identity, inspect, migrate
from .wal import CHECKPOINT_BYTES_MAX, WAL_KEPT_BYTES, Growth, WalWatch
from .writer import BUSY_MILLISECONDS, Transaction, Writer, copy_back

__all__ = ["WAL_RESET_FIXED", "Database", "note_earlier", "open_database", "starting"]

WAL_RESET_FIXED = (3, 51, 3)
"""Before this SQLite version, two connections that write or checkpoint at once can corrupt a database."""

_WRITER_CACHE_KIBIBYTES = 16 * 1024
"""Page cache of the writer: the upper levels of every index of some ten million messages, and what a large batch
writes. SQLite fills it with every page that it touches and frees none, so a worker grows until it is full.
"""

_READER_CACHE_KIBIBYTES = 2 * 1024
"""Page cache of each reader: the pages it reads were written recently, and are in the system's own cache."""

_WRITER_STATEMENTS = 256
"""Prepared statements that the writer keeps: inserts of up to 64 messages or step logs are one statement for each
number of rows. All of these together take 12 MiB.
"""

_READER_STATEMENTS = 64
"""The same for a reader, whose largest statements take 200 KiB."""

_LOOK_SECONDS = 1.0
"""How often an idle worker checks that its files are still there; a busy one checks at every commit."""

_COPY = (
    "{} continues under a new epoch: the mark beside it is missing or was written for another file, so it is"
    " assumed to be a restored copy"
)


_HERE = "SELECT epoch, earlier, (SELECT COALESCE(MAX(seq), 0) FROM bot_messages) FROM log"


class Database:
    """An open database: the writer, three readers, and the log's epoch."""

    def __init__(
        self,
        path: Path,
        epoch: str,
        *,
        writer: Writer,
        read: Reader,
        pages: Reader,
        questions: Reader,
        lock: LockFile,
    ) -> None:
        self.path = path
        self.epoch = epoch
        self._lock = lock
        self.warnings: list[str] = []
        """What operators should know about this start, one sentence each."""
        self.writer = writer
        self.read = read
        """For workflows, and for what the broker decides."""
        self.questions = questions
        """For queries of people and bots, which may take long: nothing else waits behind them."""
        self.pages = pages
        """For mailboxes: a delivery never waits behind a query."""

    def __repr__(self) -> str:
        return f"<Database {self.path} epoch={self.epoch} {self.writer}>"

    async def rename(self, epoch: str) -> None:
        """Change which log this is. Killed in the middle, the next start takes it for a copy."""

        async def operation(transaction: Transaction) -> None:
            await transaction.connection.execute("UPDATE log SET epoch = ?", (epoch,))

        await self.writer.run(operation)
        await anyio.to_thread.run_sync(self._lock.begin, epoch, self.writer.last_seq)
        self.epoch = epoch


@asynccontextmanager
async def open_database(
    path: Path, watch: StoreWatch | None = None, *, moving: bool = False
) -> AsyncIterator[Database]:
    """Open, recover and lock a database, and watch its WAL; see `store.open_store` for the errors.

    One that was moved away, or is only in part here, is refused, unless it is opened for `moving`. A write error
    ends the context with StoreFailed, through the calls that were waiting for it.
    """
    place = await anyio.to_thread.run_sync(find_place, path)
    lock = LockFile(place, None if watch is None else watch.warn)
    try:
        continued = await anyio.to_thread.run_sync(partial(_inspect, lock, moving=moving))
        async with _connect(place.database, statements=_WRITER_STATEMENTS) as write:
            identity = await _begin(lock, write, watch, continued=continued, moving=moving)
            # Text that Python cannot decode would fail the whole group and leave its statement open, which holds a
            # snapshot: after another program's write, nothing could be written here any more.
            write.text_factory = lenient_text
            async with _serving(lock, write, identity, watch) as database:
                if not continued:
                    database.warnings.append(_COPY.format(place.database))
                database.warnings += await anyio.to_thread.run_sync(place_warnings, place.database)
                yield database
        await anyio.to_thread.run_sync(lock.end)
    finally:
        lock.release()


@asynccontextmanager
async def _serving(
    lock: LockFile, write: StoreConnection, identity: Identity, watch: StoreWatch | None
) -> AsyncIterator[Database]:
    path = lock.place.database
    writer = Writer(
        write, identity.last_seq, committed=lock.committed, growth=Growth(path.with_name(f"{path.name}-wal"))
    )
    failure: Exception | None = None
    async with (
        _connect_reader(path) as read,
        _connect_reader(path) as pages,
        _connect_reader(path, alone=True) as questions,
        anyio.create_task_group() as tasks,
    ):
        await anyio.to_thread.run_sync(lock.note_files)
        closed = anyio.Event()
        tasks.start_soon(_write, writer, tasks.cancel_scope)
        tasks.start_soon(_look, lock, closed, tasks.cancel_scope)
        wal = None if watch is None else WalWatch(path, watch)
        if wal is not None:
            tasks.start_soon(wal.run)
        try:
            yield Database(
                path, identity.epoch, writer=writer, read=read, pages=pages, questions=questions, lock=lock
            )
        except Exception as error:
            # The task group would cancel the writer, and raise the caller's own error in a group.
            failure = error
        finally:
            closed.set()
            writer.close()
            if wal is not None:
                wal.close()
    if lock.failure is not None:
        # If only the WAL was removed, this may save what is still in it.
        with suppress(StoreFailure):
            await _copy_back(path, write)
    failure = failure or lock.failure or writer.failure
    if failure is not None:
        raise failure
    await _copy_back(path, write)


async def _write(writer: Writer, serving: anyio.CancelScope) -> None:
    """Write until closed. What is served ends if the disk fails while nobody waits for a write."""
    await writer.serve()
    if writer.failure is not None:
        serving.cancel()


async def _look(lock: LockFile, closed: anyio.Event, serving: anyio.CancelScope) -> None:
    """Check the files when nothing is written, too. If one is gone, cancel what is being served."""
    while not closed.is_set():
        try:
            lock.look()
        except StoreFailure:
            serving.cancel()
            return
        with anyio.move_on_after(_LOOK_SECONDS):
            await closed.wait()


async def _end_move(connection: StoreConnection) -> None:
    """Note that what was copied from here is not all any more. Writes nothing if nothing was."""
    await connection.execute("DELETE FROM house_move WHERE TRUE")  # without a condition it would write a page
    await connection.commit()


def _inspect(lock: LockFile, *, moving: bool) -> bool:
    """Lock and inspect the file; return whether its log continues as marked."""
    path = lock.place.database
    try:
        check_place(lock.place)
        lock.acquire()
        identity = inspect(path)
        refused = None if identity is None or moving else refusal(str(path), identity.move)
        if refused is not None:
            raise refused
        continued = lock.verify(identity.epoch if identity else None, identity.last_seq if identity else 0)
        if not path.exists():
            lock.create()
    except OSError as error:
        raise opening_failure(path, error) from error
    return continued


async def _begin(
    lock: LockFile, connection: StoreConnection, watch: StoreWatch | None, *, continued: bool, moving: bool
) -> Identity:
    """Migrate the file, and note which log is served."""
    try:
        identity = await _prepare(lock.place.database, connection, watch, continued=continued)
        if not moving:
            await _end_move(connection)
        await anyio.to_thread.run_sync(lock.begin, identity.epoch, identity.last_seq)
    except (sqlite3.Error, OSError) as error:
        raise _refusal(lock.place.database, error) from error
    return identity


@asynccontextmanager
async def _connect(path: Path, *, statements: int) -> AsyncIterator[StoreConnection]:
    try:
        connection = StoreConnection(
            path,
            isolation_level="IMMEDIATE",
            timeout=BUSY_MILLISECONDS / 1000,
            cached_statements=statements,
        )
        await connection
    except sqlite3.Error as error:
        raise _refusal(path, error) from error
    try:
        await connection.execute(TRUST_NOTHING)
        yield connection
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()


@asynccontextmanager
async def _connect_reader(path: Path, *, alone: bool = False) -> AsyncIterator[Reader]:
    async with _connect(path, statements=_READER_STATEMENTS) as connection:
        connection.text_factory = lenient_text
        try:
            await connection.execute("PRAGMA query_only = ON")
            await connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIBIBYTES}")
            # SQLite opens the WAL with the first read: later there may be no descriptor left for it.
            await connection.execute_fetchall("SELECT epoch FROM log")
        except sqlite3.Error as error:
            raise _refusal(path, error) from error
        reader = Reader(connection, alone=alone)
        try:
            yield reader
        finally:
            reader.close()


async def _prepare(
    path: Path, connection: StoreConnection, watch: StoreWatch | None, *, continued: bool
) -> Identity:
    await prepare_to_compact(connection)
    await connection.execute("PRAGMA synchronous = FULL")
    await connection.execute("PRAGMA foreign_keys = ON")
    await connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIBIBYTES}")
    [[page_bytes]] = await connection.execute_fetchall("PRAGMA page_size")
    await connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES_MAX // page_bytes}")
    await connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    mode = next(iter(await connection.execute_fetchall("PRAGMA journal_mode = WAL")))[0]
    if mode != "wal":
        raise StoreFailed(f"{path} cannot use a write-ahead log (it is in {mode} mode): is it on a network disk?")
    await migrate(connection, watch)
    # A statement of many rows needs little to undo itself, and there may be no descriptor left for a file.
    await connection.execute("PRAGMA temp_store = MEMORY")
    identity = await _identify(path, connection, continued=continued)
    busy = next(iter(await connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")))[0]
    if busy:
        raise DatabaseLocked(str(path))
    return identity


@contextmanager
def starting(path: Path) -> Iterator[None]:
    """Translate errors of reads during the start: damage that SQLite finds refuses the start, like any other."""
    try:
        yield
    except StoreFailed as error:
        if isinstance(error.__cause__, sqlite3.Error):
            raise _refusal(path, error.__cause__) from error
        raise


def _refusal(path: Path, error: sqlite3.Error | OSError) -> StoreError:
    """Return why a database cannot be served, for an error at the start."""
    if isinstance(error, OSError):
        return opening_failure(path, error)
    failure = translate(error)
    if isinstance(failure, StorageBusy):
        return DatabaseLocked(str(path))
    if isinstance(failure, StorageFull):
        return StoreFailed(f"{path} cannot be opened: the disk is full; make room outside of it, then start again")
    if isinstance(error, sqlite3.OperationalError) and "already exists" in str(error):
        return DatabaseDamaged(f"{path} has tables that are not posthouse's ({error}); serve another file")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_READONLY:
        return DatabaseUnusable(f"{path} is read-only ({error}); change the permissions of it and of its folder")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreFailed(f"{path} cannot be opened; check its permissions and the limit on open files")
    if failure is None or code == sqlite3.SQLITE_CORRUPT:
        return DatabaseDamaged(f"{path} cannot be opened ({error}); restore a copy")
    return failure


async def _copy_back(path: Path, connection: StoreConnection) -> None:
    """Checkpoint the WAL at an orderly end. SQLite also does so when it closes, but does not report a failure.

    Raises StoreFailed if the disk reports an error.
    """
    try:
        with anyio.CancelScope(shield=True):
            await copy_back(connection)
    except sqlite3.Error as error:
        raise StoreFailed(f"{path} could not be written ({error}); check the disk, then start again") from error


async def note_earlier(connection: StoreConnection) -> None:
    """Note which log this is, and where it ends: another one is about to go on from it."""
    [[epoch, earlier, last_seq]] = await connection.execute_fetchall(_HERE)
    await connection.execute("UPDATE log SET earlier = ?", (written_earlier(earlier, epoch, last_seq),))


async def _identify(path: Path, connection: StoreConnection, *, continued: bool) -> Identity:
    """Return which log this is, with a new epoch if it may assign seqs again. This also tests writing."""
    rows = [*await connection.execute_fetchall("SELECT epoch FROM log")]
    if len(rows) > 1:
        raise DatabaseDamaged(f"{path} is {len(rows)} logs at once: its table `log` has one row; restore a copy")
    epoch = next((str(row[0]) for row in rows), None)
    if epoch is None:
        epoch = str(uuid_utils.uuid7())
        await connection.execute(
            "INSERT INTO log (epoch, created_at) VALUES (?, ?)", (epoch, timestamp(datetime.now(UTC)))
        )
    else:
        if not continued:
            await note_earlier(connection)
            epoch = str(uuid_utils.uuid7())
            # A program may still hold a run by a claim that is not in this copy: the next claim must not be equal.
            await connection.execute("UPDATE workflow_runs SET fence = fence + ?", (FENCES_AHEAD,))
        await connection.execute("UPDATE log SET epoch = ?", (epoch,))
    await connection.commit()
    [[last_seq]] = await connection.execute_fetchall("SELECT COALESCE(MAX(seq), 0) FROM bot_messages")
    return Identity(epoch, last_seq)
