"""Subscribing to patterns, and ending that.

Owns what a frame that names a pattern is answered. `matching` says which channels it brings. A change of a pattern
is written in a batch of its own, so that it sees all channels that were created before.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..mailbox.sessions import Session
from ..model.patterns import ChannelPattern
from ..model.repository import (
    AddPattern,
    AddSubscription,
    PatternSubscription,
    RemovePattern,
    Subscribed,
    Subscription,
)
from ..wire.answers import SubscriptionEnd, SubscriptionStart
from ..wire.frames import Code, Subscribe, Unsubscribe
from .batches import Batches, Job
from .effects import Turn
from .matching import Matching

__all__ = ["Passing", "PatternRequests", "manner"]

_Leave = Callable[[str, str], None]
"""Enters the end of a bot's subscription to a channel."""


class PatternRequests:
    """See the module. `proceed` begins the next change of a bot's subscription to a pattern."""

    def __init__(
        self,
        matching: Matching,
        batches: Batches,
        turn: Turn,
        *,
        leave: _Leave,
        proceed: Callable[[str, str], None],
    ) -> None:
        self.matching = matching
        self._batches = batches
        self.turn = turn
        self.leave = leave
        self.proceed = proceed

    def __repr__(self) -> str:
        return f"<PatternRequests {self.matching}>"

    def subscribe(self, session: Session, subscribe: Subscribe, start_seq: int | None) -> None:
        """Write a subscription to a pattern that starts after a seq; None means at the end of the log."""
        change = AddPattern(
            session.bot_id, subscribe.channel, self.turn.moment.wall, start_seq, subscribe.echo, subscribe.group
        )
        self._batches.add(_AddJob(self, session, subscribe, change))

    def subscribed(self, session: Session, subscribe: Subscribe, answer: Subscribed) -> None:
        """Answer a request whose outcome is on disk."""
        if answer.group != subscribe.group:
            text = (
                f"bot {session.bot_name!r} is subscribed to {subscribe.channel!r} {manner(answer.group)},"
                f" and cannot also be subscribed {manner(subscribe.group)}: unsubscribe first"
            )
            self.turn.refuse(session.address, Code.CONFLICT, text, subscribe.request)
            return
        of_bot = self.matching.directory.subscriptions_of(session.bot_id).values()
        start = SubscriptionStart(
            subscribe.channel,
            answer.start_seq,
            created=answer.created,
            group=answer.group,
            channels=sum(each.pattern == subscribe.channel for each in of_bot),
        )
        self.turn.answer(session.address, subscribe.request, start)

    def unsubscribe(self, session: Session, unsubscribe: Unsubscribe) -> None:
        """Write the end of a subscription to a pattern."""
        self._batches.add(_RemoveJob(self, session, unsubscribe))


class Passing:
    """The end of a bot's subscription to a pattern: what ends with it, and what passes to other patterns.

    What passes to one in another group, or in none, is `joined` anew.
    """

    def __init__(self, matching: Matching, bot_id: str, pattern: str) -> None:
        self._matching = matching
        self._bot_id = bot_id
        self._pattern = pattern
        self.ended: list[Subscription] = []
        self.passed: dict[str, str] = {}
        self.joined: list[AddSubscription] = []
        for each in matching.directory.subscriptions_of(bot_id).values():
            if each.pattern != pattern:
                continue
            heir = matching.heir(bot_id, each.channel, besides=pattern)
            if heir is not None and heir.group == each.group:
                self.passed[each.channel] = heir.pattern
                continue
            self.ended.append(each)
            if heir is not None:
                self.joined.append(heir.of(each.channel, after_seq=matching.dispatch.last_seq))

    def __repr__(self) -> str:
        return f"<Passing {self._pattern} ended={len(self.ended)} passed={len(self.passed)}>"

    def enter(self, leave: _Leave) -> None:
        """Enter it, now that it is on disk."""
        self._matching.directory.patterns.remove(self._bot_id, self._pattern)
        self._matching.tell_ended(self._bot_id)
        for channel, pattern in self.passed.items():
            self._matching.directory.pass_on(self._bot_id, channel, pattern)
        for each in self.ended:
            leave(self._bot_id, each.channel)


class _AddJob(Job[Subscribed]):
    """A new subscription to a pattern, with those that it brings."""

    def __init__(
        self, requests: PatternRequests, session: Session, subscribe: Subscribe, change: AddPattern
    ) -> None:
        super().__init__()
        self.alone = True
        self._requests = requests
        self._matching = requests.matching
        self._session = session
        self._subscribe = subscribe
        self._change = change
        self._brought: list[AddSubscription] = []

    def begin(self) -> None:
        """Find the channels that are there, now that it is about to be written."""
        change, directory = self._change, self._matching.directory
        self.changes = [change]
        if change.pattern in directory.patterns.of_bot(change.bot_id):
            return
        # Somebody has to listen before the worker tells anything, and so creates these.
        matches = ChannelPattern(change.pattern).matches
        own = [name for name in sorted(directory.worker_channels) if matches(name)]
        self.channels = [directory.new_channel(name, change.subscribed_at, change.bot_id) for name in own]
        directory_has = [name for name in own if name not in directory.channels]
        pattern = _pattern(change, change.start_seq or 0)
        missing = [channel for channel, _ in self._matching.missing(change.bot_id, [pattern])]
        missing += self._matching.allowed(pattern, directory_has)
        of = (change.subscribed_at, change.start_seq, change.echo, change.group)
        self._brought = [
            AddSubscription(change.bot_id, channel, *of, pattern=change.pattern) for channel in missing
        ]
        self.changes = [change, *self._brought]
        self.mailboxes = [directory.mailboxes[change.bot_id]]
        self._matching.prepare(self._brought)

    def done(self, answers: Sequence[Subscribed], at: str) -> None:
        """Let it take effect."""
        if answers[0].created:
            self._matching.directory.patterns.add(_pattern(self._change, answers[0].start_seq))
            self._matching.enter_brought(self._brought, answers[1:])
        self._matching.dismiss(self._brought)
        self._requests.subscribed(self._session, self._subscribe, answers[0])
        self._requests.proceed(self._change.bot_id, self._change.pattern)

    def failed(self, code: Code, message: str) -> None:
        """Discard it."""
        self._matching.dismiss(self._brought)
        self._requests.turn.refuse(self._session.address, code, message, self._subscribe.request)
        self._requests.proceed(self._change.bot_id, self._change.pattern)


class _RemoveJob(Job[Any]):
    """The end of a subscription to a pattern."""

    _passing: Passing

    def __init__(self, requests: PatternRequests, session: Session, unsubscribe: Unsubscribe) -> None:
        super().__init__()
        self.alone = True
        self._requests = requests
        self._session = session
        self._unsubscribe = unsubscribe

    def begin(self) -> None:
        """Find what ends with it, now that it is about to be written."""
        bot_id, pattern = self._session.bot_id, self._unsubscribe.channel
        self._passing = Passing(self._requests.matching, bot_id, pattern)
        self.changes = [RemovePattern(bot_id, pattern, self._passing.passed), *self._passing.joined]

    def done(self, answers: Sequence[Any], at: str) -> None:
        """End it."""
        removed = bool(answers[0])
        if removed:
            self._passing.enter(self._requests.leave)
            self._requests.matching.enter_brought(self._passing.joined, answers[1:])
        end = SubscriptionEnd(removed=removed)
        self._requests.turn.answer(self._session.address, self._unsubscribe.request, end)
        self._requests.proceed(self._session.bot_id, self._unsubscribe.channel)

    def failed(self, code: Code, message: str) -> None:
        """Keep it."""
        self._requests.turn.refuse(self._session.address, code, message, self._unsubscribe.request)
        self._requests.proceed(self._session.bot_id, self._unsubscribe.channel)


def manner(group: str | None) -> str:
    """Return in words how a bot is subscribed."""
    return "individually" if group is None else f"in the group {group!r}"


def _pattern(change: AddPattern, start_seq: int) -> PatternSubscription:
    return PatternSubscription(
        change.bot_id, change.pattern, change.subscribed_at, start_seq, change.echo, change.group
    )
