"""A database that is open: its schema is there, this worker is the only one that writes, and what it shows is safe.

Owns the order of the start, and its warnings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import asyncpg
import uuid_utils

from bus.errors import StoreFailed
from bus.model.records import timestamp
from bus.model.repository import StoreWatch

from .checks import Server, warnings
from .connecting import make_safe, shown
from .incarnation import take_over
from .primary import Primary
from .reader import Reader, open_reader
from .schema import migrate
from .writer import Writer

__all__ = ["Database", "open_database"]

_READERS = 4
"""Connections for reading: pages for mailboxes and workflows together. PostgreSQL allows 100 in all as it is
shipped."""

_WAITING_SECONDS = 5.0
"""After this time operators are told what the start waits for."""

_WAITS = (
    "PostgreSQL does not answer a commit, which waits for standbys (synchronous_standby_names = {}): start one;"
    " nothing is acknowledged before"
)


class Database:
    """An open database: the writer, the readers, and the log's epoch."""

    def __init__(self, url: str, epoch: str, *, writer: Writer, read: Reader, questions: Reader) -> None:
        self.url = shown(url)
        self.epoch = epoch
        self.warnings: list[str] = []
        """What operators should know about this start, one sentence each."""
        self.writer = writer
        self.read = read
        """For workflows, mailboxes, and what the broker decides."""
        self.questions = questions
        """For queries of people and bots, which may take long: nothing else waits behind them."""

    def __repr__(self) -> str:
        return f"<Database {self.url} epoch={self.epoch} {self.writer}>"


@asynccontextmanager
async def open_database(
    url: str, watch: StoreWatch | None = None, *, moving: bool = False
) -> AsyncIterator[Database]:
    """Open a database and take it over: whoever wrote to it before stores nothing from now on.

    One that was moved away, or is only in part here, is refused, unless it is opened for `moving`.

    Raise DatabaseUnusable, DatabaseNewer or StoreFailed if it cannot be served. A failure to write ends the context
    with StoreFailed, through the calls that were waiting for it.
    """
    primary = Primary(url)
    connection, server = await _connect(url, primary)
    try:
        await _make_safe(connection, server, watch)
        await migrate(connection)
        incarnation, end = await take_over(connection, str(uuid_utils.uuid7()), place=shown(url), moving=moving)
        writer = Writer(primary, connection, incarnation, end)
        epoch = await _epoch(connection)
    except BaseException as error:
        connection.terminate()
        if isinstance(error, asyncpg.PostgresError | OSError):
            raise _failure(url, error) from error
        raise
    async with (
        open_reader(primary, _READERS) as read,
        open_reader(primary, 1) as questions,
        _serving(writer, primary),
    ):
        database = Database(url, epoch, writer=writer, read=read, questions=questions)
        database.warnings += warnings(server)
        yield database


async def _connect(url: str, primary: Primary) -> tuple[asyncpg.Connection, Server]:
    try:
        return await primary.connect()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise _failure(url, error) from error


def _failure(url: str, error: Exception) -> StoreFailed:
    return StoreFailed(
        f"{shown(url)} cannot be used ({error or type(error).__name__}); check the address, the role and its"
        " rights, and that one of the servers is the primary"
    )


async def _make_safe(connection: asyncpg.Connection, server: Server, watch: StoreWatch | None) -> None:
    """Wait for the first safe commit, and say so if it takes long."""
    async with anyio.create_task_group() as tasks:
        if watch is not None:
            tasks.start_soon(_tell, _WAITS.format(server.synchronous_standby_names), watch)
        await make_safe(connection)
        tasks.cancel_scope.cancel()


async def _tell(sentence: str, watch: StoreWatch) -> None:
    await anyio.sleep(_WAITING_SECONDS)
    watch.warn(sentence)


@asynccontextmanager
async def _serving(writer: Writer, primary: Primary) -> AsyncIterator[None]:
    """Write until the context ends, or its body is cancelled because writing failed."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        # It lasts as long as a transaction, which nobody cancels.
        watching = anyio.CancelScope(shield=True)
        tasks.start_soon(_watch, primary, watching)
        tasks.start_soon(_write, writer, watching, tasks.cancel_scope)
        try:
            yield
        except Exception as error:
            # The task group would cancel the writer, and raise the caller's own error in a group.
            failure = error
        finally:
            writer.close()
    failure = failure or writer.failure
    if failure is not None:
        raise failure


async def _watch(primary: Primary, watching: anyio.CancelScope) -> None:
    with watching:
        await primary.watch()


async def _write(writer: Writer, watching: anyio.CancelScope, serving: anyio.CancelScope) -> None:
    """Write until closed. What is served ends if writing fails while nobody waits for a write."""
    try:
        await writer.serve()
    finally:
        with anyio.CancelScope(shield=True):
            await writer.end()
        watching.cancel()
    if writer.failure is not None:
        serving.cancel()


async def _epoch(connection: asyncpg.Connection) -> str:
    """Return which log this is; a new one gets a name."""
    await connection.execute(
        "INSERT INTO log (epoch, created_at) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM log)",
        str(uuid_utils.uuid7()),
        timestamp(datetime.now(UTC)),
    )
    return str(await connection.fetchval("SELECT epoch FROM log"))
