"""Subscriptions, and channels with their groups, as they are listed.

Owns what an answer says about one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..core.directory import ChannelEntry, Directory
from ..core.sight import Sight
from ..model.repository import Subscription
from ..wire.answers import ListedChannel, ListedGroup, ListedPattern, ListedSubscription

__all__ = ["listed_channel", "listed_patterns", "listed_subscription"]


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


def listed_channel(
    entry: ChannelEntry, counts: Mapping[str, int], backlogs: Mapping[str, int], sight: Sight
) -> ListedChannel:
    """Return a channel with its groups, from the counts of messages and of what waits, as far as it may be seen."""
    return ListedChannel(
        name=entry.channel.name,
        created_at=entry.channel.created_at,
        created_by_bot_id=entry.channel.created_by_bot_id,
        subscribers=len(entry.subscriptions),
        messages=counts[entry.channel.name],
        groups=_groups(entry, backlogs, sight),
    )


def _groups(entry: ChannelEntry, backlogs: Mapping[str, int], sight: Sight) -> list[ListedGroup]:
    members = Counter(subscription.group for subscription in entry.subscriptions.values())
    found: list[ListedGroup] = []
    for mailbox in sorted(entry.mailboxes.values(), key=lambda mailbox: mailbox.id):
        if mailbox.group is None or mailbox.id not in backlogs:
            continue
        in_flight = dead = None
        if sight.reads_mailbox(mailbox):
            in_flight = sum([*session.in_flight.values()].count(mailbox.id) for session in mailbox.sessions)
            dead = len(mailbox.dead_letters.dead)
        found.append(
            ListedGroup(
                group=mailbox.group,
                members=members[mailbox.group],
                backlog=backlogs[mailbox.id],
                in_flight=in_flight,
                dead=dead,
                sessions=mailbox.takers,
            )
        )
    return found
