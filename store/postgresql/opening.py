"""The message side of an open database: its log, and its audit trail."""

from __future__ import annotations

from ..budgets import Budgets, is_any_budget
from ..taint import Taint, is_any_tainted
from .keyed import PostgresqlKeyed
from .log import PostgresLog, RunChanges
from .messages.arrivals import Arrivals, next_due_at
from .messages.audit import PostgresMessages
from .messages.conversations import Conversations
from .server.database import Database
from .server.statements import statements_on

__all__ = ["Messages"]


class Messages:
    """What shares the memory of one writer about messages."""

    def __init__(self, database: Database, arrivals: Arrivals) -> None:
        self._database = database
        self.arrivals = arrivals
        self.conversations = Conversations()
        self.audit = PostgresMessages(database, self.arrivals, self.conversations)

    def __repr__(self) -> str:
        return f"<Messages {self._database.url}>"

    @classmethod
    async def read(cls, database: Database) -> Messages:
        """Return it for a database that was opened."""
        run = statements_on(database.read)
        taint, budgets = Taint(present=await is_any_tainted(run)), Budgets(noted=await is_any_budget(run))
        return cls(database, Arrivals(taint, budgets, waiting=await next_due_at(database.read) is not None))

    def log(self, runs: RunChanges, keyed: PostgresqlKeyed) -> PostgresLog:
        """Return the log, whose changes of runs are carried out by `runs`, and those of keyed values by `keyed`."""
        return PostgresLog(self._database, self.arrivals, self.conversations, runs=runs, keyed=keyed)
