"""Messages and page requests to begin with: valid, and as short as can be."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec

from bus.model.records import BotRecord, Channel
from bus.model.repository import (
    Added,
    AddMessages,
    LogMessage,
    MessageLog,
    NewMessage,
    Outcome,
    PageRequest,
    StoredLot,
    each,
    lots_of,
)

SEQ_MAX = 2**62


def at(second: int) -> str:
    """A time in the stored form, ordered by its argument."""
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000000Z"


def bot(id: str) -> BotRecord:
    return BotRecord(id=id, name=f"name of {id}", created_at=at(0), last_seen_at=at(0))


def channel(name: str) -> Channel:
    return Channel(name=name, created_at=at(0), created_by_bot_id="ann")


def direct(id: str, sender: str, recipient: str, **fields: Any) -> NewMessage:
    return _message(id, sender, recipient_bot_id=recipient, **fields)


def to_channel(id: str, sender: str, name: str, **fields: Any) -> NewMessage:
    return _message(id, sender, recipient_channel=name, **fields)


def _message(id: str, sender: str, **fields: Any) -> NewMessage:
    defaults: dict[str, Any] = {
        "recipient_bot_id": None,
        "recipient_channel": None,
        "message_type": "note",
        "body": b'{"n":1}',
        "reply_to": None,
        "headers": b"{}",
    }
    return NewMessage(**{"id": id, "sender_bot_id": sender, "sender_bot_name": sender, **defaults, **fields})


async def add(log: MessageLog, *messages: NewMessage, second: int = 0) -> list[Added]:
    [outcomes] = (await log.apply([AddMessages(lots_of(messages), at(second))])).answers
    return added(messages, outcomes)


def added(messages: Iterable[NewMessage], outcomes: Iterable[Outcome]) -> list[Added]:
    """Return what became of each message, of the outcomes of their lots."""
    return [one for lot, outcome in zip(lots_of(messages), outcomes, strict=True) for one in each(lot, outcome)]


def page(bot_id: str, *sources: tuple[str, int], skip_own: Collection[str] = (), **fields: Any) -> PageRequest:
    """Ask for a page; `skip_own` names the sources of which the bot's own messages are left out."""
    whole = tuple((source, after_seq, source in skip_own) for source, after_seq in sources)
    defaults: dict[str, Any] = {
        "seqs": (),
        "through_seq": SEQ_MAX,
        "messages_max": 100,
        "bytes_max": 1_000_000,
    }
    return PageRequest(**{"mailbox_id": bot_id, "sources": whole, **defaults, **fields})


class ReadPage(NamedTuple):
    """A page, message by message."""

    recalled: list[LogMessage]
    messages: list[LogMessage]
    complete: bool
    damaged: tuple[int, ...]


async def read_page(log: MessageLog, request: PageRequest) -> ReadPage:
    found = await log.read_page(request)
    return ReadPage(_messages(found.recalled), _messages(found.messages), found.complete, found.damaged)


def _messages(stored: Iterable[StoredLot]) -> list[LogMessage]:
    return [
        LogMessage(**msgspec.structs.asdict(message), seq=seq, timestamp=lot.timestamp)
        for lot in stored
        for seq, message in zip(lot.seqs, lot.lot.messages(), strict=True)
    ]
