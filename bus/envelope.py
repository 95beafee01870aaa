"""A stored message on its way to those who get it: what is the same for all of them is written once.

Owns how a message of the log is JSON (docs/protocol.md, "Message"), and how deliveries become a frame. What differs
from mailbox to mailbox, and the closing brace, is put behind it where it is handed out.

Pure.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from store.repository import NewMessage

from .protocol import encode

__all__ = ["Envelope", "deliver_frame", "write_ending", "write_envelope"]

_quoted = lru_cache(4096)(encode)
"""Write a text that comes again and again: a bot's id or name, a channel's, a type, the time of a batch."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A committed message on its way to mailboxes; `wire` is its JSON but for the closing brace.

    From `expires_at` on, a time of the wall clock, it is handed out no more.
    """

    seq: int
    sender_bot_id: str
    channel: str | None
    wire: bytes
    expires_at: str | None = None


def write_envelope(message: NewMessage, seq: int | None, timestamp: str | None) -> bytes:
    """Write a stored message as JSON, but for its closing brace: what follows differs from bot to bot.

    One that waits until it is due has neither seq nor timestamp.
    """
    direct = message.recipient_bot_id
    return (
        b'{"seq":%b,"id":%b,"sender_bot_id":%b,"sender_bot_name":%b,"recipient":{"type":%b},"message_type":%b,'
        b'"body":%b,"reply_to":%b,"headers":%b,"timestamp":%b'
    ) % (
        b"null" if seq is None else b"%d" % seq,
        encode(message.id),
        _quoted(message.sender_bot_id),
        _quoted(message.sender_bot_name),
        b'"channel","name":%b' % _quoted(message.recipient_channel)
        if direct is None
        else b'"direct","bot_id":%b' % _quoted(direct),
        _quoted(message.message_type),
        message.body,
        b"null" if message.reply_to is None else encode(message.reply_to),
        message.headers,
        _quoted(timestamp),
    )


def write_ending(attempt: int, group: str | None) -> bytes:
    """Write what a delivery has beyond what is the same for every mailbox."""
    return b',"attempt":%d%b}' % (attempt, b"" if group is None else b',"group":%b' % encode(group))


def deliver_frame(deliveries: list[bytes]) -> bytes:
    """Pack finished deliveries into one frame."""
    return b'{"op":"deliver","messages":[' + b",".join(deliveries) + b"]}"
