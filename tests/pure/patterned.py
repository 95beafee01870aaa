"""What subscriptions to patterns promise, as the log has to have it after each transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bus.model.patterns import ChannelPattern
from bus.model.repository import AddSubscription, LogMessage, Subscription

from .fake_log import FakeLog

__all__ = ["Brought", "changed_by_patterns", "left_out", "owed_by_patterns"]


class Brought:
    """What patterns brought: each subscription as its pattern is, from where the pattern or the channel begins."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self._look()

    def _look(self) -> None:
        self._subscriptions, self._patterns = set(self._log.subscriptions), set(self._log.patterns)
        self._channels, self._last_seq = set(self._log.channels), self._log.last_seq

    def faults(self, written: Mapping[int, LogMessage]) -> Iterator[str]:
        """Yield which subscriptions of the last transaction are not what their patterns promise."""
        for key, each in self._log.subscriptions.items():
            pattern = self._log.patterns.get((each.bot_id, each.pattern or ""))
            if pattern is None or key in self._subscriptions:
                continue
            if (each.echo, each.group) != (pattern.echo, pattern.group):
                yield f"{each} was brought by {pattern}"
            if each.channel not in self._channels:
                new = range(max(self._last_seq, pattern.start_seq) + 1, each.start_seq + 1)
                if any(written[seq].recipient_channel == each.channel for seq in new if seq in written):
                    yield f"{each} begins after the first message of its channel"
                continue
            is_new = (pattern.bot_id, pattern.pattern) not in self._patterns
            if is_new and each.group is None and each.start_seq != pattern.start_seq:
                yield f"{each} does not begin where {pattern} does"
        self._look()


def left_out(log: FakeLog) -> Iterator[str]:
    """Report bots that do not have a channel that one of their patterns matches."""
    for bot_id, pattern in log.patterns:
        for channel in log.channels:
            if ChannelPattern(pattern).matches(channel) and (bot_id, channel) not in log.subscriptions:
                yield f"{bot_id} is subscribed to {pattern!r}, and not to {channel!r}"
    for (bot_id, channel), each in log.subscriptions.items():
        if each.pattern is not None and (bot_id, each.pattern) not in log.patterns:
            yield f"{bot_id} has {channel!r} by the pattern {each.pattern!r}, to which it is not subscribed"


def owed_by_patterns(log: FakeLog, channel: str) -> list[Subscription]:
    """Return the subscriptions to a channel that came by a pattern."""
    return [each for each in log.subscriptions.values() if each.channel == channel and each.pattern is not None]


def changed_by_patterns(
    log: FakeLog, interests: dict[tuple[str, str], Subscription], name: Callable[[str], str]
) -> list[AddSubscription]:
    """Remove interests that ended, and return those that began without a change that names them."""
    stands = {(name(each.bot_id), each.channel): each for each in log.subscriptions.values()}
    for key in interests.keys() - stands.keys():
        del interests[key]
    return [
        AddSubscription(each.bot_id, each.channel, each.subscribed_at, each.start_seq, each.echo, each.group)
        for key, each in stands.items()
        if key not in interests or not _is_same(interests[key], each)
    ]


def _is_same(one: Subscription, other: Subscription) -> bool:
    return (one.start_seq, one.echo, one.group) == (other.start_seq, other.echo, other.group)
