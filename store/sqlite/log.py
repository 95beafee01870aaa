"""The broker's log in SQLite: batches in, mailbox pages out.

Owns the SQL of mailboxes, subscriptions as delivery sees them, dead letters, and removals by retention. `arrivals`
adds messages, and `pages` reads them for mailboxes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from bus.errors import Conflict
from bus.model.arriving import appended, are_plain, settled, stored
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
    MailboxState,
    NewMessage,
    NoteKeyUse,
    Page,
    PageRequest,
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
from ..keyed_rows import KEYS_COUNT
from ..keys import add_key, note_key_use, revoke_keys
from ..removals import look, note_scrub, read_removals, remove_what
from ..seals import mailbox_row
from ..subscriptions import SAVE_MAILBOX, add_pattern, remove_pattern, subscribe, unsubscribe
from ..taint import note_removal
from .commits import Commits
from .file.compacting import give_back, shorten
from .file.connection import Statement
from .file.database import Database, starting
from .file.scrubbing import scrub
from .file.statements import statements_on
from .file.wal import file_bytes, free_bytes
from .file.writer import Transaction, Whole
from .keyed import SqliteKeyed
from .messages.arrivals import Arrivals, is_any_scheduled, list_scheduled
from .messages.conversations import Conversations
from .messages.dead_letters import ADD_DEAD_LETTER, remove_dead_letters
from .messages.erasing import erase
from .messages.finding import find_message, find_thread
from .messages.ids import remove
from .messages.loading import load_state
from .messages.pages import Pages, count_in_portions, count_senders, count_waiting
from .messages.rows import WITH_SEQS, fetch, insertions
from .messages.searching import search
from .messages.surveys import find_ids, locate, survey
from .security import addition, change_events, read_events
from .workflows.keeping import remove_runs, survey_runs

__all__ = ["SqliteLog"]

_CHANNEL_COUNTS = """
    SELECT value, (SELECT COUNT(*) FROM bot_messages WHERE recipient_channel = value) FROM json_each(?)"""

# The two directions of a pair are two ranges of one index; each is limited before they are merged.
_BETWEEN = """
    WHERE seq IN (
        SELECT seq FROM (SELECT seq FROM bot_messages
            WHERE sender_bot_id = ?1 AND recipient_bot_id = ?2 AND seq > ?3 AND seq < ?4
            ORDER BY seq {order} LIMIT ?5)
        UNION
        SELECT seq FROM (SELECT seq FROM bot_messages
            WHERE sender_bot_id = ?2 AND recipient_bot_id = ?1 AND seq > ?3 AND seq < ?4
            ORDER BY seq {order} LIMIT ?5)
    ) ORDER BY seq {order} LIMIT ?5"""

_CHANNEL = "WHERE recipient_channel = ? AND seq > ? AND seq < ? ORDER BY seq {order} LIMIT ?"

_SEQ_MAX = (1 << 63) - 1

_WHOLE = (
    "this file was made by an earlier version, and cannot be compacted in portions before it was written anew once:"
    " `posthouse compact --whole` does that, at a quiet hour"
)


class SqliteLog:
    """The MessageLog over SQLite; see `bus.model.repository` for what each method promises."""

    def __init__(
        self,
        database: Database,
        arrivals: Arrivals,
        conversations: Conversations,
        *,
        commits: Commits,
        keyed: SqliteKeyed,
    ) -> None:
        self._database = database
        self._questions = database.questions
        self._commits = commits
        self._keyed = keyed
        self._arrivals = arrivals
        self._conversations = conversations
        self._pages, self._peeks = Pages(database.pages), Pages(database.questions)

    def __repr__(self) -> str:
        return f"<SqliteLog {self._database.path} last_seq={self._database.writer.last_seq}>"

    async def load(self) -> LogState:
        """Return the state from which the broker resumes."""
        with starting(self._database.path):
            return await load_state(self._database)

    async def apply(self, changes: Sequence[Change]) -> Applied:
        """Carry out changes in order, in one transaction."""

        async def operation(transaction: Transaction) -> list[Any]:
            answers: list[Any] = []
            committed: set[int] = set()
            for change in changes:
                if isinstance(change, SaveMailbox):
                    change = settled(change, committed)
                answer = await self._checked(transaction, change)
                if isinstance(change, CommitWork) and isinstance(answer, Committed):
                    committed.add(change.number)
                answers.append(answer)
            return answers

        answers = await self._database.writer.run(operation, whole=partial(self._plan, changes))
        for change, answer in zip(changes, answers, strict=True):
            self._arrivals.remember(answer)
            self._conversations.remember(stored(change, answer))
        self._arrivals.budgets.remember(changes, answers)
        return Applied(answers, timestamp_of(changes))

    def _plan(self, changes: Sequence[Change], last_seq: int) -> Whole[list[Any]] | None:
        """Return additions, mailbox states and security events as one transaction; None if there is more to it."""
        if not all(map(self._is_plain, changes)) or not self._are_decided(changes):
            return None
        statements: list[Statement] = []
        answers: list[Any] = []
        ids: list[str] = []
        body_bytes = 0
        for change in changes:
            match change:
                case AddMessages(lots):
                    statements += insertions(lots, last_seq + 1, change.timestamp)
                    answers.append(appended(lots, last_seq + 1))
                    last_seq += sum(map(len, lots))
                    body_bytes += sum(lot.size_bytes for lot in lots)
                    if self._arrivals.waiting:
                        ids += [id for lot in lots for id in lot.ids]
                case SaveMailbox(state):
                    row = mailbox_row(state)
                    statements.append((SAVE_MAILBOX, row))
                    answers.append(None)
                    body_bytes += sum(len(value) for value in row if isinstance(value, str))
                case AddSecurityEvents(events):
                    statements += map(addition, events)
                    answers.append(None)
        return Whole(statements, answers, last_seq, body_bytes, is_any_scheduled(ids) if ids else None)

    def _is_plain(self, change: Change) -> bool:
        if isinstance(change, AddMessages):
            return are_plain(change.lots) and not self._conversations.new_pairs(change.lots)
        return isinstance(change, SaveMailbox | AddSecurityEvents)

    def _are_decided(self, changes: Sequence[Change]) -> bool:
        lots = [lot for change in changes if isinstance(change, AddMessages) for lot in change.lots]
        return self._arrivals.taint.is_decided(lots) and self._arrivals.budgets.are_counted(lots)

    async def _checked(self, transaction: Transaction, change: Change) -> Any:
        try:
            return await self._change(transaction, change)
        except sqlite3.IntegrityError as error:
            raise Conflict(f"{type(change).__name__} contradicts what is stored: {error}") from error

    async def _change(self, transaction: Transaction, change: Change) -> Any:
        connection = transaction.connection
        match change:
            case AddMessages(lots):
                added = await self._arrivals.add(transaction, lots, change.timestamp)
                await self._conversations.open(connection, stored(change, added), change.timestamp)
                await self._keyed.retain(transaction, lots, added, change.timestamp)
                return added
            case AddFirstMessages():
                make = partial(self._change, transaction)
                return await add_first(transaction, change, run=statements_on(connection), make=make)
            case ReleaseDue():
                released = await self._arrivals.release(transaction, change)
                await self._conversations.open(connection, lots_of(released.messages), change.timestamp)
                return released
            case RemoveMessages():
                return await self._remove(transaction, change)
            case Erase():
                return await erase(transaction, change, self._keyed)
            case Remove():
                return await self._remove_what(transaction, change)
            case CommitWork() | RecoverRuns() | RemoveRuns() | StartScheduled():
                return await self._change_runs(transaction, change)
            case SaveMailbox(state):
                await connection.execute(SAVE_MAILBOX, mailbox_row(state))
            case AddDeadLetters(dead_letters):
                rows = ((each.mailbox_id, each.seq, each.reason, each.attempts, each.at) for each in dead_letters)
                await connection.executemany(ADD_DEAD_LETTER, rows)
            case RemoveDeadLetters():
                removed = await remove_dead_letters(connection, change)
                await self._commits.retry_runs(transaction, change.mailbox_id, removed)
                return removed
            case AddKey():
                await add_key(statements_on(connection), change)
            case RevokeKeys():
                await revoke_keys(statements_on(connection), change)
            case NoteKeyUse():
                await note_key_use(statements_on(connection), change)
            case AddSecurityEvents() | RemoveSecurityEvents():
                return await change_events(connection, change)
            case SweepKeyed():
                return await self._keyed.sweep(transaction, change)
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
                    "INSERT INTO bots (id, name, created_at, last_seen_at, public_key) VALUES (?, ?, ?, ?, ?)",
                    (bot.id, bot.name, bot.created_at, bot.last_seen_at, bot.public_key),
                )
                await connection.execute(SAVE_MAILBOX, mailbox_row(MailboxState(bot.id, transaction.last_seq)))
                return transaction.last_seq
            case SeenBot():
                await connection.execute(
                    "UPDATE bots SET last_seen_at = ? WHERE id = ?", (change.at, change.bot_id)
                )
            case AddChannel(channel):
                await connection.execute(
                    "INSERT OR IGNORE INTO bot_channels (name, created_at, created_by_bot_id) VALUES (?, ?, ?)",
                    (channel.name, channel.created_at, channel.created_by_bot_id),
                )
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
        self, transaction: Transaction, change: CommitWork | RecoverRuns | RemoveRuns | StartScheduled
    ) -> Any:
        match change:
            case CommitWork():
                return await self._commits.carry_out(transaction, change)
            case RecoverRuns():
                return await self._commits.recover(transaction, change)
            case RemoveRuns():
                return await remove_runs(transaction.connection, change)
            case StartScheduled():
                return await self._commits.start(transaction, change)

    async def _remove(self, transaction: Transaction, change: RemoveMessages) -> int:
        seqs = [seq for seq in change.seqs if seq < transaction.last_seq]
        await note_removal(statements_on(transaction.connection), seqs)
        return await remove(transaction.connection, seqs)

    async def read_page(self, request: PageRequest) -> Page:
        """Read part of a mailbox."""
        return await self._pages.read(request)

    async def seq_before(self, at: str) -> int:
        """Return the last seq whose timestamp is before `at`."""
        sql = "SELECT COALESCE(MIN(seq) - 1, ?) FROM bot_messages WHERE timestamp >= ?"
        rows = await self._questions.execute_fetchall(sql, (self._database.writer.last_seq, at))
        return int(next(iter(rows))[0])

    async def history(self, request: HistoryRequest) -> list[LogMessage]:
        """Return a conversation in the order that is asked for."""
        order = "DESC" if request.after_seq is None else "ASC"
        before = _SEQ_MAX if request.before_seq is None else request.before_seq
        part = (request.after_seq or 0, before, request.limit)
        if request.between is not None:
            return await fetch(self._questions, _BETWEEN.format(order=order), (*request.between, *part))
        return await fetch(self._questions, _CHANNEL.format(order=order), (request.channel, *part))

    async def thread(self, request: FindRequest, *, before_seq: int | None, limit: int) -> list[int]:
        """Return the seqs of the thread of the message that is meant, newest first."""
        before = _SEQ_MAX if before_seq is None else before_seq
        return await find_thread(self._questions, request, before, limit)

    async def messages(self, seqs: Sequence[int]) -> list[LogMessage]:
        """Return these messages, newest first."""
        found = await fetch(self._questions, WITH_SEQS, (json.dumps(list(seqs)),))
        return sorted(found, key=lambda message: message.seq, reverse=True)

    async def find(self, request: FindRequest) -> NewMessage | None:
        """Return the message that is meant, in the log or delayed."""
        return await find_message(self._questions, request)

    async def survey(self, request: SurveyRequest) -> list[Surveyed]:
        """Return a part of the log, without contents."""
        return await survey(self._database.read, request)

    async def survey_runs(self, survey: RunSurvey) -> SurveyedRuns:
        """Return runs that have ended, in the order in which they did."""
        return await survey_runs(self._database.read, survey)

    async def locate(self, seqs: Sequence[int]) -> list[Surveyed]:
        """Return who sent these messages to whom."""
        return await locate(self._database.read, seqs)

    async def find_ids(self, ids: Sequence[str]) -> dict[str, Surveyed]:
        """Return the first messages with these ids, without their contents."""
        return await find_ids(self._database.read, ids)

    async def look(self, change: Remove) -> Looked:
        """Return what a removal would do, or did before."""
        reader = self._database.read
        return await look(
            statements_on(reader), change, partial(count_in_portions, reader), partial(count_waiting, reader)
        )

    async def count(self, request: PageRequest) -> dict[str, int]:
        """Count the direct messages that a mailbox has still to deliver, by their senders."""
        return await count_senders(self._database.read, request)

    async def delayed(self, request: DelayedRequest) -> list[NewMessage]:
        """Return messages that are not due yet."""
        return await list_scheduled(self._questions, request)

    async def channel_counts(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of messages of each channel."""
        rows = await self._questions.execute_fetchall(_CHANNEL_COUNTS, (json.dumps(list(names)),))
        return dict(map(tuple, rows))

    async def backlogs(self, requests: Sequence[PageRequest]) -> list[int]:
        """Count the messages that each mailbox has still to deliver."""
        return [await count_waiting(self._questions, request) for request in requests]

    async def peek(self, request: PageRequest) -> Page:
        """Read part of a mailbox, for somebody who only looks."""
        return await self._peeks.read(request)

    async def given_up(self, seq: int, mailbox_ids: Sequence[str]) -> list[DeadLetter]:
        """Return what is recorded of a message in mailboxes of which it is a dead letter."""
        rows = await self._questions.execute_fetchall(
            "SELECT mailbox_id, seq, reason, attempts, at FROM dead_letters"
            " WHERE mailbox_id IN (SELECT value FROM json_each(?)) AND seq = ?",
            (json.dumps(list(mailbox_ids)), seq),
        )
        return [DeadLetter(*row) for row in rows]

    async def dead_letters(
        self, mailbox_id: str | None, limit: int, offset: int = 0
    ) -> list[tuple[DeadLetter, LogMessage | None]]:
        """List dead letters, newest first."""
        rows = await self._questions.execute_fetchall(
            "SELECT mailbox_id, seq, reason, attempts, at FROM dead_letters WHERE ?1 IS NULL OR mailbox_id = ?1"
            " ORDER BY at DESC, seq DESC LIMIT ?2 OFFSET ?3",
            (mailbox_id, limit, offset),
        )
        found = [DeadLetter(*row) for row in rows]
        messages = {message.seq: message for message in await self.messages([dead.seq for dead in found])}
        return [(dead, messages.get(dead.seq)) for dead in found]

    async def security_events(self, request: SecurityRequest) -> list[tuple[SecurityEvent, bool]]:
        """Return security events."""
        return await read_events(self._questions, request)

    async def search(self, request: SearchRequest) -> FoundContents:
        """Return the messages and runs that contain something, in portions."""
        return await search(self._questions, request, self._database.writer.last_seq)

    async def removals(self, after: int, limit: int) -> list[Removal]:
        """Return the records of removals, in their order."""
        return await read_removals(statements_on(self._questions), after, limit)

    async def scrub(self, at: str) -> None:
        """Leave nothing of what was removed in the file and its WAL."""
        [[last]] = await self._database.read.execute_fetchall("SELECT COALESCE(MAX(number), 0) FROM removals")
        await self._database.writer.between(scrub)

        async def operation(transaction: Transaction) -> None:
            await note_scrub(statements_on(transaction.connection), last, at)

        await self._database.writer.run(operation)

    async def compact(self, *, dry_run: bool) -> Compacted:
        """Return some free pages of the file to the system, or only count them."""
        done = await self._database.writer.run(partial(give_back, dry_run=dry_run))
        if dry_run:
            return done
        if not done.in_portions:
            raise Conflict(_WHOLE)
        if not done.free_bytes:
            await self._database.writer.between(shorten)
        return done

    async def sizes(self) -> dict[str, int]:
        """Return the number of messages and the bytes on disk."""
        sizes: dict[str, int] = {}
        for name, table in (("messages", "bot_messages"), ("scheduled", "scheduled_messages")):
            [[sizes[name]]] = await self._questions.execute_fetchall(f"SELECT COUNT(*) FROM {table}")
        [[sizes["kv_keys"]]] = await self._questions.execute_fetchall(KEYS_COUNT)
        room = await self.room()
        sizes["database_bytes"] = room.database_bytes
        sizes["wal_bytes"] = await file_bytes(Path(f"{self._database.path}-wal"))
        return sizes if room.free_bytes is None else sizes | {"free_bytes": room.free_bytes}

    async def room(self) -> Room:
        """Return the bytes of the file and of its WAL, and those that its disk has free."""
        path = Path(self._database.path)
        wal = await file_bytes(path.with_name(f"{path.name}-wal"))
        return Room(await file_bytes(path), await free_bytes(path.parent), wal)
