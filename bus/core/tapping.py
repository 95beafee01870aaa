"""The tap: copies of channel messages, and the heads of channels.

Owns the topics that have listeners. Its rules:

- Nothing is written without a listener: no copies if no channel has one, no head that nobody asked for.
- What all listeners subscribe to has a limit in bytes. Beyond it the tap is emptied: its listeners come again. So
  it is when a listener's key has ended, because no single listener can be sent away.
- A head is sent with the first tick after somebody begins to listen to it, and then every `tap_head_seconds`. So
  asking for one again and again costs one frame a tick, not one a question.

Pure.
"""

from __future__ import annotations

from collections import Counter

from ..mailbox.parcel import Parcel
from ..settings import Settings
from ..wire.codec import encode, tap_copy
from ..wire.topics import Head, channel_topic, head_channel, head_topic
from .directory import Directory
from .effects import EmptyTap, Tap, Turn

__all__ = ["Tapping"]


class Tapping:
    """See the module."""

    def __init__(self, directory: Directory, turn: Turn, settings: Settings) -> None:
        self._directory = directory
        self._turn = turn
        self._head_seconds = settings.delivery.tap_head_seconds
        self._heads_max = settings.limits.tap_heads_max
        self._topics_bytes_max = settings.limits.tap_topics_bytes_max
        self._bytes = 0
        """The topics of all listeners."""
        self._topics: Counter[bytes] = Counter()
        self._heads: Counter[str] = Counter()
        self._new: set[str] = set()
        self._heads_sent_at = 0.0
        self.closed: frozenset[str] = frozenset()
        """Channels that are not shown, because not everybody who listens may subscribe to them."""

    def __repr__(self) -> str:
        return f"<Tapping topics={len(self._topics)} heads={len(self._heads)}>"

    def has_listener(self, channel: str, *, hidden: bool = False) -> bool:
        """Return True if somebody listens to just this channel, and hears it; with `hidden`, or does not."""
        return channel_topic(channel) in self._topics and (hidden or channel not in self.closed)

    def want(self, topic: bytes) -> None:
        """Note that a topic has a new listener."""
        self._bytes += len(topic)
        if self._bytes > self._topics_bytes_max:
            self.empty("its listeners subscribed to too much")
            return
        channel = head_channel(topic)
        if channel is None:
            self._topics[topic] += 1
        elif channel in self._heads or len(self._heads) < self._heads_max:
            self._heads[channel] += 1
            self._new.add(channel)

    def leave(self, topic: bytes) -> None:
        """Note that a topic has lost a listener."""
        self._bytes = max(0, self._bytes - len(topic))
        channel = head_channel(topic)
        if channel is None:
            self._topics -= Counter((topic,))  # drops what is 0
        elif channel in self._heads:
            self._heads[channel] -= 1
            if not self._heads[channel]:
                del self._heads[channel]
                self._new.discard(channel)

    def empty(self, reason: str) -> None:
        """Close the tap and forget its listeners, who may come again."""
        self._turn.add(EmptyTap(reason))
        self._bytes = 0
        self._topics, self._heads, self._new = Counter(), Counter(), set()

    def copy(self, channel: str, parcel: Parcel, prev_seq: int) -> None:
        """Copy messages that are on disk to the listeners of their channel."""
        if not self._topics or channel in self.closed:
            return
        topic = channel_topic(channel)
        for wire, before in zip(parcel.wires, (prev_seq, *parcel.seqs), strict=False):
            self._turn.add(Tap(topic, tap_copy(wire, before)))

    def send_heads(self) -> None:
        """Send the heads that are due, and those that have new listeners."""
        now = self._turn.moment.now
        due, self._new = self._new, set()
        if now - self._heads_sent_at >= self._head_seconds:
            due, self._heads_sent_at = set(self._heads), now
        for channel in sorted(due - self.closed):
            entry = self._directory.channels.get(channel)
            head = Head(channel, 0 if entry is None else entry.head_seq)
            self._turn.add(Tap(head_topic(channel), encode(head)))
