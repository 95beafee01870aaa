"""What subscriptions to patterns bring: an ordinary subscription to each channel that matches.

Owns which channel a bot gets by which pattern. Its rules:

- A channel reaches a bot by one subscription, and so a message once. The first one has it: a subscription by name,
  or the oldest of the bot's patterns that match. When that ends, it passes to the oldest one that is left.
- A pattern's start is one place in the log. The channels that are there when it is subscribed to begin at that
  place; those that come later begin where they come.
- A new channel is subscribed to in the transaction that creates it. Publishing on a known channel asks nobody.
- A bot gets by a pattern only what one of its keys may have.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

from ..mailbox.sessions import Sessions
from ..model.keys import Purpose
from ..model.patterns import ChannelPattern
from ..model.records import Channel
from ..model.repository import AddSubscription, PatternSubscription, Subscribed, Subscription
from ..settings import Limits
from ..wire.codes import Code
from ..wire.frames import SubscriptionEnded
from .access import Access, wanted
from .batches import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn
from .keyring import Keyring
from .pausing import Pausing

__all__ = ["Matching"]


class Matching:
    """See the module. `keyring` is None for a worker without keys."""

    def __init__(
        self,
        directory: Directory,
        sessions: Sessions,
        *,
        access: Access,
        batches: Batches,
        dispatch: Dispatch,
        pausing: Pausing,
        turn: Turn,
        limits: Limits,
    ) -> None:
        self.keyring: Keyring | None = None
        self.directory = directory
        self._sessions = sessions
        self._access = access
        self._batches = batches
        self.dispatch = dispatch
        self._pausing = pausing
        self._turn = turn
        self._limits = limits
        batches.meet = self._meet

    def __repr__(self) -> str:
        return f"<Matching {self.directory.patterns}>"

    def tell_ended(self, bot_id: str) -> None:
        """Send a hint to those sessions of a bot that asked for it: a subscription of it has ended, on disk."""
        for session in self._sessions.of_bot(bot_id):
            if session.follows:
                session.follows = False
                self._turn.send(session.address, SubscriptionEnded())

    # ── What comes by a pattern ──────────────────────────────────────────────────────────────────────────

    def heir(self, bot_id: str, channel: str, *, besides: str | None = None) -> PatternSubscription | None:
        """Return the pattern by which a bot gets a channel that it has by no other subscription."""
        for each in self.directory.patterns.matching(channel, bot_id):
            if each.pattern != besides and self._may(bot_id, channel, each.group):
                return each
        return None

    def missing(
        self, bot_id: str, patterns: Iterable[PatternSubscription]
    ) -> list[tuple[str, PatternSubscription]]:
        """Return the channels that a bot is to get by some of its patterns and does not have, each with its own."""
        theirs = [(ChannelPattern(each.pattern), each) for each in patterns]
        have = self.directory.subscriptions_of(bot_id)
        found: list[tuple[str, PatternSubscription]] = []
        for channel, entry in self.directory.channels.items() if theirs else ():
            if channel in have or channel in self.directory.closing:
                continue
            for pattern, each in theirs:
                if pattern.matches(channel) and self._may(bot_id, channel, each.group):
                    if self._has_room(each, channel, len(have) + len(found), entry.groups):
                        found.append((channel, each))
                    break
        return found

    def allowed(self, subscription: PatternSubscription, channels: Iterable[str]) -> list[str]:
        """Return those of these channels that a bot may have and does not have."""
        have, group = self.directory.subscriptions_of(subscription.bot_id), subscription.group
        return [each for each in channels if each not in have and self._may(subscription.bot_id, each, group)]

    def _meet(self, channels: Iterable[Channel]) -> list[Job[Any]]:
        """Return what enters a batch that creates these channels, unless they exist: subscriptions to them."""
        if not self.directory.patterns.bots:
            return []
        new = [channel.name for channel in channels if channel.name not in self.directory.channels]
        brought = [each for channel in new for each in self._brought(channel)]
        return [_JoinJob(self, brought)] if brought else []

    def _brought(self, channel: str) -> Iterable[AddSubscription]:
        groups: set[str] = set()
        for bot_id in self.directory.patterns.bots_matching(channel):
            heir = self.heir(bot_id, channel)
            have = len(self.directory.subscriptions_of(bot_id))
            if heir is not None and self._has_room(heir, channel, have, groups):
                if heir.group is not None:
                    groups.add(heir.group)
                yield heir.of(channel, after_seq=self.dispatch.last_seq)

    def _has_room(self, subscription: PatternSubscription, channel: str, have: int, groups: Set[str]) -> bool:
        """Return True if a bot may have one more channel; otherwise operators are told."""
        limits, group = self._limits, subscription.group
        full = have >= limits.pattern_channels_per_bot_max
        crowded = group is not None and group not in groups and len(groups) >= limits.groups_per_channel_max
        if full or crowded:
            bot = self.directory.bots[subscription.bot_id].name
            self._turn.note("channel_left_out", bot=bot, pattern=subscription.pattern, channel=channel)
        return not (full or crowded)

    def _may(self, bot_id: str, channel: str, group: str | None) -> bool:
        """Return True if one of a bot's keys may have a channel: what others may not have is paused."""
        if self.keyring is None:
            return True
        wall = self._turn.moment.wall
        principals = (self.keyring.principal(key.public_key, wall) for key in self.keyring.of_bot(bot_id))
        return any(
            principal is not None
            and principal.purpose is not Purpose.ENROL
            and self._access.may(principal, *wanted(channel, group))
            for principal in principals
        )

    # ── To memory ────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, subscription: Subscription) -> None:
        """Enter a subscription that is on disk."""
        mailbox = self.directory.subscribe(subscription, last_seq=self.dispatch.last_seq)
        for session in self._sessions.of_bot(subscription.bot_id):
            if mailbox.id not in session.mailbox_ids and not session.opening:
                self.dispatch.join(session, mailbox)
            self.dispatch.touch_session(session)
        self.dispatch.touch(mailbox)

    def enter_brought(self, brought: Sequence[AddSubscription], answers: Sequence[Subscribed]) -> None:
        """Enter what patterns brought. Without answers, the channels are new."""
        bots: dict[str, None] = {}
        for at, each in enumerate(brought):
            answer = answers[at] if answers else Subscribed(each.start_seq or 0, created=True)
            known = each.channel in self.directory.subscriptions_of(each.bot_id)
            if answer.created and not known and each.bot_id in self.directory.bots:
                of = (each.subscribed_at, answer.start_seq, each.echo, each.group, each.pattern)
                self.enter(Subscription(each.bot_id, each.channel, *of))
                bots[each.bot_id] = None
        for bot_id in bots:
            self._pausing.look_at(bot_id)

    # ── Later ────────────────────────────────────────────────────────────────────────────────────────────

    def look_at_all(self) -> None:
        """Bring all bots what they may have now."""
        for bot_id in self.directory.patterns.bots:
            self.look_at(bot_id)

    def look_at(self, bot_id: str) -> None:
        """Bring a bot the channels that it may have now, or has no more by another subscription."""
        if bot_id in self.directory.bots and self.missing(bot_id, self.directory.patterns.of_bot(bot_id).values()):
            self._batches.add(_LookJob(self, bot_id, self.dispatch.last_seq))

    def not_stored(self, job: Job[Any]) -> None:
        """Bring a bot its channels with the next batch."""
        self._batches.postpone(job)

    def prepare(self, brought: Iterable[AddSubscription]) -> None:
        """Let the bots' own mailboxes be stored as they are at these starts."""
        for each in brought:
            if each.group is None and each.start_seq is not None:
                self.directory.mailboxes[each.bot_id].sources.prepare(each.channel, each.start_seq)

    def dismiss(self, brought: Iterable[AddSubscription]) -> None:
        """Undo `prepare` of what was not stored, or was there."""
        for each in brought:
            if each.bot_id in self.directory.mailboxes:
                self.directory.mailboxes[each.bot_id].sources.dismiss(each.channel)


class _JoinJob(Job[Subscribed]):
    """Subscriptions to channels that are created with them."""

    changes: Sequence[AddSubscription]

    def __init__(self, matching: Matching, brought: Sequence[AddSubscription]) -> None:
        super().__init__(changes=brought)
        self._matching = matching

    def done(self, answers: Sequence[Subscribed], at: str) -> None:
        """Let them take effect."""
        self._matching.enter_brought(self.changes, answers)

    def failed(self, code: Code, message: str) -> None:
        """Do nothing: the channels were not created either."""


class _LookJob(Job[Subscribed]):
    """Subscriptions of a bot to channels that it has come to have since a seq."""

    changes: Sequence[AddSubscription]

    def __init__(self, matching: Matching, bot_id: str, since: int) -> None:
        super().__init__()
        self._matching = matching
        self._bot_id = bot_id
        self._since = since

    def begin(self) -> None:
        """Find them, now that they are about to be written."""
        directory = self._matching.directory
        if self._bot_id not in directory.bots:
            return
        missing = self._matching.missing(self._bot_id, directory.patterns.of_bot(self._bot_id).values())
        self.changes = [each.of(channel, after_seq=self._since) for channel, each in missing]
        self.mailboxes = [directory.mailboxes[self._bot_id]]
        self._matching.prepare(self.changes)

    def done(self, answers: Sequence[Subscribed], at: str) -> None:
        """Let them take effect."""
        self._matching.enter_brought(self.changes, answers)
        self._matching.dismiss(self.changes)

    def failed(self, code: Code, message: str) -> None:
        """Try again with another batch."""
        self._matching.dismiss(self.changes)
        self._matching.not_stored(self)
