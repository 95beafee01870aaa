"""The bots, channels, mailboxes and subscriptions.

Owns the worker's picture of these as they are on disk. Something is entered here when the transaction that holds it
has returned, never before.

Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

import msgspec

from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Asked, Session
from ..mailbox.sources import Interest
from ..model.records import TOLD_CHANNELS, WORKER_CHANNELS, WORKER_ID, BotRecord, Channel
from ..model.repository import LogState, MailboxState, Subscription, group_mailbox_id
from ..settings import Settings
from .patterns import Patterns

__all__ = ["ChannelEntry", "Directory", "NameList"]


class ChannelEntry:
    """A channel, the seq of its last message, its subscriptions, and the mailboxes that receive it."""

    __slots__ = ("channel", "groups", "head_seq", "mailboxes", "subscriptions")

    def __init__(self, channel: Channel, head_seq: int = 0) -> None:
        self.channel = channel
        self.head_seq = head_seq
        self.mailboxes: dict[str, Mailbox] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.groups: set[str] = set()
        """The names of its groups, with and without members."""

    def __repr__(self) -> str:
        return f"<ChannelEntry {self.channel.name} head_seq={self.head_seq} subscribers={len(self.subscriptions)}>"


class NameList:
    """Names in order. Adding is cheap, and so is looking, even if there are many of them."""

    def __init__(self) -> None:
        self._sorted: list[str] = []
        self._new: list[str] = []

    def __repr__(self) -> str:
        return f"<NameList {len(self._sorted) + len(self._new)}>"

    def add(self, name: str) -> None:
        """Add a name that is not there yet."""
        self._new.append(name)

    def remove(self, name: str) -> None:
        """Remove a name that is there."""
        (self._new if name in self._new else self._sorted).remove(name)

    def after(self, name: str | None) -> list[str]:
        """Return the names that follow one, or all."""
        if self._new:
            self._sorted += self._new
            self._sorted.sort()  # what is sorted already costs one comparison each
            self._new = []
        return self._sorted[0 if name is None else bisect_right(self._sorted, name) :]


class Directory:
    """All bots by id and name, all mailboxes by id, and all channels by name."""

    def __init__(self, state: LogState, settings: Settings) -> None:
        self._settings = settings
        self.epoch, self.earlier = state.epoch, state.earlier
        """The log in which seqs have their meaning, and those that it goes on from."""
        self.worker_channels = frozenset(WORKER_CHANNELS) - {
            channel.name
            for channel, _ in state.channels
            if channel.name in TOLD_CHANNELS and channel.created_by_bot_id != WORKER_ID
        }
        """The worker's channels: an earlier version let bots have those on which it tells of itself."""
        self.bots: dict[str, BotRecord] = {}
        self.names: dict[str, BotRecord] = {}
        self.bot_names, self.channel_names = NameList(), NameList()
        self.mailboxes: dict[str, Mailbox] = {}
        self.channels: dict[str, ChannelEntry] = {}
        self._subscriptions: dict[str, dict[str, Subscription]] = {}
        self.leaving: dict[str, BotRecord] = {}
        """Bots that are being removed, by name: for others they do not exist any more."""
        self.closing: set[str] = set()
        """Channels that are being removed: what is published now creates them anew."""
        places = {mailbox.mailbox_id: mailbox for mailbox in state.mailboxes}
        for bot in state.bots:
            self.add_bot(bot, places.get(bot.id) or MailboxState(bot.id, 0), last_seq=state.last_seq)
        self.patterns = Patterns(each for each in state.patterns if each.bot_id in self.bots)
        for channel, head_seq in state.channels:
            self.channels[channel.name] = ChannelEntry(channel, head_seq)
            self.channel_names.add(channel.name)
        self.created = Counter(channel.created_by_bot_id for channel, _ in state.channels)
        """How many of the channels each bot created."""
        for group in state.groups:
            mailbox_id = group_mailbox_id(group.channel, group.name)
            place = places.get(mailbox_id) or MailboxState(mailbox_id, min(group.start_seq, state.last_seq))
            self._open_group(group.channel, group.name, group.start_seq, place)
        for subscription in state.subscriptions:
            if subscription.bot_id not in self.bots:
                continue  # not written by a worker: nobody can receive for it
            mailbox = self._enter(subscription)
            if mailbox.group is None:
                interest = Interest(subscription.start_seq, subscription.echo)
                mailbox.sources.restore(subscription.channel, interest)
        for bot_id, priority, seq in state.prioritized:
            self.mailboxes[bot_id].restore_lane(priority, seq)
        for mailbox_id, seq in state.dead_letters:
            if mailbox_id in self.mailboxes:
                self.mailboxes[mailbox_id].dead_letters.restore(seq)

    def __repr__(self) -> str:
        return f"<Directory bots={len(self.bots)} channels={len(self.channels)}>"

    def find_bot(self, name_or_id: str) -> BotRecord | None:
        """Return a bot by id, or else by name: earlier versions allowed a UUID as a name."""
        bot = self.bots.get(name_or_id) or self.names.get(name_or_id)
        return None if bot is not None and bot.name in self.leaving else bot

    def find_mailbox(self, name: str) -> Mailbox | None:
        """Return the mailbox of a bot, by its name or id, or that of a group, by `channel/group`."""
        bot = self.find_bot(name)
        return self.mailboxes.get(name if bot is None else bot.id)

    def name_of(self, mailbox: Mailbox) -> str:
        """Return the name of a mailbox: its bot's, or `channel/group`."""
        return mailbox.id if mailbox.group is not None else self.bots[mailbox.id].name

    def was_asked(self, bot_id: str, asked: Asked) -> bool:
        """Return True if a bot's reply to a message counts as its answer."""
        if asked.channel is not None:
            entry = self.channels.get(asked.channel)
            return entry is not None and bot_id in entry.subscriptions
        return asked.bot_id in (None, bot_id)

    def mailboxes_of(self, bot_id: str) -> list[Mailbox]:
        """Return the mailboxes that a bot receives from: its own, and those of its groups."""
        subscriptions = self.subscriptions_of(bot_id).values()
        groups = [self.mailbox_for(each) for each in subscriptions if each.group is not None]
        return [self.mailboxes[bot_id], *groups]

    def mailbox_for(self, subscription: Subscription) -> Mailbox:
        """Return the mailbox that delivers a subscription: its bot's, or its group's."""
        bot_id, channel, group = subscription.bot_id, subscription.channel, subscription.group
        return self.mailboxes[bot_id if group is None else group_mailbox_id(channel, group)]

    def mailboxes_lent_to(self, session: Session) -> list[Mailbox]:
        """Return the mailboxes that a session receives from."""
        return [self.mailboxes[mailbox_id] for mailbox_id in session.mailbox_ids]

    def mailbox_in_flight(self, session: Session, seq: int) -> Mailbox | None:
        """Return the mailbox that a message in flight for a session came from; None if it is not in flight."""
        mailbox_id = session.in_flight.get(seq)
        return None if mailbox_id is None else self.mailboxes[mailbox_id]

    def subscriptions_of(self, bot_id: str) -> dict[str, Subscription]:
        """Return a bot's subscriptions by channel."""
        return self._subscriptions.get(bot_id, {})

    def add_bot(self, bot: BotRecord, state: MailboxState, *, last_seq: int) -> None:
        """Add a registered bot and its mailbox; `last_seq` is the end of the log."""
        self.bot_names.add(bot.name)
        self.bots[bot.id] = self.names[bot.name] = bot
        mailbox = Mailbox(state, self._settings.delivery, self._settings.limits)
        mailbox.begin(last_seq)
        self.mailboxes[bot.id] = mailbox

    def hide_bot(self, bot: BotRecord) -> None:
        """Let a bot be unknown, and its name reserved, until `show_bot` or `remove_bot`."""
        self.leaving[bot.name] = self.names.pop(bot.name)

    def show_bot(self, bot: BotRecord) -> None:
        """Undo `hide_bot`."""
        self.names[bot.name] = self.leaving.pop(bot.name)

    def remove_bot(self, bot: BotRecord) -> Mailbox:
        """Remove a hidden bot with its subscriptions, and return its mailbox; groups stay."""
        del self.leaving[bot.name], self.bots[bot.id]
        self.bot_names.remove(bot.name)
        self.patterns.remove_bot(bot.id)
        for channel in self._subscriptions.pop(bot.id, {}):
            del self.channels[channel].subscriptions[bot.id]
            self.channels[channel].mailboxes.pop(bot.id, None)
        return self.mailboxes.pop(bot.id)

    def seen(self, bot_id: str, at: str) -> None:
        """Note when a bot was last heard."""
        bot = msgspec.structs.replace(self.bots[bot_id], last_seen_at=at)
        self.bots[bot.id] = self.names[bot.name] = bot

    def new_channel(self, name: str, at: str, bot_id: str) -> Channel:
        """Return a channel as it is to be created: by the worker if it is its own, or else by a bot."""
        creator = WORKER_ID if name in self.worker_channels else bot_id
        return Channel(name=name, created_at=at, created_by_bot_id=creator)

    def add_channels(self, channels: Iterable[Channel]) -> None:
        """Add channels, keeping those that exist."""
        for channel in channels:
            if channel.name not in self.channels:
                self.channels[channel.name] = ChannelEntry(channel)
                self.channel_names.add(channel.name)
                self.created[channel.created_by_bot_id] += 1

    def subscribe(self, subscription: Subscription, *, last_seq: int) -> Mailbox:
        """Add a subscription, and return the mailbox that delivers it; a group's first one opens the group."""
        if subscription.group is None:
            interest = Interest(subscription.start_seq, subscription.echo)
            self.mailboxes[subscription.bot_id].subscribe(subscription.channel, interest, last_seq)
        else:
            self.mailboxes[subscription.bot_id].forget(subscription.channel)
            if group_mailbox_id(subscription.channel, subscription.group) not in self.mailboxes:
                position = min(subscription.start_seq, last_seq)
                state = MailboxState(group_mailbox_id(subscription.channel, subscription.group), position)
                self._open_group(subscription.channel, subscription.group, subscription.start_seq, state)
        return self._enter(subscription)

    def _enter(self, subscription: Subscription) -> Mailbox:
        bot_id, channel, mailbox = subscription.bot_id, subscription.channel, self.mailbox_for(subscription)
        entry = self.channels[channel]
        entry.subscriptions[bot_id] = subscription
        entry.mailboxes[mailbox.id] = mailbox
        self._subscriptions.setdefault(bot_id, {})[channel] = subscription
        return mailbox

    def pass_on(self, bot_id: str, channel: str, pattern: str | None) -> None:
        """Let a subscription belong to a pattern, or to the channel's name."""
        passed = msgspec.structs.replace(self._subscriptions[bot_id][channel], pattern=pattern)
        self._subscriptions[bot_id][channel] = self.channels[channel].subscriptions[bot_id] = passed

    def _open_group(self, channel: str, group: str, start_seq: int, state: MailboxState) -> None:
        """Add a group: its mailbox wants the channel whether it has members or not."""
        mailbox = Mailbox(state, self._settings.delivery, self._settings.limits, group=group)
        mailbox.sources.restore(channel, Interest(start_seq, echo=True))
        self.mailboxes[mailbox.id] = self.channels[channel].mailboxes[mailbox.id] = mailbox
        self.channels[channel].groups.add(group)

    def has_channel(self, name: str) -> bool:
        """Return True if a channel is there, and stays."""
        return name in self.channels and name not in self.closing

    def remove_channel(self, name: str) -> None:
        """Remove a channel without subscriptions and groups."""
        self.closing.discard(name)
        self.channel_names.remove(name)
        self.created[self.channels.pop(name).channel.created_by_bot_id] -= 1

    def close_group(self, channel: str, group: str) -> Mailbox:
        """Remove a group that has no members, and return its mailbox."""
        entry, mailbox = self.channels[channel], self.mailboxes.pop(group_mailbox_id(channel, group))
        entry.groups.discard(group)
        del entry.mailboxes[mailbox.id]
        return mailbox

    def unsubscribe(self, bot_id: str, channel: str) -> Mailbox:
        """Remove a subscription, and return the mailbox that delivered it; a group's stays."""
        del self._subscriptions[bot_id][channel]
        entry = self.channels[channel]
        subscription = entry.subscriptions.pop(bot_id)
        if subscription.group is not None:
            return self.mailbox_for(subscription)
        self.mailboxes[bot_id].unsubscribe(channel)
        return entry.mailboxes.pop(bot_id)
