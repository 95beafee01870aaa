"""The SQLite backend: one file, one writer, every write synced."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosqlite

from bus.model.leadership import Tenure
from bus.model.repository import (
    KeyedRepository,
    MessageLog,
    MessageRepository,
    StoreWatch,
    WorkflowRules,
    WorkflowStore,
)

from ..budgets import Budgets, is_any_budget
from ..taint import Taint, is_any_tainted
from .commits import Commits
from .file.database import WAL_RESET_FIXED, Database, open_database, starting
from .file.place import check_place, find_place, place_warnings
from .file.statements import statements_on
from .keyed import SqliteKeyed
from .log import SqliteLog
from .messages.arrivals import Arrivals, next_due_at
from .messages.audit import SqliteMessages
from .messages.conversations import Conversations, table_columns
from .workflows.schedules import cron_warning
from .workflows.workflows import SqliteWorkflows

__all__ = ["SqliteStore", "examine", "open_sqlite_store", "steady_clock"]


class SqliteStore:
    """An open store: the log, the messages, the workflows and the keyed store of one file."""

    def __init__(
        self,
        database: Database,
        arrivals: Arrivals,
        conversations: Conversations,
        *,
        workflows: SqliteWorkflows,
        keyed: SqliteKeyed,
    ) -> None:
        self.path = database.path
        commits = Commits(arrivals, conversations, workflows, keyed)
        self.log: MessageLog = SqliteLog(database, arrivals, conversations, commits=commits, keyed=keyed)
        self.messages: MessageRepository = SqliteMessages(database, arrivals, conversations)
        self.workflows: WorkflowStore = workflows
        self.keyed: KeyedRepository = keyed
        self.warnings = [*database.warnings, *_warnings(conversations)]
        self.tenure: Tenure | None = None

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries that the store uses."""
        return {"sqlite": sqlite3.sqlite_version, "aiosqlite": aiosqlite.__version__}


@asynccontextmanager
async def open_sqlite_store(
    path: str, rules: WorkflowRules, clock: Callable[[], datetime] | None, watch: StoreWatch | None
) -> AsyncIterator[SqliteStore]:
    """Open a store; see `store.open_store`."""
    async with open_database(Path(path), watch) as database:
        with starting(database.path):
            run = statements_on(database.read)
            taint, budgets = Taint(present=await is_any_tainted(run)), Budgets(noted=await is_any_budget(run))
            arrivals = Arrivals(taint, budgets, waiting=await next_due_at(database.read) is not None)
            conversations = Conversations(await table_columns(database.read))
            unread = await cron_warning(database.read)
        steady = clock or steady_clock()
        workflows = SqliteWorkflows(database, rules, clock or _system_clock, steady)
        keyed = SqliteKeyed(database, steady)
        store = SqliteStore(database, arrivals, conversations, workflows=workflows, keyed=keyed)
        store.warnings += unread
        yield store


def _system_clock() -> datetime:
    return datetime.now(UTC)


def steady_clock(
    wall: Callable[[], datetime] = _system_clock, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], datetime]:
    """Return a clock that shows the current wall-clock time, and is not affected when that clock is set later."""
    began_at, began = wall(), monotonic()
    return lambda: began_at + timedelta(seconds=monotonic() - began)


def examine(database: str) -> list[str]:
    """Return warnings about SQLite, and about where a database is or will be, each with what to do.

    It is not opened. Raise DatabaseUnusable if it could not be served there, and StoreFailed for a disk error.
    """
    place = find_place(Path(database))
    check_place(place)
    return [*_version_warnings(), *place_warnings(place.database)]


def _version_warnings() -> list[str]:
    if sqlite3.sqlite_version_info >= WAL_RESET_FIXED:
        return []
    fixed = ".".join(map(str, WAL_RESET_FIXED))
    return [
        f"SQLite {sqlite3.sqlite_version} is older than {fixed}: while the worker runs, let no other program write"
        " to the database or checkpoint it; how to use a newer one: docs/operations.md, 'A newer SQLite'"
    ]


def _warnings(conversations: Conversations) -> list[str]:
    warnings = _version_warnings()
    if conversations.unknown_columns:
        columns = ", ".join(conversations.unknown_columns)
        warnings.append(f"chat_sessions requires columns that posthouse does not know ({columns}): none are opened")
    return warnings
