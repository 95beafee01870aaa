"""The bots' subscriptions to patterns, and which of them match a channel.

Owns the worker's picture of them as they are on disk, indexed so that a new channel is compared with few.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..model.patterns import ChannelPattern
from ..model.repository import PatternSubscription

__all__ = ["Patterns"]


class _Known(NamedTuple):
    pattern: ChannelPattern
    subscription: PatternSubscription


class Patterns:
    """See the module. Of a bot's patterns, the oldest comes first."""

    def __init__(self, subscriptions: Iterable[PatternSubscription] = ()) -> None:
        self._of_bot: dict[str, dict[str, _Known]] = {}
        self._by_first: dict[str | None, dict[tuple[str, str], _Known]] = {}
        """By the first part of the channels that they match; None has those that match several."""
        for subscription in sorted(subscriptions, key=_age):
            self.add(subscription)

    def __repr__(self) -> str:
        return f"<Patterns bots={len(self._of_bot)}>"

    @property
    def bots(self) -> list[str]:
        """The ids of the bots that have patterns."""
        return list(self._of_bot)

    def of_bot(self, bot_id: str) -> dict[str, PatternSubscription]:
        """Return a bot's subscriptions by pattern."""
        return {name: known.subscription for name, known in self._of_bot.get(bot_id, {}).items()}

    def add(self, subscription: PatternSubscription) -> None:
        """Add a subscription, which is newer than the bot's others."""
        known = _Known(ChannelPattern(subscription.pattern), subscription)
        self._of_bot.setdefault(subscription.bot_id, {})[subscription.pattern] = known
        key = subscription.bot_id, subscription.pattern
        self._by_first.setdefault(known.pattern.first, {})[key] = known

    def remove(self, bot_id: str, pattern: str) -> None:
        """Remove a subscription."""
        known = self._of_bot[bot_id].pop(pattern)
        if not self._of_bot[bot_id]:
            del self._of_bot[bot_id]
        alike = self._by_first[known.pattern.first]
        del alike[bot_id, pattern]
        if not alike:
            del self._by_first[known.pattern.first]

    def remove_bot(self, bot_id: str) -> None:
        """Remove all subscriptions of a bot."""
        for pattern in list(self._of_bot.get(bot_id, ())):
            self.remove(bot_id, pattern)

    def matching(self, channel: str, bot_id: str) -> list[PatternSubscription]:
        """Return those of a bot that match a channel."""
        theirs = self._of_bot.get(bot_id, {}).values()
        return [subscription for pattern, subscription in theirs if pattern.matches(channel)]

    def bots_matching(self, channel: str) -> list[str]:
        """Return the ids of the bots with a pattern that matches a channel."""
        found: dict[str, None] = {}
        for first in (channel.split(".", 1)[0], None):
            for (bot_id, _), known in self._by_first.get(first, {}).items():
                if bot_id not in found and known.pattern.matches(channel):
                    found[bot_id] = None
        return list(found)


def _age(subscription: PatternSubscription) -> tuple[str, str]:
    return subscription.subscribed_at, subscription.pattern
