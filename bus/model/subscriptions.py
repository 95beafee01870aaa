"""Subscriptions: of bots to channels, alone or in groups, and to patterns of channels' names.

Owns what the broker and the log exchange about them. A subscription to a pattern brings others: each channel that
matches is subscribed to in the transaction that creates it, and that subscription says by which pattern it came.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .lots import LogMessage

__all__ = [
    "AddPattern",
    "AddSubscription",
    "Group",
    "PatternSubscription",
    "RemovePattern",
    "RemoveSubscription",
    "Subscribed",
    "Subscription",
    "group_mailbox_id",
]


class AddSubscription(msgspec.Struct, frozen=True):
    """Subscribe a bot to an existing channel; `start_seq=None` means the log's end. Answered `Subscribed`.

    With a `group` the bot shares that group's mailbox, which the group's first subscription opens at its start.
    With `retained`, the last value of the channel is answered, too.
    An existing subscription stays as it is. But if that came by a pattern, and is of the same group or of none, one
    without a `pattern` takes it over: it does not end with the pattern any more.
    """

    bot_id: str
    channel: str
    subscribed_at: str
    start_seq: int | None = None
    echo: bool = False
    group: str | None = None
    retained: bool = False
    pattern: str | None = None


class RemoveSubscription(msgspec.Struct, frozen=True):
    """End a subscription that did not come by a pattern. Answered with a bool: whether it existed.

    With `passes_to`, it does not end, and belongs to that pattern from now on.
    """

    bot_id: str
    channel: str
    passes_to: str | None = None


class AddPattern(msgspec.Struct, frozen=True):
    """Subscribe a bot to a pattern; `start_seq=None` means the log's end. Answered `Subscribed`.

    An existing one stays as it is. The subscriptions to channels that match are changes of their own.
    """

    bot_id: str
    pattern: str
    subscribed_at: str
    start_seq: int | None = None
    echo: bool = False
    group: str | None = None


class RemovePattern(msgspec.Struct, frozen=True):
    """End a subscription to a pattern, and those that came by it. Answered with a bool: whether it existed.

    `passed` has, by channel, those that do not end and belong to another pattern from now on.
    """

    bot_id: str
    pattern: str
    passed: Mapping[str, str] = {}


class Subscribed(msgspec.Struct, frozen=True):
    """A subscription; `created` is False if it existed before, perhaps in another `group`.

    The start of a group's member is that of the group. `retained` is the last value of the channel, if it was asked
    for and there is one.
    """

    start_seq: int
    created: bool
    group: str | None = None
    retained: LogMessage | None = None


class Subscription(msgspec.Struct, frozen=True):
    """A subscription, with what delivery needs, and the pattern that it came by."""

    bot_id: str
    channel: str
    subscribed_at: str
    start_seq: int
    echo: bool
    group: str | None = None
    pattern: str | None = None


class PatternSubscription(msgspec.Struct, frozen=True):
    """A bot's subscription to all channels that match a pattern, those of later included."""

    bot_id: str
    pattern: str
    subscribed_at: str
    start_seq: int
    echo: bool
    group: str | None = None

    def of(self, channel: str, *, after_seq: int) -> AddSubscription:
        """Return the subscription that it brings to a channel, which starts after a seq, or at its own start."""
        start_seq = max(self.start_seq, after_seq)
        of = (self.subscribed_at, start_seq, self.echo, self.group)
        return AddSubscription(self.bot_id, channel, *of, pattern=self.pattern)


def group_mailbox_id(channel: str, group: str) -> str:
    """Return the id of a group's mailbox. Its slash occurs in no bot's id."""
    return f"{channel}/{group}"


class Group(msgspec.Struct, frozen=True):
    """A channel's competing group, which outlives its members."""

    channel: str
    name: str
    start_seq: int
