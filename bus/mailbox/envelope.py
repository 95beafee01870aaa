"""A stored message on its way to those who get it: what is the same for all of them is written once.

Owns how a message of the log is JSON (docs/protocol.md, "Message"), and how deliveries become a frame. What differs
from mailbox to mailbox, and the closing brace, is put behind it where it is handed out.

Pure.
"""

from __future__ import annotations

import msgspec

from ..model.repository import NewMessage
from ..wire.codec import encode
from ..wire.frames import ToBot, ToChannel

__all__ = ["Envelope", "write_envelope"]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A committed message on its way to mailboxes; `wire` is its JSON but for the closing brace.

    From `expires_at` on, a time of the wall clock, it is handed out no more.
    """

    seq: int
    sender_bot_id: str
    channel: str | None
    wire: bytes
    expires_at: str | None = None

    def is_expired(self, wall: str) -> bool:
        """Return True if it is to be delivered no more, at a time of the wall clock."""
        return self.expires_at is not None and self.expires_at <= wall


class _Stored(msgspec.Struct, frozen=True, gc=False):
    """A stored message in the wire's fields and their order; body and headers are JSON already."""

    seq: int | None
    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient: ToBot | ToChannel
    message_type: str
    body: msgspec.Raw
    reply_to: str | None
    headers: msgspec.Raw
    timestamp: str | None


def write_envelope(message: NewMessage, seq: int | None, timestamp: str | None) -> bytes:
    """Write a stored message as JSON, but for its closing brace: what follows differs from bot to bot.

    One that waits until it is due has neither seq nor timestamp.
    """
    direct, channel = message.recipient_bot_id, message.recipient_channel
    stored = _Stored(
        seq,
        message.id,
        message.sender_bot_id,
        message.sender_bot_name,
        ToBot(bot_id=direct) if channel is None else ToChannel(channel),
        message.message_type,
        msgspec.Raw(message.body),
        message.reply_to,
        msgspec.Raw(message.headers),
        timestamp,
    )
    return encode(stored)[:-1]
