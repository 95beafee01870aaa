"""Changes of subscriptions: for each bot and channel, or pattern, one at a time.

Owns where a subscription starts, and the order of changes. A subscription takes effect when its transaction has
returned. What a pattern brings is in `matching`.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from ..errors import LogReplaced
from ..errors.words import amount
from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Session, Sessions
from ..model.lineage import agreed_seq
from ..model.patterns import WILDCARD, channel_pattern_fault
from ..model.records import BotRecord, Channel, parse_timestamp, timestamp
from ..model.repository import AddSubscription, RemoveSubscription, Subscribed, Subscription
from ..settings import Limits
from ..wire.answers import SubscriptionEnd, SubscriptionStart
from ..wire.frames import Code, Refusal, StartAt, Subscribe, Unsubscribe
from ..wire.refusals import PATTERN_RULE
from .access import Access, wanted
from .batches import Batches, Job
from .directory import ChannelEntry, Directory
from .dispatch import Dispatch
from .effects import FindStart, Turn
from .founding import Founding
from .matching import Matching
from .pattern_requests import PatternRequests, manner
from .pausing import Pausing
from .retaining import kept_message
from .shares import Shares

__all__ = ["Subscribing"]

_Waiting = tuple[Session, Subscribe | Unsubscribe, int | None]
"""A change that waits for another one, and its start seq."""


class Subscribing:
    """See the module."""

    def __init__(
        self,
        directory: Directory,
        sessions: Sessions,
        *,
        access: Access,
        batches: Batches,
        dispatch: Dispatch,
        founding: Founding,
        pausing: Pausing,
        shares: Shares,
        turn: Turn,
        limits: Limits,
    ) -> None:
        self._directory = directory
        self._sessions = sessions
        self._access = access
        self._batches = batches
        self.dispatch = dispatch
        self._turn = turn
        self._founding = founding
        self.pausing = pausing
        self._shares = shares
        self._limits = limits
        self.matching = Matching(
            directory,
            sessions,
            access=access,
            batches=batches,
            dispatch=dispatch,
            pausing=pausing,
            turn=turn,
            limits=limits,
        )
        self._patterns = PatternRequests(self.matching, batches, turn, leave=self.leave, proceed=self.proceed)
        self._changing: dict[str, dict[str, deque[_Waiting]]] = {}
        """The changes that wait for the one under way, by bot and channel, or pattern."""
        self._held: dict[str, list[str]] = {}
        """Bots whose subscriptions do not change while a channel is being removed."""
        self._opening: dict[str, set[str]] = {}
        """Groups that are being opened, by channel."""

    def __repr__(self) -> str:
        return f"<Subscribing bots={len(self._changing)}>"

    @property
    def last_seq(self) -> int:
        """The end of the log, as the mailboxes know it."""
        return self.dispatch.last_seq

    def request(self, session: Session, subscribe: Subscribe) -> None:
        """Handle a subscribe frame; the seq of a start by time is looked up first."""
        start, channel = subscribe.start, subscribe.channel
        if WILDCARD in channel and (fault := channel_pattern_fault(channel)) is not None:
            raise Refusal(Code.BAD_REQUEST, f"the pattern {channel!r}: {fault}; {PATTERN_RULE}")
        if WILDCARD in channel and subscribe.retained:
            text = "the last value is that of one channel: ask for it with the channel's name"
            raise Refusal(Code.BAD_REQUEST, text)
        if not isinstance(start, StartAt):
            self.subscribe(session, subscribe, 0 if start == "all" else None)
            return
        if (start.seq is None) == (start.time is None):
            raise Refusal(Code.BAD_REQUEST, "'start' has either 'seq' or 'time'")
        if start.epoch is not None and start.seq is None:
            raise Refusal(Code.BAD_REQUEST, "the 'epoch' of 'start' is that of a 'seq'")
        if start.time is None:
            after_seq = max(0, (start.seq or 0) - 1)
            if start.epoch is not None:
                self._check_log(session.bot_id, channel, start.epoch, after_seq)
            self.subscribe(session, subscribe, after_seq)
            return
        try:
            time = timestamp(parse_timestamp(start.time))
        except (ValueError, OverflowError) as error:
            raise Refusal(Code.BAD_REQUEST, f"'time' of 'start': {error}") from None
        self._turn.add(FindStart(session.address, session.bot_id, session.id, subscribe, time))

    def _check_log(self, bot_id: str, channel: str, epoch: str, seq: int) -> None:
        """Raise Refusal if a subscription would start after a seq that is not the same in the log of an epoch."""
        directory = self._directory
        agreed = seq if epoch == directory.epoch else agreed_seq(directory.earlier, epoch)
        have = channel in directory.subscriptions_of(bot_id) or channel in directory.patterns.of_bot(bot_id)
        if agreed < seq and not have:
            where = {"seq": seq, "after_seq": agreed}
            text = str(LogReplaced(epoch, directory.epoch, **where))
            details = {"error": "log_replaced", "before": epoch, "epoch": directory.epoch, **where}
            raise Refusal(Code.CONFLICT, text, details=details)

    def subscribe(self, session: Session, subscribe: Subscribe, start_seq: int | None) -> None:
        """Write a subscription that starts after a seq; None means at the end of the log."""
        is_pattern = WILDCARD in subscribe.channel
        if session.principal is not None and not is_pattern:  # of a pattern, each channel is judged by itself
            action, object = wanted(subscribe.channel, subscribe.group)
            refusal = self._access.refusal(session.principal, action, object)
            if refusal is not None:
                self._turn.refuse_request(session.address, subscribe, refusal, session.principal)
                return
        lack = self._lack(session, subscribe)
        if lack is not None:
            self._turn.refuse_request(session.address, subscribe, lack, session.principal)
            return
        if not self._begin(session, subscribe, start_seq):
            return
        if is_pattern:
            self._patterns.subscribe(session, subscribe, start_seq)
            return
        if subscribe.group is not None:
            self._opening.setdefault(subscribe.channel, set()).add(subscribe.group)
        mailbox = self._directory.mailboxes[session.bot_id]
        # The log itself opens a group's mailbox at its start; a bot's own mailbox goes back to it.
        own = subscribe.group is None and subscribe.channel not in self._directory.subscriptions_of(session.bot_id)
        if own and start_seq is not None:
            mailbox.sources.prepare(subscribe.channel, start_seq)
        wall = self._turn.moment.wall
        channel = self._directory.new_channel(subscribe.channel, wall, session.bot_id)
        self._founding.begin([channel])
        job = _SubscribeJob(self, session, subscribe, start_seq, channel=channel, mailbox=mailbox if own else None)
        self._batches.add(job)

    def _lack(self, session: Session, subscribe: Subscribe) -> Refusal | None:
        """Return which limit a subscription would exceed, or None."""
        patterns: dict[str, Any] = self._directory.patterns.of_bot(session.bot_id)
        by_name = self._directory.subscriptions_of(session.bot_id).values()
        own = patterns | {each.channel: each for each in by_name if each.pattern is None}
        channel, limits = subscribe.channel, self._limits
        share = self._shares.of(session.principal)
        if channel in own:
            return None
        open_or_changing = own.keys() | self._changing.get(session.bot_id, {}).keys() - {channel}
        if len(open_or_changing) >= share.subscriptions:
            text = f"bot {session.bot_name!r} has {amount(share.subscriptions, 'subscription')}, the maximum"
            return share.refusal("subscriptions", text)
        in_groups = sum(each.group is not None for each in own.values()) + len(open_or_changing - own.keys())
        if subscribe.group is not None and in_groups >= share.groups:
            return share.refusal(
                "groups", f"bot {session.bot_name!r} is in {amount(share.groups, 'group')}, the maximum"
            )
        if WILDCARD in channel:
            return None
        lack = self._founding.lack_of_channel(session.bot_id, channel, share)
        if lack is not None or subscribe.group is None:
            return lack
        entry = self._directory.channels.get(channel)
        groups = self._opening.get(channel, set()) | (set() if entry is None else entry.groups)
        if subscribe.group not in groups and len(groups) >= limits.groups_per_channel_max:
            return Refusal(
                Code.BUSY, f"channel {channel!r} has {amount(limits.groups_per_channel_max, 'group')}, the maximum"
            )
        return None

    def subscribed(self, session: Session, subscribe: Subscribe, answer: Subscribed, since: str) -> None:
        """Enter a subscription that is on disk, and answer the request."""
        known = self._directory.subscriptions_of(session.bot_id).get(subscribe.channel)
        if known is not None and known.pattern is not None and known.group == subscribe.group:
            self._directory.pass_on(session.bot_id, subscribe.channel, None)
        elif answer.created:
            of = (since, answer.start_seq, subscribe.echo, subscribe.group)
            self.matching.enter(Subscription(session.bot_id, subscribe.channel, *of))
            if session.principal is not None:  # its rights may have changed since it was checked
                self.pausing.look_at(session.bot_id)
        mailbox = self._directory.mailboxes[session.bot_id]
        mailbox.sources.dismiss(subscribe.channel)
        self.dispatch.touch(mailbox)
        self._answer(session, subscribe, answer)

    def not_subscribed(self, session: Session, subscribe: Subscribe) -> None:
        """Note that a subscription was not stored."""
        self._directory.mailboxes[session.bot_id].sources.dismiss(subscribe.channel)

    def _answer(self, session: Session, subscribe: Subscribe, subscribed: Subscribed) -> None:
        if subscribed.group != subscribe.group:
            known = self._directory.subscriptions_of(session.bot_id).get(subscribe.channel)
            pattern = None if known is None else known.pattern
            text = (
                f"bot {session.bot_name!r} is subscribed to {subscribe.channel!r} {manner(subscribed.group)}"
                f"{'' if pattern is None else f', by the pattern {pattern!r}'},"
                f" and cannot also be subscribed {manner(subscribe.group)}: unsubscribe"
                f" {'first' if pattern is None else 'from the pattern first'}"
            )
            self._turn.refuse(session.address, Code.CONFLICT, text, subscribe.request)
            return
        start = SubscriptionStart(
            subscribe.channel,
            subscribed.start_seq,
            created=subscribed.created,
            group=subscribed.group,
            retained=None if subscribed.retained is None else kept_message(subscribed.retained),
        )
        self._turn.answer(session.address, subscribe.request, start)

    def unsubscribe(self, session: Session, unsubscribe: Unsubscribe) -> None:
        """Write the end of a subscription."""
        if not self._begin(session, unsubscribe):
            return
        if WILDCARD in unsubscribe.channel:
            self._patterns.unsubscribe(session, unsubscribe)
            return
        self._batches.add(_UnsubscribeJob(self, session, unsubscribe))

    def end(self, session: Session, unsubscribe: Unsubscribe, *, removed: bool) -> None:
        """Answer that a subscription has ended, or that there was none."""
        self._turn.answer(session.address, unsubscribe.request, SubscriptionEnd(removed=removed))

    def begin_to_close(self, entry: ChannelEntry) -> bool:
        """Let no subscription to a channel change until `proceed_all`.

        Return False if a change is on its way, or if the channel is removed already.
        """
        channel = entry.channel.name
        there = self._directory.channels.get(channel) is entry
        if not there or any(channel in changing for changing in self._changing.values()):
            return False
        self._held[channel] = list(entry.subscriptions)
        for bot_id in self._held[channel]:
            self.change(bot_id, channel)
        self._directory.closing.add(channel)
        return True

    def proceed_all(self, channel: str) -> None:
        """Begin the changes that waited while a channel was to be removed."""
        self._directory.closing.discard(channel)
        for bot_id in self._held.pop(channel):
            self.proceed(bot_id, channel)

    def close_channel(self, channel: str) -> None:
        """Enter the end of a channel, with its subscriptions and groups, that is on disk."""
        entry = self._directory.channels[channel]
        for group in list(entry.groups):
            self.close_group(channel, group)
        for bot_id in list(entry.subscriptions):
            self.leave(bot_id, channel)
        self._directory.remove_channel(channel)

    def change(self, bot_id: str, channel: str) -> bool:
        """Begin a change that is not the bot's own: `proceed` ends it. Return False if one is under way."""
        changing = self._changing.setdefault(bot_id, {})
        if channel in changing:
            return False
        changing[channel] = deque()
        return True

    def leave(self, bot_id: str, channel: str) -> None:
        """Enter the end of a subscription that is on disk."""
        mailbox = self._directory.unsubscribe(bot_id, channel)
        self.matching.tell_ended(bot_id)
        self.dispatch.touch(mailbox)  # its dropped messages must be saved
        if mailbox.group is not None:
            for session in self._sessions.of_bot(bot_id):
                if mailbox.id in session.mailbox_ids:
                    self.dispatch.leave(session, mailbox, vanished=False)
                    self.dispatch.touch_session(session)

    def is_changing(self, bot_id: str) -> bool:
        """Return True if a subscription of a bot is on its way to the disk."""
        return bot_id in self._changing

    def forget_bot(self, bot: BotRecord) -> None:
        """Enter the end of a bot, which is hidden and has no session, that is on disk."""
        self.dispatch.forget(self._directory.remove_bot(bot))

    def sessions_of(self, bot_id: str) -> int:
        """Return how many sessions a bot has, with those that only ask."""
        return len(self._sessions.of_bot(bot_id, reading=True))

    def close_group(self, channel: str, group: str) -> None:
        """Enter the end of a group, with its members' subscriptions, that is on disk."""
        members = list(self._directory.channels[channel].subscriptions.items())
        left = [bot_id for bot_id, subscription in members if subscription.group == group]
        for bot_id in left:
            self.leave(bot_id, channel)
        self.dispatch.forget(self._directory.close_group(channel, group))
        for bot_id in left:
            self.matching.look_at(bot_id)

    def _begin(self, session: Session, request: Subscribe | Unsubscribe, start_seq: int | None = None) -> bool:
        """Begin a change of a subscription. Return False if it has to wait for another one.

        The number that may wait is limited like the requests held for a bot.
        """
        most, changing = self._limits.held_requests_max, self._changing.setdefault(session.bot_id, {})
        waiting = changing.get(request.channel)
        if waiting is None:
            changing[request.channel] = deque()
            return True
        if len(waiting) < most:
            waiting.append((session, request, start_seq))
        else:
            text = f"{most} changes of the subscription to {request.channel!r} are already waiting"
            self._turn.refuse(session.address, Code.BUSY, text, request.request)
        return False

    def refuse(self, session: Session, request: Subscribe | Unsubscribe, code: Code, message: str) -> None:
        """Answer that a change was not stored."""
        self._turn.refuse(session.address, code, message, request.request)

    def proceed(self, bot_id: str, channel: str) -> None:
        """Begin the next change of a subscription, now that the last one has an outcome."""
        waiting = self._end(bot_id, channel)
        while waiting:
            session, request, start_seq = waiting.popleft()
            if isinstance(request, Subscribe):
                self.subscribe(session, request, start_seq)
            else:
                self.unsubscribe(session, request)
            if channel in self._changing.get(bot_id, {}):
                self._changing[bot_id][channel].extend(waiting)
                return

    def _end(self, bot_id: str, channel: str) -> deque[_Waiting]:
        """End a change, and return those that wait for it."""
        changing = self._changing[bot_id]
        waiting = changing.pop(channel)
        if not changing:
            del self._changing[bot_id]
        return waiting

    def opened(self, subscribe: Subscribe) -> None:
        """Note that a group was opened, or that it was not."""
        groups = self._opening.get(subscribe.channel)
        if groups is not None and subscribe.group is not None:
            groups.discard(subscribe.group)
            if not groups:
                del self._opening[subscribe.channel]


class _SubscribeJob(Job[Subscribed]):
    """A new subscription, with the state of the mailbox that goes back to its start."""

    def __init__(
        self,
        subscribing: Subscribing,
        session: Session,
        subscribe: Subscribe,
        start_seq: int | None,
        *,
        channel: Channel,
        mailbox: Mailbox | None,
    ) -> None:
        since, bot_id, echo, group = channel.created_at, session.bot_id, subscribe.echo, subscribe.group
        super().__init__(
            changes=[AddSubscription(bot_id, channel.name, since, start_seq, echo, group, subscribe.retained)],
            channels=[channel],
            mailboxes=[] if mailbox is None else [mailbox],
        )
        self._subscribing = subscribing
        self._session = session
        self._subscribe = subscribe
        self._since = since

    def done(self, answers: Sequence[Subscribed], at: str) -> None:
        """Let it take effect."""
        self._subscribing.opened(self._subscribe)
        self._subscribing.subscribed(self._session, self._subscribe, answers[0], self._since)
        self._subscribing.proceed(self._session.bot_id, self._subscribe.channel)

    def failed(self, code: Code, message: str) -> None:
        """Discard it."""
        self._subscribing.opened(self._subscribe)
        self._subscribing.not_subscribed(self._session, self._subscribe)
        self._subscribing.refuse(self._session, self._subscribe, code, message)
        self._subscribing.proceed(self._session.bot_id, self._subscribe.channel)


class _UnsubscribeJob(Job[Any]):
    """The end of a subscription by name. If a pattern of the bot matches, the channel passes to that."""

    def __init__(self, subscribing: Subscribing, session: Session, unsubscribe: Unsubscribe) -> None:
        super().__init__()
        self._subscribing = subscribing
        self._session = session
        self._unsubscribe = unsubscribe
        self._passes_to: str | None = None
        self._joined: list[AddSubscription] = []

    def begin(self) -> None:
        """Find whom it passes to, now that it is about to be written."""
        bot_id, channel, matching = self._session.bot_id, self._unsubscribe.channel, self._subscribing.matching
        known, heir = matching.directory.subscriptions_of(bot_id).get(channel), matching.heir(bot_id, channel)
        if known is not None and known.pattern is None and heir is not None:
            if heir.group == known.group:
                self._passes_to = heir.pattern
            else:
                self._joined = [heir.of(channel, after_seq=matching.dispatch.last_seq)]
        self.changes = [RemoveSubscription(bot_id, channel, self._passes_to), *self._joined]

    def done(self, answers: Sequence[Any], at: str) -> None:
        """End the subscription."""
        bot_id, channel, matching = self._session.bot_id, self._unsubscribe.channel, self._subscribing.matching
        removed = bool(answers[0])
        if removed and self._passes_to is not None:
            matching.directory.pass_on(bot_id, channel, self._passes_to)
        elif removed:
            self._subscribing.leave(bot_id, channel)
            matching.enter_brought(self._joined, answers[1:])
        self._subscribing.end(self._session, self._unsubscribe, removed=removed)
        self._subscribing.proceed(bot_id, channel)

    def failed(self, code: Code, message: str) -> None:
        """Keep the subscription."""
        self._subscribing.refuse(self._session, self._unsubscribe, code, message)
        self._subscribing.proceed(self._session.bot_id, self._unsubscribe.channel)
