"""Subscriptions as they are listed.

Owns what an answer says about one.
"""

from __future__ import annotations

from collections import Counter

from ..core.directory import Directory
from ..model.repository import Subscription
from ..wire.answers import ListedPattern, ListedSubscription

__all__ = ["listed_patterns", "listed_subscription"]


def listed_subscription(directory: Directory, subscription: Subscription) -> ListedSubscription:
    """Return a bot's subscription to a channel."""
    return ListedSubscription(
        bot_id=subscription.bot_id,
        bot=directory.bots[subscription.bot_id].name,
        channel_name=subscription.channel,
        subscribed_at=subscription.subscribed_at,
        start_seq=subscription.start_seq,
        echo=subscription.echo,
        group=subscription.group,
        pattern=subscription.pattern,
    )


def listed_patterns(directory: Directory, bot_id: str) -> list[ListedPattern]:
    """Return a bot's subscriptions to patterns, by pattern."""
    channels = Counter(each.pattern for each in directory.subscriptions_of(bot_id).values())
    return [
        ListedPattern(
            bot_id=each.bot_id,
            bot=directory.bots[each.bot_id].name,
            pattern=each.pattern,
            subscribed_at=each.subscribed_at,
            start_seq=each.start_seq,
            echo=each.echo,
            group=each.group,
            channels=channels[each.pattern],
        )
        for _, each in sorted(directory.patterns.of_bot(bot_id).items())
    ]
