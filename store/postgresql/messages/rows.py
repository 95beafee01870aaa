"""How messages are stored as rows of the log, and read.

Owns the columns of `bot_messages`. PostgreSQL's text has no zero character, which only a message's type may have:
it is stored as two others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import asyncpg

from bus.errors import InvalidValue, RecordDamaged
from bus.model.repository import LogMessage, Lot

from ...message_rows import intact, marks_of, message_of, own_columns
from ..server.reader import Reader

__all__ = ["COLUMNS", "append", "append_sql", "columns_of", "escaped", "fetch", "read_row", "unescaped"]

COLUMNS = (
    "seq, id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type,"
    " convert_to(body, 'UTF8'), reply_to, convert_to(headers, 'UTF8'), timestamp, expires_at,"
    " tainted::int + 2 * priority, checksum"
)
"""What `read_row` reads, in this order."""

# What the messages of a lot share is sent once, and what they do not share as texts that are split here: asyncpg
# takes longer for arrays than for everything else of a message. A full join is never a nested loop, which would
# compare each row with each lot.
_APPEND = """
    INSERT INTO bot_messages (
        seq, id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type, body, reply_to,
        headers, timestamp, expires_at, tainted, priority, checksum, copied
    )
    SELECT {after_seq} + own.place, own.id, lot.sender_bot_id, lot.sender_bot_name, lot.recipient_bot_id,
           lot.recipient_channel, lot.message_type, own.body, own.reply_to, lot.headers, {timestamp},
           lot.expires_at, lot.marks & 1 = 1, lot.marks >> 1, own.checksum::bigint, COALESCE(own.copied, false)
    FROM ROWS FROM (
            string_to_table({}::text, chr(30)), string_to_table({}::text, chr(30)),
            string_to_table({}::text, chr(30)), string_to_table({}::text, chr(30), ''), unnest({}::boolean[])
        ) WITH ORDINALITY AS own (id, body, checksum, reply_to, copied, place)
        FULL JOIN unnest({}::text[], {}::text[], {}::text[], {}::text[], {}::text[], {}::text[], {}::text[],
                         {}::smallint[])
            WITH ORDINALITY AS lot (sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel,
                                    message_type, headers, expires_at, marks, number)
            ON lot.number = width_bucket(own.place, {}::bigint[])
    WHERE {condition}"""

_SEPARATOR = "\x1e"
"""No JSON has it, and no id."""

_VALUES = 14
"""Parameters of this, beside the end of the log and the time."""

_ESCAPE = "\x1b"


def escaped(text: str) -> str:
    """Return a text without zero characters, which `unescaped` turns back."""
    if "\0" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, f"{_ESCAPE}e").replace("\0", f"{_ESCAPE}0")


def unescaped(text: str) -> str:
    """Return what was escaped."""
    return text.replace(f"{_ESCAPE}0", "\0").replace(f"{_ESCAPE}e", _ESCAPE) if _ESCAPE in text else text


def read_row(record: Any) -> tuple[Any, ...]:
    """Return a record of COLUMNS as a row of `store.message_rows`."""
    row = tuple(record)
    return (*row[:6], unescaped(row[6]), *row[7:]) if _ESCAPE in row[6] else row


async def fetch(reader: Reader | asyncpg.Connection, condition: str, *values: Any) -> list[LogMessage]:
    """Read messages. Raises RecordDamaged at the first that does not match its checksum."""
    found: list[LogMessage] = []
    for record in await reader.fetch(f"SELECT {COLUMNS} FROM bot_messages {condition}", *values):
        row = read_row(record)
        if not intact(row):
            raise RecordDamaged("bot_messages", f"seq {row[0]}")
        found.append(message_of(row))
    return found


def append_sql(*, after_seq: str, timestamp: str, first: int, condition: str = "true") -> str:
    """Return SQL that appends messages behind `after_seq`; the numbers of their parameters begin at `first`."""
    places = [f"${number}" for number in range(first, first + _VALUES)]
    return _APPEND.format(*places, after_seq=after_seq, timestamp=timestamp, condition=condition)


def columns_of(
    lots: Sequence[Lot], first_seq: int, timestamp: str, *, copies: Sequence[bool] = ()
) -> tuple[Any, ...]:
    """Return the parameters of `append_sql` for lots whose messages get the seqs from `first_seq` on."""
    firsts = list(accumulate(map(len, lots), initial=1))[:-1]
    rows = [
        row
        for lot, first in zip(lots, firsts, strict=True)
        for row in own_columns(lot, first_seq - 1 + first, timestamp)
    ]
    reply_tos: Sequence[str] = ()
    if any(lot.reply_tos is not None for lot in lots):
        reply_tos = [reply_to or "" for lot in lots for reply_to in lot.replies()]
    shared = [
        (
            lot.sender_bot_id, lot.sender_bot_name, lot.recipient_bot_id, lot.recipient_channel,
            escaped(lot.message_type), lot.headers.decode(), lot.expires_at, marks_of(lot),
        )
        for lot in lots
    ]  # fmt: skip
    own = (
        _joined([row[0] for row in rows]),
        _joined([row[1] for row in rows]),
        _joined([str(row[2]) for row in rows]),
        _joined(reply_tos),
    )
    return (*own, copies, *(zip(*shared, strict=True) if shared else ((),) * 8), firsts)


def _joined(texts: Sequence[str]) -> str:
    """Return texts as one that is split again by the server. Raise InvalidValue if that cannot be done."""
    joined = _SEPARATOR.join(texts)
    if joined.count(_SEPARATOR) >= max(1, len(texts)):
        raise InvalidValue("a message", "an id must not contain the character U+001E")
    return joined


_APPEND_ALL = append_sql(after_seq="$1::bigint", timestamp="$2", first=3)


async def append(
    connection: asyncpg.Connection,
    lots: Sequence[Lot],
    first_seq: int,
    timestamp: str,
    *,
    copies: Sequence[bool] = (),
) -> None:
    """Append lots to the log, from `first_seq` on. `copies` says which ids another sender used before.

    Raises UniqueViolationError, after which the transaction must be rolled back, if one is used before and not said
    to be a copy, or was used by its sender.
    """
    columns = columns_of(lots, first_seq, timestamp, copies=copies)
    await connection.execute(_APPEND_ALL, first_seq - 1, timestamp, *columns)
