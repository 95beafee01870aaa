"""A stored message on its way to its recipients: the part that is the same for all of them is written once.

Owns the JSON form of a message of the log (docs/protocol.md, "Message"). What differs between mailboxes, and the
closing brace, is appended at delivery.

Pure.
"""

from __future__ import annotations

import msgspec

from ..model.repository import NewMessage
from ..wire.codec import encode
from ..wire.frames import ToBot, ToChannel

__all__ = ["Envelope", "write_envelope"]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A committed message on its way to mailboxes; `wire` is its JSON without the closing brace.

    It is not delivered at or after `expires_at`, by the wall clock.
    """

    seq: int
    sender_bot_id: str
    channel: str | None
    wire: bytes
    expires_at: str | None = None

    def is_expired(self, wall: str) -> bool:
        """Return True if it has expired at a time of the wall clock."""
        return self.expires_at is not None and self.expires_at <= wall


class _Stored(msgspec.Struct, frozen=True, gc=False):
    """A stored message in the wire's fields and order; body and headers are JSON already."""

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
    """Return a stored message as JSON, without its closing brace: what follows differs from bot to bot.

    A delayed message that is not due yet has neither seq nor timestamp.
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
