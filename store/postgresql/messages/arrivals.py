"""How messages enter the log: immediately, or when they are due.

Owns the table of delayed messages, and the rule that a sender uses an id once in both. A message that is due moves
from one to the other in one transaction, so it is always in exactly one of them, even across a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

import asyncpg

from bus.errors import RecordDamaged
from bus.model.arriving import appended, are_due, are_plain, fitting, waits, whole
from bus.model.repository import Added, DelayedRequest, Lot, NewMessage, Outcome, Released, ReleaseDue, outcome_of

from ...budgets import Budgets
from ...message_rows import checksum, in_log, marked
from ...taint import Taint
from ..server.reader import Reader
from ..server.statements import statements_on
from ..server.writer import Transaction
from .ids import append_known, find_senders
from .rows import append, escaped, unescaped

__all__ = [
    "SCHEDULED",
    "Arrivals",
    "is_intact_scheduled",
    "list_scheduled",
    "next_due_at",
    "read_scheduled",
    "schedule",
]

_SCHEDULE = """
    INSERT INTO scheduled_messages (
        id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type, body, reply_to,
        headers, expires_at, due_at, tainted, priority, checksum
    )
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::boolean[], $13::smallint[],
                         $14::bigint[])"""

_COLUMNS = (
    "id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type,"
    " convert_to(body, 'UTF8'), reply_to, convert_to(headers, 'UTF8'), expires_at, due_at,"
    " tainted::int + 2 * priority, checksum, number"
)

SCHEDULED = f"SELECT {_COLUMNS} FROM scheduled_messages"

_DUE = """
    SELECT number, octet_length(body) FROM scheduled_messages WHERE due_at <= $1 ORDER BY due_at, number LIMIT $2"""

_READ_DUE = f"SELECT {_COLUMNS} FROM scheduled_messages WHERE number = ANY($1::bigint[]) ORDER BY due_at, number"

_IS_ANY_SCHEDULED = "SELECT EXISTS (SELECT FROM scheduled_messages WHERE id = ANY($1::text[]))"
"""Whoever sent it: then each message is looked up exactly."""

_LIST = f"""{SCHEDULED}
    WHERE due_at IS NOT NULL AND ($1::text IS NULL OR sender_bot_id = $1)
        AND (due_at, number) > ($2::text, $3::bigint)
    ORDER BY due_at, number LIMIT $4::bigint"""

_PLACE = "SELECT number FROM scheduled_messages WHERE id = $1 AND sender_bot_id = $2 AND due_at = $3"

_NEXT_DUE = "SELECT MIN(due_at) FROM scheduled_messages WHERE due_at IS NOT NULL"


class Arrivals:
    """See the module. `waiting` is True if there may be delayed messages."""

    def __init__(self, taint: Taint, budgets: Budgets, *, waiting: bool) -> None:
        self.taint = taint
        self.budgets = budgets
        self.waiting = waiting

    def __repr__(self) -> str:
        return f"<Arrivals waiting={self.waiting}>"

    def are_simple(self, lots: Sequence[Lot]) -> bool:
        """Return True if lots are appended as they are, unless their senders used their ids before."""
        if not are_plain(lots) or self.waiting:
            return False
        return self.taint.is_decided(lots) and self.budgets.are_counted(lots)

    async def add(self, transaction: Transaction, lots: Sequence[Lot], timestamp: str) -> list[Outcome]:
        """Append messages or schedule them, each id of a sender once; return the outcome of each lot.

        The fast way assumes that no sender used an id before, as is the rule. If one did, the whole transaction is
        rolled back and carried out again, and then everything is looked up first.
        """
        run = statements_on(transaction.connection)
        parts = await self.budgets.count(run, await self.taint.decide(run, lots), timestamp)
        outcomes = iter(await self._add(transaction, list(chain.from_iterable(parts)), timestamp))
        return [whole(each, list(islice(outcomes, len(each)))) for each in parts]

    async def _add(self, transaction: Transaction, lots: Sequence[Lot], timestamp: str) -> list[Outcome]:
        if transaction.careful or not are_due(lots) or await self._is_any_scheduled(transaction.connection, lots):
            return await self._add_each(transaction, lots, timestamp)
        first_seq = transaction.last_seq + 1
        await append(transaction.connection, lots, first_seq, timestamp)
        transaction.move_end(sum(map(len, lots)), timestamp)
        return appended(lots, first_seq)

    async def _is_any_scheduled(self, connection: asyncpg.Connection, lots: Iterable[Lot]) -> bool:
        ids = [id for lot in lots for id in lot.ids]
        return self.waiting and bool(await connection.fetchval(_IS_ANY_SCHEDULED, ids))

    async def _add_each(self, transaction: Transaction, lots: Sequence[Lot], timestamp: str) -> list[Outcome]:
        connection = transaction.connection
        known = await find_senders(connection, [(id, lot.sender_bot_id) for lot in lots for id in lot.ids])
        now: list[NewMessage] = []
        later: list[NewMessage] = []
        added: list[Added] = []
        first_seq = transaction.last_seq + 1
        for message in chain.from_iterable(lot.messages() for lot in lots):
            key = (message.id, message.sender_bot_id)
            if key in known:
                seq = known[key]
                added.append(Added(seq, duplicate=True, scheduled=seq is None))
            elif message.known_only:
                forbidden = message.tainted and message.untainted_only
                added.append(Added(None, forbidden=forbidden, budget=message.budget))
            elif message.due_at is not None:
                known[key] = None
                later.append(message)
                added.append(Added(None, scheduled=True))
            else:
                known[key] = first_seq + len(now)
                now.append(message)
                added.append(Added(known[key], tainted=message.tainted, budget=message.budget))
        if now:
            await append_known(connection, now, first_seq, timestamp)
            transaction.move_end(len(now), timestamp)
        if later:
            self.waiting = True
            await schedule(connection, later)
        outcomes = iter(added)
        return [outcome_of(list(islice(outcomes, len(lot)))) for lot in lots]

    def remember(self, answer: Any) -> None:
        """Note from a change's answer, once on disk, whether delayed messages may be waiting."""
        if isinstance(answer, Released):
            self.waiting = answer.next_due_at is not None
        elif waits(answer):
            self.waiting = True

    async def release(self, transaction: Transaction, change: ReleaseDue, timestamp: str) -> Released:
        """Append what is due, the earliest first."""
        connection = transaction.connection
        found = await connection.fetch(_DUE, change.until or change.timestamp, change.messages_max)
        due = await connection.fetch(_READ_DUE, fitting(found, change.bytes_max))
        intact = [record for record in due if is_intact_scheduled(record)]
        damaged = [record for record in due if not is_intact_scheduled(record)]
        first_seq = transaction.last_seq + 1
        released = [in_log(_message(record), seq, timestamp) for seq, record in enumerate(intact, first_seq)]
        if released:
            await append_known(connection, released, first_seq, timestamp)
            transaction.move_end(len(released), timestamp)
            await connection.execute(
                "DELETE FROM scheduled_messages WHERE number = ANY($1::bigint[])", [each[13] for each in intact]
            )
        if damaged:
            await connection.execute(
                "UPDATE scheduled_messages SET due_at = NULL WHERE number = ANY($1::bigint[])",
                [each[13] for each in damaged],
            )
        return Released(released, await connection.fetchval(_NEXT_DUE), tuple(each[0] for each in damaged))


async def schedule(connection: asyncpg.Connection, messages: Sequence[NewMessage]) -> None:
    """Store messages that wait until they are due. No sender of theirs used their ids before."""
    await connection.execute(_SCHEDULE, *zip(*map(_record, messages), strict=True))


async def next_due_at(reader: Reader) -> str | None:
    """Return when the first message is due, or None."""
    [[due_at]] = await reader.fetch(_NEXT_DUE)
    return None if due_at is None else str(due_at)


async def read_scheduled(reader: Reader, number: int) -> NewMessage | None:
    """Return a delayed message by its number, if it still waits. Raise RecordDamaged if its record is damaged."""
    for record in await reader.fetch(f"SELECT {_COLUMNS} FROM scheduled_messages WHERE number = $1", number):
        if not is_intact_scheduled(record):
            raise RecordDamaged("scheduled_messages", str(record[0]))
        return _message(record)
    return None


async def list_scheduled(reader: Reader, request: DelayedRequest) -> list[NewMessage]:
    """Return delayed messages in the order in which they become due, but for damaged ones."""
    found: list[NewMessage] = []
    after = ("", 0) if request.after is None else await _place(reader, *request.after)
    while len(found) < request.limit:
        wanted = request.limit - len(found)
        records = await reader.fetch(_LIST, request.sender_bot_id, *after, wanted)
        found += [_message(record) for record in records if is_intact_scheduled(record)]
        if len(records) < wanted:
            break
        after = (records[-1][10], records[-1][13])
    return found


async def _place(reader: Reader, due_at: str, id: str, sender_bot_id: str) -> tuple[str, int]:
    """Return the place of a message, or if it does not wait any more, that of the first one that is due with it."""
    rows = await reader.fetch(_PLACE, id, sender_bot_id, due_at)
    return due_at, next((row[0] for row in rows), 0)


def _record(message: NewMessage) -> tuple[Any, ...]:
    due_at = message.due_at or ""
    return (
        message.id,
        message.sender_bot_id,
        message.sender_bot_name,
        message.recipient_bot_id,
        message.recipient_channel,
        escaped(message.message_type),
        message.body.decode(),
        message.reply_to,
        message.headers.decode(),
        message.expires_at,
        due_at,
        message.tainted,
        message.priority,
        checksum(0, message, due_at),
    )


def _message(record: Any) -> NewMessage:
    row = tuple(record)
    return NewMessage(*(*row[:5], unescaped(row[5]), *row[6:11], False, *marked(row[11])))


def is_intact_scheduled(record: Any) -> bool:
    """Return True if a record of SCHEDULED matches its checksum."""
    return bool(checksum(0, _message(record), record[10] or "") == record[12])
