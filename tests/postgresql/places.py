"""Where the page of the port finds the log and the audit trail in PostgreSQL, while runs are not kept there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NoReturn

from bus.model.repository import MessageLog, MessageRepository, RunSurvey, WorkflowRules
from store.postgresql.opening import Messages
from store.postgresql.server.database import open_database
from store.postgresql.server.reader import Reader
from store.postgresql.server.writer import Transaction

__all__ = ["MessagePlace"]


class MessageStore:
    """The part of a store that is there."""

    def __init__(self, log: MessageLog, messages: MessageRepository) -> None:
        self.log = log
        self.messages = messages


class MessagePlace:
    def __init__(self, url: str) -> None:
        self.url = url

    @asynccontextmanager
    async def open(
        self, *, rules: WorkflowRules | None = None, clock: Callable[[], datetime] | None = None
    ) -> AsyncIterator[Any]:
        assert rules is None
        assert clock is None
        async with open_database(self.url) as database:
            messages = await Messages.read(database)
            yield MessageStore(messages.log(NoRuns()), messages.audit)


class NoRuns:
    """There are no runs, and nothing is asked about them but when a dead letter is retried."""

    async def retry_runs(self, transaction: Transaction, mailbox_id: str, seqs: Iterable[int]) -> None: ...

    async def carry_out(self, transaction: Transaction, work: Any) -> NoReturn:
        raise NotImplementedError

    recover = start = remove = carry_out

    async def survey(self, reader: Reader, survey: RunSurvey) -> NoReturn:
        raise NotImplementedError
