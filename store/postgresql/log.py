"""The broker's log in PostgreSQL: batches in, mailbox pages out.

Owns the order in which the changes of a batch are carried out, and what is remembered of it. What each change does
is in `messages`, and for runs in what is given as `RunChanges`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, assert_never

import asyncpg
from msgspec.structs import replace

from bus.errors import Conflict
from bus.model.arriving import appended, settled, stored
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    AddFirstMessages,
    AddKey,
    AddMessages,
    AddPattern,
    AddSecurityEvents,
    AddSubscription,
    Applied,
    Change,
    Committed,
    CommitWork,
    Compacted,
    DeadLetter,
    DelayedRequest,
    Erase,
    FindRequest,
    FoundContents,
    HistoryRequest,
    LogMessage,
    LogState,
    Looked,
    Lot,
    MailboxState,
    NewMessage,
    NotCommitted,
    NoteKeyUse,
    Page,
    PageRequest,
    Recovered,
    RecoverRuns,
    ReleaseDue,
    Removal,
    Remove,
    Removed,
    RemoveDeadLetters,
    RemoveMessages,
    RemovePattern,
    RemoveRuns,
    RemoveSecurityEvents,
    RemoveSubscription,
    RevokeKeys,
    RunSurvey,
    SaveMailbox,
    SearchRequest,
    SecurityEvent,
    SecurityRequest,
    SeenBot,
    Started,
    StartScheduled,
    Surveyed,
    SurveyedRuns,
    SurveyRequest,
    SweepKeyed,
    lots_of,
    timestamp_of,
)
from bus.model.room import Room

from ..founding import add_first
from ..keys import add_key, note_key_use, revoke_keys
from ..removals import look, note_scrub, read_removals, remove_what
from ..subscriptions import add_pattern, remove_pattern, subscribe, unsubscribe
from .keyed import PostgresqlKeyed
from .messages import questions
from .messages.arrivals import Arrivals, list_scheduled
from .messages.conversations import Conversations
from .messages.erasing import erase
from .messages.finding import find_message, find_thread
from .messages.loading import load_state
from .messages.pages import count_senders, count_sources, count_waiting, read_page
from .messages.removing import (
    add_dead_letters,
    find_dead_letters,
    read_dead_letters,
    remove_dead_letters,
    remove_messages,
)
from .messages.rows import append_sql, columns_of, fetch
from .messages.scrubbing import rewrite
from .messages.sealed import mailbox_columns, save_mailboxes, save_sql
from .messages.searching import search
from .security import add_events, read_events, remove_events
from .server.database import Database
from .server.incarnation import LogEnd, one_statement
from .server.reader import Reader
from .server.statements import statements_on
from .server.writer import Alone, Transaction

__all__ = ["PostgresLog", "RunChanges"]

_ADD_BOT = "INSERT INTO bots (id, name, created_at, last_seen_at, public_key) VALUES ($1, $2, $3, $4, $5)"

_AUTOVACUUM = (
    "PostgreSQL keeps this database compact by itself: its autovacuum lets free room be used again, and gives back"
    " what is free at the ends of tables. `posthouse scrub` writes them anew, and gives the rest back: at a quiet"
    " hour"
)

_ADD_CHANNEL = """
    INSERT INTO bot_channels (name, created_at, created_by_bot_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"""


_IF_MOVED = "EXISTS (SELECT FROM moved)"

_AS_ONE = one_statement(
    f"added AS ({append_sql(after_seq='$4', timestamp='$6', first=7, condition=_IF_MOVED)}),"
    f" saved AS ({save_sql(first=21, condition=_IF_MOVED)})"
)


class RunChanges(Protocol):
    """What the changes of a batch do to runs, each in the caller's transaction."""

    async def carry_out_all(
        self, transaction: Transaction, works: Sequence[CommitWork]
    ) -> Sequence[Committed | NotCommitted | None]:
        """Carry out commits that follow each other, or return their earlier answers.

        The answer is None if a commit is unknown and was only to be looked up.
        """

    async def retry_runs(self, transaction: Transaction, mailbox_id: str, seqs: Iterable[int]) -> None:
        """Resume the runs that messages of a mailbox began, if they stopped because of an error."""

    async def recover(self, transaction: Transaction, change: RecoverRuns) -> Recovered:
        """End the holds of runs whose lease has expired."""

    async def start(self, transaction: Transaction, change: StartScheduled) -> Started:
        """Start the runs of schedules that are due."""

    async def remove(self, transaction: Transaction, change: RemoveRuns) -> int:
        """Remove runs that have ended."""

    async def survey(self, reader: Reader, survey: RunSurvey) -> SurveyedRuns:
        """Return runs that have ended, in the order in which they did."""


class PostgresLog:
    """The MessageLog over PostgreSQL; see `bus.model.repository` for what each method promises."""

    def __init__(
        self,
        database: Database,
        arrivals: Arrivals,
        conversations: Conversations,
        *,
        runs: RunChanges,
        keyed: PostgresqlKeyed,
    ) -> None:
        self._database = database
        self._arrivals = arrivals
        self._conversations = conversations
        self._runs = runs
        self._keyed = keyed

    def __repr__(self) -> str:
        return f"<PostgresLog {self._database.url} last_seq={self._database.writer.last_seq}>"

    async def load(self) -> LogState:
        """Return the state from which the broker resumes."""
        return await load_state(self._database)

    async def apply(self, changes: Sequence[Change]) -> Applied:
        """Carry out changes in order, in one transaction."""

        async def operation(transaction: Transaction) -> Applied:
            at = max(timestamp_of(changes), transaction.last_timestamp)
            answers: list[Any] = [None] * len(changes)
            for places in _portions(changes):
                found = await self._checked(transaction, [changes[place] for place in places], at)
                for place, answer in zip(places, found, strict=True):
                    answers[place] = answer
            outcomes = zip(changes, answers, strict=True)
            committed = {
                change.number
                for change, answer in outcomes
                if isinstance(change, CommitWork) and isinstance(answer, Committed)
            }
            states = [settled(change, committed).state for change in changes if isinstance(change, SaveMailbox)]
            await save_mailboxes(transaction.connection, {state.mailbox_id: state for state in states}.values())
            return Applied(answers, at)

        applied = await self._database.writer.run(operation, partial(self._as_one, changes))
        for change, answer in zip(changes, applied.answers, strict=True):
            self._arrivals.remember(answer)
            self._conversations.remember(stored(change, answer))
        self._arrivals.budgets.remember(changes, applied.answers)
        return applied

    def _as_one(self, changes: Sequence[Change], begun: LogEnd) -> Alone | None:
        """Return changes as one statement if they append messages and save mailboxes, and nothing is to be read."""
        lots: list[Lot] = []
        states: dict[str, MailboxState] = {}
        answers: list[Any] = []
        for change in changes:
            match change:
                case AddMessages() if self._arrivals.are_simple(change.lots):
                    answers.append(appended(change.lots, begun.last_seq + 1 + sum(map(len, lots))))
                    lots += change.lots
                case SaveMailbox(state):
                    answers.append(None)
                    states[state.mailbox_id] = state
                case _:
                    return None
        if self._conversations.unknown(lots):
            return None
        at = max(timestamp_of(changes), begun.last_timestamp)
        end = LogEnd(begun.last_seq + sum(map(len, lots)), at) if lots else begun
        values = (*columns_of(lots, begun.last_seq + 1, at), *mailbox_columns(states.values()))
        return Alone(_AS_ONE, values, end, [Applied(answers, at)])

    async def _checked(self, transaction: Transaction, changes: Sequence[Change], at: str) -> Sequence[Any]:
        try:
            if works := [replace(change, timestamp=at) for change in changes if isinstance(change, CommitWork)]:
                return await self._runs.carry_out_all(transaction, works)
            return [await self._change(transaction, change, at) for change in changes]
        except asyncpg.IntegrityConstraintViolationError as error:
            if not transaction.careful:
                raise
            raise Conflict(f"{type(changes[0]).__name__} contradicts what is stored: {error}") from error

    async def _change(self, transaction: Transaction, change: Change, at: str) -> Any:
        connection = transaction.connection
        match change:
            case AddMessages(lots):
                added = await self._arrivals.add(transaction, lots, at)
                await self._conversations.open(connection, stored(change, added), at)
                await self._keyed.retain(transaction, lots, added, at)
                return added
            case AddFirstMessages():
                make = partial(self._change, transaction, at=at)
                return await add_first(transaction, change, run=statements_on(connection), make=make)
            case ReleaseDue():
                released = await self._arrivals.release(transaction, change, at)
                await self._conversations.open(connection, lots_of(released.messages), at)
                return released
            case RemoveMessages():
                return await remove_messages(transaction, change)
            case Erase():
                return await erase(transaction, change, self._keyed)
            case Remove():
                return await self._remove_what(transaction, change)
            case RecoverRuns() | RemoveRuns() | StartScheduled():
                return await self._change_runs(transaction, change, at)
            case AddDeadLetters():
                await add_dead_letters(connection, change)
            case RemoveDeadLetters():
                removed = await remove_dead_letters(connection, change)
                await self._runs.retry_runs(transaction, change.mailbox_id, removed)
                return removed
            case AddSecurityEvents():
                await add_events(connection, change)
            case RemoveSecurityEvents():
                return await remove_events(connection, change)
            case SweepKeyed():
                return await self._keyed.sweep(transaction, change)
            case AddKey():
                await add_key(statements_on(connection), change)
            case RevokeKeys():
                await revoke_keys(statements_on(connection), change)
            case NoteKeyUse():
                await note_key_use(statements_on(connection), change)
            case CommitWork() | SaveMailbox():
                raise AssertionError("these are carried out together")
            case _:
                return await self._change_directory(transaction, change)
        return None

    async def _change_directory(
        self,
        transaction: Transaction,
        change: AddBot | SeenBot | AddChannel | AddSubscription | RemoveSubscription | AddPattern | RemovePattern,
    ) -> Any:
        connection = transaction.connection
        match change:
            case AddBot(bot):
                await connection.execute(
                    _ADD_BOT, bot.id, bot.name, bot.created_at, bot.last_seen_at, bot.public_key
                )
                await save_mailboxes(connection, [MailboxState(bot.id, transaction.last_seq)])
                return transaction.last_seq
            case SeenBot():
                await connection.execute(
                    "UPDATE bots SET last_seen_at = $1 WHERE id = $2", change.at, change.bot_id
                )
            case AddChannel(channel):
                await connection.execute(_ADD_CHANNEL, channel.name, channel.created_at, channel.created_by_bot_id)
            case AddSubscription():
                subscribed = await subscribe(statements_on(connection), change, last_seq=transaction.last_seq)
                return await self._keyed.with_retained(transaction, change, subscribed)
            case RemoveSubscription():
                return await unsubscribe(statements_on(connection), change)
            case AddPattern():
                return await add_pattern(statements_on(connection), change, last_seq=transaction.last_seq)
            case RemovePattern():
                return await remove_pattern(statements_on(connection), change)
            case _:
                assert_never(change)
        return None

    async def _remove_what(self, transaction: Transaction, change: Remove) -> Removed:
        connection = transaction.connection
        removed = await remove_what(statements_on(connection), change, partial(count_waiting, connection))
        if removed.done and not removed.again:
            await self._keyed.forget(transaction, change.what)
        return removed

    async def _change_runs(
        self, transaction: Transaction, change: RecoverRuns | RemoveRuns | StartScheduled, at: str
    ) -> Any:
        match change:
            case RecoverRuns():
                return await self._runs.recover(transaction, replace(change, timestamp=at))
            case RemoveRuns():
                return await self._runs.remove(transaction, change)
            case StartScheduled():
                return await self._runs.start(transaction, replace(change, timestamp=at))

    async def read_page(self, request: PageRequest) -> Page:
        """Read part of a mailbox."""
        return await read_page(self._database.read, request)

    async def seq_before(self, at: str) -> int:
        """Return the last seq whose timestamp is before `at`."""
        return await questions.seq_before(self._database.questions, at, self._database.writer.last_seq)

    async def history(self, request: HistoryRequest) -> list[LogMessage]:
        """Return a conversation in the order that is asked for."""
        return await questions.history(self._database.questions, request, self._database.writer.last_seq)

    async def thread(self, request: FindRequest, *, before_seq: int | None, limit: int) -> list[int]:
        """Return the seqs of the thread of the message that is meant, newest first."""
        before = self._database.writer.last_seq + 1 if before_seq is None else before_seq
        return await find_thread(self._database.questions, request, before, limit)

    async def messages(self, seqs: Sequence[int]) -> list[LogMessage]:
        """Return these messages, newest first."""
        named = "WHERE seq = ANY($1::bigint[]) ORDER BY seq DESC"
        return await fetch(self._database.questions, named, seqs)

    async def find(self, request: FindRequest) -> NewMessage | None:
        """Return the message that is meant, in the log or delayed."""
        return await find_message(self._database.questions, request)

    async def survey(self, request: SurveyRequest) -> list[Surveyed]:
        """Return a part of the log, without contents."""
        return await questions.survey(self._database.read, request)

    async def survey_runs(self, survey: RunSurvey) -> SurveyedRuns:
        """Return runs that have ended, in the order in which they did."""
        return await self._runs.survey(self._database.read, survey)

    async def locate(self, seqs: Sequence[int]) -> list[Surveyed]:
        """Return who sent these messages to whom."""
        return await questions.locate(self._database.read, seqs)

    async def find_ids(self, ids: Sequence[str]) -> dict[str, Surveyed]:
        """Return the first messages with these ids, without their contents."""
        return await questions.find_ids(self._database.read, ids)

    async def look(self, change: Remove) -> Looked:
        """Return what a removal would do, or did before."""
        reader = self._database.read
        return await look(
            statements_on(reader), change, partial(count_sources, reader), partial(count_waiting, reader)
        )

    async def count(self, request: PageRequest) -> dict[str, int]:
        """Count the direct messages that a mailbox has still to deliver, by their senders."""
        return await count_senders(self._database.read, request)

    async def delayed(self, request: DelayedRequest) -> list[NewMessage]:
        """Return messages that are not due yet."""
        return await list_scheduled(self._database.questions, request)

    async def channel_counts(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of messages of each channel."""
        return await questions.channel_counts(self._database.questions, names)

    async def backlogs(self, requests: Sequence[PageRequest]) -> list[int]:
        """Count the messages that each mailbox has still to deliver."""
        return [await count_waiting(self._database.questions, request) for request in requests]

    async def peek(self, request: PageRequest) -> Page:
        """Read part of a mailbox, for somebody who only looks."""
        return await read_page(self._database.questions, request)

    async def given_up(self, seq: int, mailbox_ids: Sequence[str]) -> list[DeadLetter]:
        """Return what is recorded of a message in mailboxes of which it is a dead letter."""
        return list(await find_dead_letters(self._database.questions, seq, mailbox_ids))

    async def dead_letters(
        self, mailbox_id: str | None, limit: int, offset: int = 0
    ) -> list[tuple[DeadLetter, LogMessage | None]]:
        """List dead letters, newest first."""
        found = await read_dead_letters(self._database.questions, mailbox_id, limit, offset)
        messages = {message.seq: message for message in await self.messages([dead.seq for dead in found])}
        return [(dead, messages.get(dead.seq)) for dead in found]

    async def security_events(self, request: SecurityRequest) -> list[tuple[SecurityEvent, bool]]:
        """Return security events."""
        return await read_events(self._database.questions, request)

    async def search(self, request: SearchRequest) -> FoundContents:
        """Return the messages and runs that contain something, in portions."""
        return await search(self._database.questions, request, self._database.writer.last_seq)

    async def removals(self, after: int, limit: int) -> list[Removal]:
        """Return the records of removals, in their order."""
        return await read_removals(statements_on(self._database.questions), after, limit)

    async def scrub(self, at: str) -> None:
        """Write anew the tables that had what was removed."""
        [[last]] = await self._database.read.fetch("SELECT COALESCE(MAX(number), 0) FROM removals")
        await rewrite(self._database.open_reader)

        async def operation(transaction: Transaction) -> None:
            await note_scrub(statements_on(transaction.connection), last, at)

        await self._database.writer.run(operation)

    async def compact(self, *, dry_run: bool) -> Compacted:
        """Raise Conflict: this is PostgreSQL's to do."""
        raise Conflict(_AUTOVACUUM)

    async def sizes(self) -> dict[str, int]:
        """Return the number of messages and the bytes of the database."""
        return await questions.sizes(self._database.questions)

    async def room(self) -> Room:
        """Return the bytes of the database; PostgreSQL does not say what its disk has free."""
        return await questions.room(self._database.questions)


def _portions(changes: Sequence[Change]) -> Iterator[list[int]]:
    """Yield the places of changes that are carried out together, in order: commits that follow each other.

    Mailboxes are left out: they are saved at the end.
    """
    portion: list[int] = []
    for place, change in enumerate(changes):
        if isinstance(change, SaveMailbox):
            continue
        if portion and not (isinstance(change, CommitWork) and isinstance(changes[portion[0]], CommitWork)):
            yield portion
            portion = []
        portion.append(place)
    if portion:
        yield portion
