"""The last value of a channel, as it is answered.

Pure.
"""

from __future__ import annotations

import msgspec

from ..model.repository import LogMessage
from ..wire.answers import KeptMessage

__all__ = ["kept_message"]


def kept_message(message: LogMessage) -> KeptMessage:
    """Return a message of a channel as it is answered, with its body as it was sent."""
    return KeptMessage(
        seq=message.seq,
        id=message.id,
        sender_bot_id=message.sender_bot_id,
        sender_bot_name=message.sender_bot_name,
        recipient={"type": "channel", "name": message.recipient_channel or ""},
        message_type=message.message_type,
        body=msgspec.Raw(message.body),
        reply_to=message.reply_to,
        headers=msgspec.json.decode(message.headers, type=dict[str, str]),
        timestamp=message.timestamp,
        tainted=message.tainted,
    )
