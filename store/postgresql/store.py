"""A store in PostgreSQL as a whole: its log, its audit trail, and its workflows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version

from bus.model.leadership import Candidate, Tenure
from bus.model.repository import (
    KeyedRepository,
    MessageLog,
    MessageRepository,
    StoreWatch,
    WorkflowRules,
    WorkflowStore,
)

from .commits import Commits
from .keyed import PostgresqlKeyed
from .messages.arrivals import schedule
from .opening import Messages
from .server.database import Database, open_database
from .workflows.events import EventWriting
from .workflows.schedules import cron_warning
from .workflows.workflows import PostgresqlWorkflows

__all__ = ["PostgresqlStore", "open_postgresql_store"]


class PostgresqlStore:
    """An open store: the log, the messages, the workflows and the keyed store of one database."""

    def __init__(
        self, database: Database, messages: Messages, workflows: PostgresqlWorkflows, keyed: PostgresqlKeyed
    ) -> None:
        self._database = database
        commits = Commits(messages.arrivals, messages.conversations, workflows, keyed)
        self.log: MessageLog = messages.log(commits, keyed)
        self.messages: MessageRepository = messages.audit
        self.workflows: WorkflowStore = workflows
        self.keyed: KeyedRepository = keyed
        self.warnings = list(database.warnings)
        self.tenure: Tenure | None = database.tenure

    def __repr__(self) -> str:
        return f"<PostgresqlStore {self._database.url}>"

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries that the store uses."""
        return {"postgresql": self._database.server_version, "asyncpg": version("asyncpg")}


@asynccontextmanager
async def open_postgresql_store(
    url: str,
    rules: WorkflowRules,
    clock: Callable[[], datetime] | None = None,
    watch: StoreWatch | None = None,
    *,
    candidate: Candidate | None = None,
    alone: bool = False,
) -> AsyncIterator[PostgresqlStore]:
    """Open a store, and take it over from whoever wrote to it before; with `alone`, not if that is connected.

    With a `candidate`, not from a worker that leads.

    Without a `clock`, which is for tests, workflows get their times from the server's clock. Raises what
    `server.database.open_database` does.
    """
    async with open_database(url, watch, candidate, alone=alone) as database:
        messages = await Messages.read(database)
        workflows = PostgresqlWorkflows(database, rules, clock, EventWriting(schedule))
        store = PostgresqlStore(database, messages, workflows, PostgresqlKeyed(database, clock))
        store.warnings += await cron_warning(database.read)
        yield store
