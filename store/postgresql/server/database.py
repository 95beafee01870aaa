"""A database that is open: its schema is there, this worker is the only one that writes, and what it shows is safe.

Owns the order of the start, and its warnings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.abc
import asyncpg
import uuid_utils

from bus.errors import DatabaseDamaged, DatabaseInUse, DatabaseUnusable, StoreError, StoreFailed
from bus.model.leadership import Candidate
from bus.model.repository import StoreWatch

from ...urls import shown
from .catalog import schema_faults
from .checks import Server, warnings
from .connecting import SCHEMA, is_lost, make_safe, translate, unreachable
from .epoch import settle_epoch
from .incarnation import take_over
from .leadership import has_leadership, take_lead
from .obstacles import clear_way
from .primary import Primary
from .reader import Reader, open_reader
from .renewing import steady_clock
from .schema import is_complete, migrate
from .tenure import PostgresqlTenure
from .writer import Writer

__all__ = ["Database", "open_database", "start_failure"]

_READERS = 4
"""Connections for reading: pages for mailboxes and workflows together. PostgreSQL allows 100 in all as it is
shipped."""

_WAITING_SECONDS = 5.0
"""After this time operators are told what the start waits for."""

_WAITS = (
    "PostgreSQL does not answer a commit, which waits for standbys (synchronous_standby_names = {}): start one;"
    " nothing is acknowledged before"
)

_LOOKS, _LOOK_SECONDS = 100, 0.05
"""How often, and after which pause, to look for sessions of another worker: those of a killed one end soon."""

# Of two workers that start at once, the one whose session is older goes on.
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'posthouse'
    AND backend_start < (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"""


class Database:
    """An open database: the writer, the readers, and the log's epoch."""

    def __init__(
        self, primary: Primary, epoch: str, server: Server, *, writer: Writer, read: Reader, questions: Reader
    ) -> None:
        self.url = str(primary)
        self.open_reader = partial(open_reader, primary, 1)
        """For something that needs settings of its own."""
        self.epoch = epoch
        self.server_version = server.version_text
        self.warnings = list(warnings(server))
        """What operators should know about this start, one sentence each."""
        self.writer = writer
        self.read = read
        """For workflows, mailboxes, and what the broker decides."""
        self.questions = questions
        """For queries of people and bots, which may take long: nothing else waits behind them."""
        self.tenure: PostgresqlTenure | None = None
        """The time as the leader, if it was opened by a candidate."""

    def __repr__(self) -> str:
        return f"<Database {self.url} epoch={self.epoch} {self.writer}>"


@asynccontextmanager
async def open_database(
    url: str,
    watch: StoreWatch | None = None,
    candidate: Candidate | None = None,
    *,
    alone: bool = False,
    moving: bool = False,
) -> AsyncIterator[Database]:
    """Open a database and take it over: whoever wrote to it before stores nothing from now on.

    With a `candidate`, take the lead as well: raise OwnershipLost, now if another worker leads, and later if the
    lease is lost. Leaving the context gives it up. With `alone`, that is done without a candidate, unless a worker
    is connected: then raise DatabaseInUse.

    One that was moved away, or is only in part here, is refused, unless it is opened for `moving`.

    Raise DatabaseUnusable, DatabaseNewer or StoreFailed if it cannot be served. A failure to write ends the context
    with StoreFailed, through the calls that were waiting for it.
    """
    if alone:
        candidate = Candidate(worker_id=str(uuid_utils.uuid7()))
    primary = Primary(url, watch, **({} if candidate is None else _settings_of(candidate)))
    connection: asyncpg.Connection | None = None
    tenure: PostgresqlTenure | None = None
    try:
        async with _asked(primary) as tasks:
            connection, server = await primary.connect()
            if candidate is not None:
                silent_seconds = candidate.lease_seconds / 2
                tasks.start_soon(clear_way, primary, connection.get_server_pid(), silent_seconds, watch)
            if alone:
                await _be_alone(connection, url)
            await _make_safe(connection, server, watch)
            take = partial(take_over, place=shown(url), moving=moving)
            if candidate is None:
                await migrate(connection, watch)
                incarnation, end = await take(connection, str(uuid_utils.uuid7()))
            else:
                if not await is_complete(connection) and not await has_leadership(connection):
                    await migrate(connection, watch)
                incarnation, end, before, leader, sent_at = await take_lead(
                    connection, candidate, take, steady_clock, forced=alone
                )
                tenure = PostgresqlTenure(url, candidate, leader, before, sent_at=sent_at)
                if not await is_complete(connection):  # only now: a worker of an earlier version may have led
                    await migrate(connection, watch)
            warned = await _compare_schema(connection, url)
            writer = Writer(primary, connection, incarnation, end)
            epoch = await settle_epoch(connection)
    except BaseException as error:
        if connection is not None:
            connection.terminate()
        if tenure is not None:
            with anyio.CancelScope(shield=True):
                await tenure.stop()
        error = _alone_in(error)
        if (failure := start_failure(url, error)) is not None:
            raise failure from error
        raise error
    async with (
        open_reader(primary, _READERS) as read,
        open_reader(primary, 1) as questions,
        _serving(writer, primary, tenure),
    ):
        database = Database(primary, epoch.name, server, writer=writer, read=read, questions=questions)
        if tenure is not None:
            database.tenure, tenure.reader = tenure, questions
        database.warnings += warned + epoch.warnings
        yield database


def _settings_of(candidate: Candidate) -> dict[str, str]:
    """Let the server end a batch in whose middle the worker is silent for as long as its lease."""
    return {"idle_in_transaction_session_timeout": f"{candidate.lease_seconds * 1000:.0f}"}


def start_failure(url: str, error: BaseException) -> StoreError | None:
    """Return our error for one of PostgreSQL that ended the start."""
    if isinstance(error, asyncpg.InsufficientPrivilegeError | asyncpg.InvalidSchemaNameError):
        return DatabaseUnusable(f"{shown(url)} cannot be used: {error}; let the role own the schema {SCHEMA}")
    if is_lost(None, error):
        return unreachable(url, error)
    if isinstance(error, asyncpg.PostgresError):
        return translate(error) or StoreFailed(f"PostgreSQL reported {error.sqlstate}: {error}")
    return None


async def _compare_schema(connection: asyncpg.Connection, url: str) -> list[str]:
    """Raise DatabaseDamaged if the schema differs from what the migrations make; return warnings."""
    try:
        faults = await schema_faults(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        return [f"the schema was not compared with what it should be: {error} (GRANT TEMPORARY ON DATABASE …)"]
    if faults:
        raise DatabaseDamaged(f"{shown(url)} is damaged: {'; '.join(faults)}; repair the schema, or restore a copy")
    return []


async def _be_alone(connection: asyncpg.Connection, url: str) -> None:
    """Wait until no other worker has a session. Raise DatabaseInUse if one keeps it."""
    for _ in range(_LOOKS):
        if not await connection.fetchval(_OTHERS):
            return
        await anyio.sleep(_LOOK_SECONDS)
    raise DatabaseInUse(shown(url), None)


@asynccontextmanager
async def _asked(primary: Primary) -> AsyncIterator[anyio.abc.TaskGroup]:
    """Drop a session that is waited for if its server is silent and was replaced; what waits then fails.

    Tasks in the group end with the context.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(primary.watch)
        with primary.waiting():
            yield tasks
        tasks.cancel_scope.cancel()


def _alone_in(error: BaseException) -> BaseException:
    """Return the error in a group of one, and in the group in that."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


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
async def _serving(writer: Writer, primary: Primary, tenure: PostgresqlTenure | None) -> AsyncIterator[None]:
    """Write until the context ends, or its body is cancelled because writing failed, or the lease is over."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        # It lasts as long as a transaction, which nobody cancels.
        watching = anyio.CancelScope(shield=True)
        tasks.start_soon(_watch, primary, watching)
        tasks.start_soon(_write, writer, watching, tasks.cancel_scope)
        if tenure is not None:
            tasks.start_soon(tenure.guard, writer)
        try:
            yield
        except Exception as error:
            # The task group would cancel the writer, and raise the caller's own error in a group.
            failure = error
        finally:
            if tenure is not None:
                with anyio.CancelScope(shield=True):
                    await tenure.release()
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
