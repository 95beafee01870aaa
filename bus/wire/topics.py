"""What the tap sends beside the messages themselves: the names of topics, and the heads of channels.

Owns their format, documented in `docs/protocol.md`, "The tap".

Pure.
"""

from __future__ import annotations

import msgspec

from .frames import is_name

__all__ = ["Head", "channel_topic", "head_channel", "head_topic"]

_CHANNEL, _HEAD, _END = b"channel/", b"head/", b"\0"


class Head(msgspec.Struct, frozen=True):
    """The seq of the last message on a channel; 0 if there is none."""

    channel: str
    seq: int


def channel_topic(channel: str) -> bytes:
    """Return the topic of a channel's messages. The zero byte ends it: `news` must not match `newsletter`."""
    return _CHANNEL + channel.encode() + _END


def head_topic(channel: str) -> bytes:
    """Return the topic of a channel's head."""
    return _HEAD + channel.encode() + _END


def head_channel(topic: bytes) -> str | None:
    """Return the channel whose head a topic names, or None for other topics."""
    if not (topic.startswith(_HEAD) and topic.endswith(_END)):
        return None
    name = topic[len(_HEAD) : -len(_END)].decode(errors="replace")
    return name if is_name(name) else None
