"""Who and what there is: bots, channels, mailboxes, and who subscribes to what.

Owns the worker's picture of these as they stand on disk. Something is entered here when the transaction that
holds it has returned, never before.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from store.records import Bot, Channel
from store.repository import LogState, MailboxState

from .mailbox import Interest, Mailbox
from .settings import Settings

__all__ = ["ChannelEntry", "Directory"]


class ChannelEntry:
    """A channel, the seq of its last message, and the mailboxes that want it."""

    __slots__ = ("channel", "head_seq", "mailboxes")

    def __init__(self, channel: Channel, head_seq: int = 0) -> None:
        self.channel = channel
        self.head_seq = head_seq
        self.mailboxes: dict[str, Mailbox] = {}

    def __repr__(self) -> str:
        return f"<ChannelEntry {self.channel.name} head_seq={self.head_seq} subscribers={len(self.mailboxes)}>"


class Directory:
    """All bots by id and name, all mailboxes by bot id, all channels by name."""

    def __init__(self, state: LogState, settings: Settings) -> None:
        self._settings = settings
        self.bots: dict[str, Bot] = {}
        self.names: dict[str, Bot] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self.channels: dict[str, ChannelEntry] = {}
        self.subscribed_at: dict[tuple[str, str], str] = {}
        places = {mailbox.bot_id: mailbox for mailbox in state.mailboxes}
        for bot in state.bots:
            self.add_bot(bot, places.get(bot.id) or MailboxState(bot.id, 0))
        for channel, head_seq in state.channels:
            self.channels[channel.name] = ChannelEntry(channel, head_seq)
        for subscription in state.subscriptions:
            if subscription.bot_id not in self.bots:
                continue  # written by other means than a bus: nobody can receive for it
            interest = Interest(subscription.start_seq, subscription.echo)
            self.mailboxes[subscription.bot_id].restore(subscription.channel, interest)
            self._enter(subscription.bot_id, subscription.channel, at=subscription.subscribed_at)
        for bot_id, seq in state.dead_letters:
            self.mailboxes[bot_id].dead.add(seq)

    def __repr__(self) -> str:
        return f"<Directory bots={len(self.bots)} channels={len(self.channels)}>"

    def find_bot(self, name_or_id: str) -> Bot | None:
        """Give a bot by its name, or else by its id."""
        return self.names.get(name_or_id) or self.bots.get(name_or_id)

    def add_bot(self, bot: Bot, mailbox: MailboxState) -> None:
        """Enter a registered bot with its mailbox."""
        self.bots[bot.id] = self.names[bot.name] = bot
        self.mailboxes[bot.id] = Mailbox(mailbox, self._settings.delivery, self._settings.limits)

    def seen(self, bot_id: str, at: str) -> None:
        """Note when a bot was last heard."""
        bot = msgspec.structs.replace(self.bots[bot_id], last_seen_at=at)
        self.bots[bot.id] = self.names[bot.name] = bot

    def add_channels(self, channels: Iterable[Channel]) -> None:
        """Enter channels, keeping those that are there."""
        for channel in channels:
            if channel.name not in self.channels:
                self.channels[channel.name] = ChannelEntry(channel)

    def subscribe(self, bot_id: str, channel: str, interest: Interest, *, at: str, last_seq: int) -> None:
        """Enter a subscription."""
        self.mailboxes[bot_id].subscribe(channel, interest, last_seq)
        self._enter(bot_id, channel, at=at)

    def _enter(self, bot_id: str, channel: str, *, at: str) -> None:
        self.channels[channel].mailboxes[bot_id] = self.mailboxes[bot_id]
        self.subscribed_at[bot_id, channel] = at

    def unsubscribe(self, bot_id: str, channel: str) -> None:
        """Take a subscription out."""
        self.mailboxes[bot_id].unsubscribe(channel)
        self.channels[channel].mailboxes.pop(bot_id, None)
        self.subscribed_at.pop((bot_id, channel), None)
