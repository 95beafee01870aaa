"""A message as a row, and the checksum over it: the same in every backend.

A row has seq, id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type, body,
reply_to, headers, timestamp, expires_at, marks and checksum, in this order; body and headers are bytes. The marks
are one number (`marks_of`): whether it is tainted, and its priority. They are 0 for nearly all messages.

Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from bus.model.budgets import budget_of, write_budget
from bus.model.records import BotMessage, ChannelRecipient, DirectRecipient
from bus.model.repository import LogMessage, Lot, NewMessage, Page, StoredLot

__all__ = [
    "channels_of",
    "checksum",
    "erased",
    "in_log",
    "intact",
    "lots_of_rows",
    "marked",
    "marks_of",
    "message_of",
    "new_of",
    "own_columns",
    "page_of_rows",
    "record_of",
]

_BODY = 7
"""The body's place in a row."""

_encode = msgspec.msgpack.Encoder().encode


def checksum(seq: int, message: NewMessage, timestamp: str) -> int:
    """Return the CRC-32 over everything stored of a message, including its seq, and its marks unless they are 0."""
    values = (
        seq,
        message.id,
        message.sender_bot_id,
        message.sender_bot_name,
        message.recipient_bot_id,
        message.recipient_channel,
        message.message_type,
        message.body,
        message.reply_to,
        message.headers,
        timestamp,
        message.expires_at,
    )
    marks = marks_of(message)
    return zlib.crc32(_encode((*values, marks) if marks else values))


def marks_of(message: NewMessage | Lot) -> int:
    """Return the marks of a message, or of all messages of a lot."""
    return message.tainted + 2 * message.priority


def marked(marks: int) -> tuple[bool, bool, bool, int]:
    """Return what marks say, as the last fields of a message or a lot, from `tainted` on."""
    return bool(marks & 1), False, False, marks >> 1


def message_of(row: Sequence[Any]) -> LogMessage:
    """Read a row without checking its checksum."""
    fields = (*row[1:10], row[11], None, False, *marked(row[12]))
    return LogMessage(*fields, seq=row[0], timestamp=row[10])


def intact(row: Sequence[Any]) -> bool:
    """Return True if a row matches its checksum, which is that of the other columns in this order."""
    try:
        return bool(zlib.crc32(_encode(tuple(row[: 13 if row[12] else 12]))) == row[13])
    except (TypeError, ValueError):
        return False


_shared_columns = itemgetter(2, 3, 4, 5, 6, 9, 11)


def lots_of_rows(rows: Iterable[Sequence[Any]]) -> list[StoredLot]:
    """Return rows, in the order of their seqs, as lots."""
    stored: list[StoredLot] = []
    for (is_reply, timestamp, marks, shared), alike in groupby(
        rows, lambda row: (row[8] is not None, row[10], row[12], _shared_columns(row))
    ):
        found = list(alike)
        reply_tos = [row[8] for row in found] if is_reply else None
        ids, bodies = [row[1] for row in found], [row[7] for row in found]
        lot = Lot(ids, bodies, reply_tos, *(*shared, None, False, *marked(marks)))
        stored.append(StoredLot(lot, [row[0] for row in found], timestamp))
    return stored


def page_of_rows(
    recalled: Iterable[Sequence[Any]],
    following: Iterable[Sequence[Any]],
    *,
    complete: bool,
    damaged: Iterable[int],
) -> Page:
    """Return a page of rows that match their checksums, without those that were erased."""
    erased: list[int] = []

    def left(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
        found = list(rows)
        erased.extend(row[0] for row in found if not row[_BODY])
        return [row for row in found if row[_BODY]] if erased else found

    lots = lots_of_rows(left(recalled)), lots_of_rows(left(following))
    return Page(*lots, complete, tuple(damaged), tuple(erased))


def erased(row: Sequence[Any]) -> tuple[str, int]:
    """Return the headers and the checksum that a row has once it is erased; its body is empty.

    What is left of its thread's budget stays: its answers inherit it.
    """
    message = message_of(row)
    headers = write_budget(b"{}", budget_of(message.headers))
    blank = msgspec.structs.replace(message, body=b"", headers=headers)
    return headers.decode(), checksum(blank.seq, blank, blank.timestamp)


def channels_of(rows: Iterable[Sequence[Any]]) -> set[str]:
    """Return the channels on which messages were published."""
    return {row[5] for row in rows if row[5] is not None}


def own_columns(lot: Lot, first_seq: int, timestamp: str) -> list[tuple[Any, ...]]:
    """Return what the rows of a lot do not share: id, body and checksum; and what they reply to, if they do."""
    before = (
        lot.sender_bot_id,
        lot.sender_bot_name,
        lot.recipient_bot_id,
        lot.recipient_channel,
        lot.message_type,
    )
    marks = marks_of(lot)
    after = (lot.headers, timestamp, lot.expires_at, marks) if marks else (lot.headers, timestamp, lot.expires_at)
    if lot.reply_tos is None:
        return [
            (id, body.decode(), zlib.crc32(_encode((seq, id, *before, body, None, *after))))
            for seq, (id, body) in enumerate(zip(lot.ids, lot.bodies, strict=True), first_seq)
        ]
    return [
        (id, body.decode(), zlib.crc32(_encode((seq, id, *before, body, reply_to, *after))), reply_to)
        for seq, (id, body, reply_to) in enumerate(zip(lot.ids, lot.bodies, lot.reply_tos, strict=True), first_seq)
    ]


def in_log(message: NewMessage, seq: int, timestamp: str) -> LogMessage:
    """Return a message as it is in the log."""
    fields = {name: getattr(message, name) for name in NewMessage.__struct_fields__ if name != "due_at"}
    return LogMessage(**fields, seq=seq, timestamp=timestamp)


def record_of(message: LogMessage) -> BotMessage:
    """Return a message of the log as the audit trail has it."""
    recipient: DirectRecipient | ChannelRecipient
    if message.recipient_bot_id is not None:
        recipient = DirectRecipient(bot_id=message.recipient_bot_id)
    else:
        recipient = ChannelRecipient(name=message.recipient_channel or "")
    return BotMessage(
        id=message.id,
        sender_bot_id=message.sender_bot_id,
        sender_bot_name=message.sender_bot_name,
        recipient=recipient,
        message_type=message.message_type,
        body=msgspec.json.decode(message.body) if message.body else None,
        timestamp=message.timestamp,
        reply_to=message.reply_to,
    )


def new_of(message: BotMessage) -> NewMessage:
    """Return a message of the audit trail as one that is not in the log yet."""
    recipient = message.recipient
    return NewMessage(
        id=message.id,
        sender_bot_id=message.sender_bot_id,
        sender_bot_name=message.sender_bot_name,
        recipient_bot_id=recipient.bot_id if isinstance(recipient, DirectRecipient) else None,
        recipient_channel=recipient.name if isinstance(recipient, ChannelRecipient) else None,
        message_type=message.message_type,
        body=msgspec.json.encode(message.body),
        reply_to=message.reply_to,
        headers=b"{}",
    )
