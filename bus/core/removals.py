"""What can be removed: how each kind is found, prepared and taken out of memory.

Owns what a removal means for the mailboxes and the directory. `clearing` decides who may, and when.

Pure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from ..mailbox.mailbox import Mailbox
from ..model.patterns import WILDCARD
from ..model.records import BotRecord
from ..model.repository import (
    CancelDelayed,
    CloseChannel,
    CloseGroup,
    DiscardDeadLetters,
    EndPattern,
    EndSubscription,
    RemoveBot,
    Removed,
    What,
)
from ..wire.frames import Code, Refusal
from .directory import ChannelEntry, Directory
from .dispatch import Dispatch
from .effects import Turn
from .keyring import Keyring
from .pattern_requests import Passing
from .scheduling import Scheduling
from .subscribing import Subscribing
from .wills import Wills

__all__ = [
    "BacklogTarget",
    "BotTarget",
    "ChannelTarget",
    "DeadLettersTarget",
    "DelayedTarget",
    "GroupTarget",
    "Target",
    "subscription_target",
]


class Target(ABC):
    """Something to be removed. `mailboxes` are those whose state is saved with the removal."""

    kind: ClassVar[str]
    alone: ClassVar[bool] = False
    """Whether it must be written in a batch of its own, so that what was published before is counted."""

    def __init__(self, name: str, mailboxes: Sequence[Mailbox]) -> None:
        self.name = name
        self.mailboxes = mailboxes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def begin(self) -> bool:
        """Begin to change it. Return False if somebody else does, or has removed it. `done` or `keep` follows."""
        return not self.is_gone

    @property
    def is_gone(self) -> bool:
        """Whether a mailbox of it was removed, or is about to be: one with its name would be another one."""
        return any(mailbox.removed for mailbox in self.mailboxes)

    @abstractmethod
    def look(self) -> What:
        """Return what would be removed now."""

    @abstractmethod
    def prepare(self) -> What:
        """Return what is removed: it is about to be written."""

    @abstractmethod
    def done(self, removed: Removed) -> None:
        """Remove from memory what is removed on disk."""

    @abstractmethod
    def keep(self) -> None:
        """Undo `begin` and `prepare`: nothing was removed."""


class DeadLettersTarget(Target):
    """Dead letters of a mailbox."""

    kind = "dead_letters"

    def __init__(self, name: str, mailbox: Mailbox, seqs: Sequence[int]) -> None:
        super().__init__(name, [mailbox])  # those that are not stored yet are stored before they are removed
        self._mailbox = mailbox
        self._seqs = seqs
        self._taken: list[int] = []

    def look(self) -> DiscardDeadLetters:
        """Return what is asked for: the log knows which of them are dead letters."""
        return DiscardDeadLetters(self._mailbox.id, tuple(self._seqs))

    def prepare(self) -> DiscardDeadLetters:
        """Remove them, so that nobody retries them meanwhile."""
        self._taken = self._mailbox.dead_letters.take_out(self._seqs)
        return DiscardDeadLetters(self._mailbox.id, tuple(self._taken))

    def done(self, removed: Removed) -> None:
        """Do nothing: they are taken out."""

    def keep(self) -> None:
        """Leave them dead."""
        self._mailbox.dead_letters.stay_dead(self._taken)


class DelayedTarget(Target):
    """Messages of a bot that are not due yet."""

    kind = "delayed"

    def __init__(self, bot: BotRecord, ids: Sequence[str], scheduling: Scheduling) -> None:
        super().__init__(bot.name, [])
        self._change = CancelDelayed(bot.id, tuple(ids))
        self._scheduling = scheduling

    def look(self) -> CancelDelayed:
        """Return what is asked for: the log knows what waits."""
        return self._change

    prepare = look

    def done(self, removed: Removed) -> None:
        """Count them no more."""
        self._scheduling.cancelled(Counter({self._change.sender_bot_id: len(removed.ids)}))

    def keep(self) -> None:
        """Do nothing: nothing was prepared."""


class BacklogTarget(Target):
    """What waits in a mailbox."""

    kind = "backlog"

    def __init__(self, name: str, mailbox: Mailbox, dispatch: Dispatch) -> None:
        super().__init__(name, [mailbox])
        self._mailbox = mailbox
        self._dispatch = dispatch

    def look(self) -> What:
        """Return what waits now."""
        return self._mailbox.purging.look(self._dispatch.last_seq)

    def prepare(self) -> What:
        """Pass over what waits now, in the state that is stored."""
        return self._mailbox.purging.prepare(self._dispatch.last_seq)

    def done(self, removed: Removed) -> None:
        """Pass over it, and tell the sessions."""
        told = removed.counts["waiting"] > 0
        self._mailbox.purging.purge(told=told)
        if told:
            self._dispatch.send_gap(self._mailbox, self._mailbox.sessions)
        self._dispatch.touch(self._mailbox)

    def keep(self) -> None:
        """Go on to deliver it."""
        self._mailbox.purging.keep()
        self._dispatch.touch(self._mailbox)


def subscription_target(bot: BotRecord, channel: str, directory: Directory, subscribing: Subscribing) -> Target:
    """Return a bot's subscription to a channel or a pattern. Raise Refusal if it belongs to a pattern."""
    if WILDCARD in channel:
        return _PatternTarget(bot, channel, directory, subscribing)
    known = directory.subscriptions_of(bot.id).get(channel)
    if known is not None and known.pattern is not None:
        text = f"bot {bot.name!r} has channel {channel!r} by its subscription to {known.pattern!r}: remove that one"
        raise Refusal(Code.CONFLICT, text)
    return _SubscriptionTarget(bot, channel, directory, subscribing)


class _OfSubscriptions(Target):
    """A bot's subscription to a channel or a pattern."""

    kind = "subscription"

    def __init__(self, bot: BotRecord, channel: str, directory: Directory, subscribing: Subscribing) -> None:
        super().__init__(f"{bot.name} {channel}", [])
        self._bot = bot
        self._channel = channel
        self._mailbox = directory.mailboxes[bot.id]
        self._directory = directory
        self._subscribing = subscribing

    def begin(self) -> bool:
        """Let no other change of it begin, nor a removal of the bot."""
        there = self._directory.find_bot(self._bot.id) is not None
        return there and self._subscribing.change(self._bot.id, self._channel)

    @abstractmethod
    def _end(self) -> None:
        """Enter its end."""

    def done(self, removed: Removed) -> None:
        """End it, unless it had ended. What the bot has by a pattern, and had otherwise before, it gets by that."""
        if removed.counts["subscriptions"]:
            self._end()
            self._subscribing.matching.look_at(self._bot.id)
        self._subscribing.proceed(self._bot.id, self._channel)

    def keep(self) -> None:
        """Let the next change begin."""
        self._subscribing.proceed(self._bot.id, self._channel)


class _SubscriptionTarget(_OfSubscriptions):
    """A bot's subscription to a channel. It passes to a pattern that matches, if the bot has one."""

    _passes_to: str | None = None

    def look(self) -> EndSubscription:
        """Return it, with what waits in the bot's mailbox; the mailbox of a group keeps what it has."""
        subscription = self._directory.subscriptions_of(self._bot.id).get(self._channel)
        heir = self._subscribing.matching.heir(self._bot.id, self._channel)
        passes = subscription is not None and heir is not None and heir.group == subscription.group
        self._passes_to = heir.pattern if passes and heir is not None else None
        own = subscription is not None and subscription.group is None and not passes
        last_seq = self._subscribing.last_seq
        waiting = self._mailbox.purging.look_at([self._channel], last_seq) if own else None
        return EndSubscription(self._bot.id, self._channel, waiting, self._passes_to)

    prepare = look

    def _end(self) -> None:
        if self._passes_to is None:
            self._subscribing.leave(self._bot.id, self._channel)
        else:
            self._directory.pass_on(self._bot.id, self._channel, self._passes_to)


class _PatternTarget(_OfSubscriptions):
    """A bot's subscription to a pattern, with those that came by it."""

    alone = True
    _passing: Passing

    def look(self) -> EndPattern:
        """Return it, with what waits in the bot's mailbox of the channels that end with it."""
        self._passing = passing = Passing(self._subscribing.matching, self._bot.id, self._channel)
        own = [each.channel for each in passing.ended if each.group is None]
        waiting = self._mailbox.purging.look_at(own, self._subscribing.last_seq) if own else None
        return EndPattern(self._bot.id, self._channel, waiting, passing.passed)

    prepare = look

    def _end(self) -> None:
        self._passing.enter(self._subscribing.leave)


class GroupTarget(Target):
    """A group with its mailbox and its members."""

    kind = "group"
    alone = True

    def __init__(
        self, channel: str, group: str, mailbox: Mailbox, directory: Directory, subscribing: Subscribing
    ) -> None:
        super().__init__(mailbox.id, [])
        self._channel = channel
        self._group = group
        self._mailbox = mailbox
        self._directory = directory
        self._subscribing = subscribing

    def begin(self) -> bool:
        """Return False if it is removed already, or goes with its channel."""
        return not self._mailbox.removed and self._directory.has_channel(self._channel)

    def look(self) -> CloseGroup:
        """Return it, with what waits in its mailbox and what is in flight."""
        waiting = self._mailbox.purging.look(self._subscribing.last_seq)
        in_flight = len(self._mailbox.outstanding) - waiting.returned
        return CloseGroup(self._channel, self._group, waiting, in_flight)

    def prepare(self) -> CloseGroup:
        """Save the state of its mailbox no more."""
        self._mailbox.removed = True
        return self.look()

    def done(self, removed: Removed) -> None:
        """Remove it."""
        self._subscribing.close_group(self._channel, self._group)

    def keep(self) -> None:
        """Go on with it."""
        self._mailbox.removed = False
        self._subscribing.dispatch.save_again([self._mailbox])
        self._subscribing.dispatch.touch(self._mailbox)


class ChannelTarget(Target):
    """A channel with its subscriptions and groups."""

    kind = "channel"
    alone = True
    """And what is published after it creates the channel anew, in a later batch."""

    def __init__(self, name: str, entry: ChannelEntry, subscribing: Subscribing) -> None:
        super().__init__(name, [])
        self._entry = entry
        self._subscribing = subscribing

    @property
    def _groups(self) -> list[Mailbox]:
        return [mailbox for mailbox in self._entry.mailboxes.values() if mailbox.group is not None]

    def begin(self) -> bool:
        """Let none of its subscriptions change."""
        return self._subscribing.begin_to_close(self._entry)

    def look(self) -> CloseChannel:
        """Return it, with what waits in the mailboxes of its groups."""
        last_seq = self._subscribing.last_seq
        return CloseChannel(self.name, tuple(mailbox.purging.look(last_seq) for mailbox in self._groups))

    def prepare(self) -> CloseChannel:
        """Save the state of its groups no more."""
        for mailbox in self._groups:
            mailbox.removed = True
        return self.look()

    def done(self, removed: Removed) -> None:
        """Remove it."""
        self._subscribing.close_channel(self.name)
        self._subscribing.proceed_all(self.name)

    def keep(self) -> None:
        """Go on with it."""
        for mailbox in self._groups:
            mailbox.removed = False
            self._subscribing.dispatch.save_again([mailbox])
            self._subscribing.dispatch.touch(mailbox)
        self._subscribing.proceed_all(self.name)
        self._subscribing.matching.look_at_all()  # somebody may have subscribed to a pattern of it meanwhile


class BotTarget(Target):
    """A bot that is not connected, with its mailbox, subscriptions, keys and last will."""

    kind = "bot"
    alone = True

    def __init__(
        self,
        bot: BotRecord,
        directory: Directory,
        subscribing: Subscribing,
        *,
        keyring: Keyring | None,
        turn: Turn,
        wills: Wills,
    ) -> None:
        self._mailbox = directory.mailboxes[bot.id]
        super().__init__(bot.name, [])
        self._bot = bot
        self._directory = directory
        self._subscribing = subscribing
        self._keyring = keyring
        self._turn = turn
        self._wills = wills

    def keep_an_admin(self) -> None:
        """Raise Refusal if nobody could manage keys without its keys."""
        if self._keyring is not None:
            self._keyring.keep_an_admin(self._turn.moment.wall, bot_id=self._bot.id)

    def begin(self) -> bool:
        """Let nobody know it any more, nor connect as it. Raise Refusal as `keep_an_admin`."""
        subscribing, id = self._subscribing, self._bot.id
        if id not in self._directory.bots or subscribing.sessions_of(id) or subscribing.is_changing(id):
            return False
        self.keep_an_admin()
        self._directory.hide_bot(self._bot)
        if self._keyring is not None:
            self._keyring.leaving.add(id)
        return True

    def look(self) -> RemoveBot:
        """Return it, with what waits in its mailbox."""
        waiting = self._mailbox.purging.look(self._subscribing.last_seq)
        return RemoveBot(self._bot.id, waiting, self._subscribing.sessions_of(self._bot.id))

    def prepare(self) -> RemoveBot:
        """Save the state of its mailbox no more."""
        self._mailbox.removed = True
        return self.look()

    def done(self, removed: Removed) -> None:
        """Forget it."""
        if self._keyring is not None:
            self._keyring.leaving.discard(self._bot.id)
            if self._keyring.leave_tap(self._keyring.forget_bot(self._bot.id)):
                self._subscribing.dispatch.tapping.empty("a key of one of its listeners was removed")
        self._wills.erased([self._bot.id])
        self._subscribing.forget_bot(self._bot)

    def keep(self) -> None:
        """Go on with it."""
        self._directory.show_bot(self._bot)
        if self._keyring is not None:
            self._keyring.leaving.discard(self._bot.id)
        self._mailbox.removed = False
        self._subscribing.dispatch.save_again([self._mailbox])
        self._subscribing.dispatch.touch(self._mailbox)
