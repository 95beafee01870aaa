"""What the checker expects of mailboxes: each bot is handed what it is owed, in order, until it settles it.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from .history import Final, Stored
from .ledger import Handed, Ledger, Settled
from .verdict import Fault, Rules

__all__ = [
    "delivered_twice",
    "delivery_order",
    "not_drained",
    "outside",
    "redelivered",
    "subscriptions",
    "undelivered",
]


def _owed(ledger: Ledger, final: Final) -> Iterator[tuple[str, Stored]]:
    bots: defaultdict[str, list[str]] = defaultdict(list)
    for bot, channel in ledger.timelines:
        bots[channel].append(bot)
    for message in final.messages:
        if message.channel is None:
            if message.to is not None:
                yield message.to, message
            continue
        for bot in bots[message.channel]:
            timeline = ledger.timeline(bot, message.channel)
            owed = timeline.is_owed(message.seq)
            if owed and (message.sender != bot or timeline.echoes(message.seq)):
                yield bot, message


def undelivered(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """What a bot is owed was delivered to it, and again until it settled it."""
    for bot, message in _owed(ledger, final):
        key = (bot, message.seq)
        if message.seq in final.dead_letters.get(bot, ()):
            continue
        target = "a direct one" if message.channel is None else f"on {message.channel!r}"
        what = f"message {message.id} (seq {message.seq}, {target})"
        if not ledger.deliveries[key]:
            yield "lost", f"{what} is in the log, and was never delivered to {bot}, who is owed it"
        elif not any(settled.call.index > ledger.deliveries[key][0].index for settled in ledger.settled[key]):
            last = ledger.deliveries[key][-1]
            yield "lost", f"{what} was last delivered to {bot} at {last.at} s, never settled, and came no more"


def delivery_order(ledger: Ledger) -> Iterator[Fault]:
    """First deliveries in one session come in the order of the log, but for a subscription that starts earlier."""
    last: dict[str, Handed] = {}
    for handed in ledger.handed:
        message = handed.message
        if message.attempt != 1:
            continue
        before = last.get(handed.session)
        if before is not None and message.seq < before.message.seq:
            from_the_past = message.channel is not None and ledger.timeline(
                handed.bot, message.channel
            ).started_early(handed.index)
            if not from_the_past:
                text = (
                    f"{handed.bot} was first handed seq {message.seq} at {handed.at} s, after seq"
                    f" {before.message.seq} in the same session"
                )
                yield "out_of_order", text
            continue
        last[handed.session] = handed


def redelivered(ledger: Ledger, rules: Rules) -> Iterator[Fault]:
    """Nothing comes again after a confirmed ack, nor in the session that acked it without waiting for that."""
    for key, settled in ledger.settled.items():
        for one in settled:
            again = _came_again(ledger, one, ledger.deliveries[key], rules)
            if again is not None:
                how = f"confirmed at {one.ends_at} s" if one.confirmed else f"sent at {one.ends_at} s"
                text = (
                    f"{key[0]} was handed seq {key[1]} again (attempt {again.message.attempt}) at {again.at} s,"
                    f" after its {one.how} was {how}"
                )
                yield "redelivered", text
                break


def _came_again(ledger: Ledger, settled: Settled, handed: Sequence[Handed], rules: Rules) -> Handed | None:
    """Give the delivery that must not have been, if there is one.

    An ack counts where the message had come in its session, and soon enough before: the worker ignores others.
    """
    before = [item for item in handed if item.session == settled.session and item.index < settled.call.index]
    if not before or settled.ends_at - before[-1].at > rules.sure_seconds:
        return None
    for item in handed:
        later = item.index > settled.call.ends if settled.confirmed else item.index > settled.call.index
        if not later or (item.session != settled.session and not settled.confirmed):
            continue
        channel = item.message.channel
        if channel is None or not ledger.timeline(item.bot, channel).wanted_again(
            settled.call.index, item.message.seq
        ):
            return item
    return None


def delivered_twice(ledger: Ledger) -> Iterator[Fault]:
    """What comes again in one session comes with a higher attempt, but for a subscription that starts earlier."""
    last: dict[tuple[str, int], Handed] = {}
    for handed in ledger.handed:
        message = handed.message
        before = last.get((handed.session, message.seq))
        last[handed.session, message.seq] = handed
        if before is None or message.attempt > before.message.attempt:
            continue
        channel = message.channel
        if channel is None or not ledger.timeline(handed.bot, channel).wanted_again(before.index, message.seq):
            text = f"{handed.bot} was handed seq {message.seq} at {before.at} s and at {handed.at} s in one session"
            yield "redelivered", f"{text}, each time as attempt {message.attempt}"


def outside(ledger: Ledger) -> Iterator[Fault]:
    """A channel's message goes to those who may be subscribed at that moment, and not to its sender."""
    for handed in ledger.handed:
        message = handed.message
        if message.channel is None:
            continue
        timeline = ledger.timeline(handed.bot, message.channel)
        what = f"{handed.bot} was handed seq {message.seq} of {message.channel!r} at {handed.at} s"
        if not timeline.may_come(handed.index, message.seq):
            yield "not_subscribed", f"{what}, outside of any subscription that it may have had"
        elif message.sender == handed.bot and not timeline.may_echo(handed.index, message.seq):
            yield "not_subscribed", f"{what}, which is its own, and never asked for an echo"


def subscriptions(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """The subscriptions at the end, and every answer on the way, are those that were acknowledged."""
    for (bot, channel), timeline in ledger.timelines.items():
        yield from (("subscriptions", fault) for fault in timeline.faults)
        stands = channel in final.subscriptions.get(bot, ())
        if stands not in timeline.possible:
            acknowledged = "ended" if stands else "begun"
            shown = "stands" if stands else "is gone"
            yield (
                "subscriptions",
                (f"{bot}'s subscription to {channel!r} was acknowledged as {acknowledged}, and {shown} at the end"),
            )
    for bot, channels in final.subscriptions.items():
        for channel in channels:
            if (bot, channel) not in ledger.timelines:
                yield "subscriptions", f"{bot} is subscribed to {channel!r} at the end, and never asked for it"


def not_drained(final: Final) -> Iterator[Fault]:
    """At the end every mailbox is empty."""
    for bot, waiting in final.backlogs.items():
        if waiting:
            yield "not_drained", f"{waiting} messages still wait for {bot} when nothing more is delivered to it"
