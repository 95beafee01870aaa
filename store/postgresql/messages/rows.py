"""How messages are stored as rows of the log, and read.

Owns the columns of `bot_messages`. PostgreSQL's text has no zero character, which only a message's type may have:
it is stored as two others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from bus.errors import RecordDamaged
from bus.model.repository import LogMessage, Lot

from ...message_rows import intact, message_of, own_columns
from ..server.copying import copy
from ..server.reader import Reader

__all__ = ["COLUMNS", "append", "escaped", "fetch", "read_row", "unescaped"]

COLUMNS = (
    "seq, id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type,"
    " convert_to(body, 'UTF8'), reply_to, convert_to(headers, 'UTF8'), timestamp, expires_at, tainted::int,"
    " checksum"
)
"""What `read_row` reads, in this order."""

_WRITTEN = (
    "seq", "id", "sender_bot_id", "sender_bot_name", "recipient_bot_id", "recipient_channel", "message_type",
    "body", "reply_to", "headers", "timestamp", "expires_at", "tainted", "checksum", "copied",
)  # fmt: skip

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


async def append(
    connection: asyncpg.Connection,
    lots: Iterable[Lot],
    first_seq: int,
    timestamp: str,
    *,
    copies: Sequence[bool] = (),
) -> None:
    """Append lots to the log, from `first_seq` on. `copies` says which ids another sender used before.

    Raises UniqueViolationError, after which the transaction must be rolled back, if one is used before and not said
    to be a copy, or was used by its sender.
    """
    records: list[tuple[Any, ...]] = []
    for lot in lots:
        before = (lot.sender_bot_id, lot.sender_bot_name, lot.recipient_bot_id, lot.recipient_channel)
        kind, headers = escaped(lot.message_type), lot.headers.decode()
        seq = first_seq + len(records)
        for at, (id, body, crc, *reply_to) in enumerate(own_columns(lot, seq, timestamp), seq):
            records.append(
                (
                    at, id, *before, kind, body, reply_to[0] if reply_to else None, headers, timestamp,
                    lot.expires_at, lot.tainted, crc, bool(copies) and copies[at - first_seq],
                )
            )  # fmt: skip
    await copy(connection, "bot_messages", records=records, columns=_WRITTEN)
