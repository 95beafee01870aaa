"""What the checker expects of mailboxes: each bot is handed what it is owed, in order, until it settles it.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from .history import Final, Stored
from .ledger import Handed, Ledger, Settled
from .verdict import Fault

__all__ = [
    "delivered_twice",
    "delivery_order",
    "is_late",
    "not_drained",
    "outside",
    "redelivered",
    "subscriptions",
    "undelivered",
]


def _owed(ledger: Ledger, final: Final) -> Iterator[tuple[str, Stored]]:
    bots: defaultdict[str, list[str]] = defaultdict(list)
    for (bot, channel), timeline in ledger.timelines.items():
        if not timeline.in_group:
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
        for mailbox, group in ledger.groups.items():
            if group.channel == message.channel and group.is_owed(message.seq):
                yield mailbox, message


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
        elif not any(
            settled.how != "term" and settled.call.index > ledger.deliveries[key][0].index
            for settled in ledger.settled[key]
        ):
            last = ledger.deliveries[key][-1]
            text = f"{what} was last delivered to {bot} at {last.at} s, never settled, and came no more"
            yield "lost", f"{text}; nor is it a dead letter" if ledger.settled[key] else text


def delivery_order(ledger: Ledger) -> Iterator[Fault]:
    """First deliveries in one session come in the order of the log, but for a subscription that starts earlier.

    That is so within each priority. Replies that are waited for come ahead, and dead letters that were put back are
    delivered as if never before.
    """
    last: dict[tuple[str, str, str], Handed] = {}
    for handed in ledger.handed:
        message = handed.message
        if message.attempt != 1 or message.reply_to in ledger.asked or ledger.retries[handed.mailbox, message.seq]:
            continue
        key = (handed.session, handed.mailbox, message.priority)
        before = last.get(key)
        if before is not None and message.seq < before.message.seq:
            own = message.channel is not None and message.group is None
            if not own or not ledger.timeline(handed.bot, message.channel or "").started_early(handed.index):
                text = (
                    f"{handed.bot} was first handed seq {message.seq} at {handed.at} s, after seq"
                    f" {before.message.seq} in the same session"
                )
                yield "out_of_order", text
            continue
        last[key] = handed


def redelivered(ledger: Ledger) -> Iterator[Fault]:
    """Nothing comes again after an ack that is on disk, nor in the session that acked it unconfirmed."""
    for key, settled in ledger.settled.items():
        for one in settled:
            again = _came_again(ledger, one, ledger.deliveries[key])
            if again is not None:
                how = f"confirmed at {one.ends_at} s" if one.confirmed else f"sent at {one.ends_at} s"
                text = (
                    f"{key[0]} was handed seq {key[1]} again (attempt {again.message.attempt}) at {again.at} s,"
                    f" after its {one.how} was {how}"
                )
                yield "redelivered", text
                break


def _came_again(ledger: Ledger, settled: Settled, handed: Sequence[Handed]) -> Handed | None:
    """Give the delivery that must not have been, if there is one."""
    came = ledger.settles(settled)
    if came is None:
        return None
    for item in handed:
        if is_late(ledger, item, came, settled.session):
            continue
        at_once = not settled.confirmed and item.session == settled.session and item.index > settled.call.index
        for_good = settled.on_disk is not None and item.index > settled.on_disk
        if (at_once or for_good) and not ledger.anew(item, settled.call.index):
            return item
    return None


def is_late(ledger: Ledger, handed: Handed, came: Handed, session: str) -> bool:
    """Return True if a delivery was on its way when another one was settled in a session.

    It came from a worker that was dead or replaced by then, or an earlier attempt was sent to another session.
    """
    return ledger.is_older(handed.session, session) or _was_on_its_way(ledger, handed, came)


def _was_on_its_way(ledger: Ledger, handed: Handed, came: Handed) -> bool:
    """Tell whether a delivery was sent before another one, to a session that had begun by then.

    A cable that is put in again brings what was sent before it was pulled; its earlier attempt says so.
    """
    hello = ledger.sessions.get(handed.session)
    other = handed.session != came.session and handed.message.attempt < came.message.attempt
    return other and hello is not None and hello.index < came.index


def delivered_twice(ledger: Ledger) -> Iterator[Fault]:
    """What comes again in one session comes with a higher attempt, but for a subscription that starts earlier."""
    last: dict[tuple[str, int], Handed] = {}
    for handed in ledger.handed:
        message = handed.message
        before = last.get((handed.session, message.seq))
        last[handed.session, message.seq] = handed
        if before is None or message.attempt > before.message.attempt:
            continue
        if not ledger.anew(handed, before.index):
            text = f"{handed.bot} was handed seq {message.seq} at {before.at} s and at {handed.at} s in one session"
            yield "redelivered", f"{text}, each time as attempt {message.attempt}"


def outside(ledger: Ledger) -> Iterator[Fault]:
    """A channel's message goes to those who may be subscribed at that moment, and not to its sender."""
    for handed in ledger.handed:
        message = handed.message
        if message.channel is None:
            continue
        timeline, hello = ledger.timeline(handed.bot, message.channel), ledger.sessions.get(handed.session)
        what = f"{handed.bot} was handed seq {message.seq} of {message.channel!r} at {handed.at} s"
        if ledger.retries[handed.mailbox, message.seq]:
            continue  # a dead letter of a channel that was left
        if not timeline.may_come(handed.index, message.seq, hello):
            yield "not_subscribed", f"{what}, outside of any subscription that it may have had"
        elif handed.mailbox != handed.bot:
            group = ledger.groups.get(handed.mailbox)
            if group is None or not group.may_come(handed.index, message.seq):
                yield "not_subscribed", f"{what}, by the group {handed.mailbox}, which has not begun by then"
        elif message.sender == handed.bot and not timeline.may_echo(handed.index, message.seq, hello):
            yield "not_subscribed", f"{what}, which is its own, and never asked for an echo"


def subscriptions(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """The subscriptions at the end, and every answer on the way, are those that were acknowledged."""
    created = {message.channel for message in final.messages}
    for (bot, channel), timeline in ledger.timelines.items():
        yield from (("subscriptions", fault) for fault in timeline.faults)
        stands = channel in final.subscriptions.get(bot, ())
        nowhere = (bot, channel) in ledger.by_patterns and channel not in created
        if stands not in timeline.possible and not nowhere:
            acknowledged = "ended" if stands else "begun"
            shown = "stands" if stands else "is gone"
            yield (
                "subscriptions",
                (f"{bot}'s subscription to {channel!r} was acknowledged as {acknowledged}, and {shown} at the end"),
            )
    for group in ledger.groups.values():
        yield from (("subscriptions", fault) for fault in group.faults)
    for bot, channels in final.subscriptions.items():
        for channel in channels:
            if (bot, channel) not in ledger.timelines:
                yield "subscriptions", f"{bot} is subscribed to {channel!r} at the end, and never asked for it"


def not_drained(final: Final) -> Iterator[Fault]:
    """At the end every mailbox is empty."""
    for bot, waiting in final.backlogs.items():
        if waiting:
            yield "not_drained", f"{waiting} messages still wait for {bot} when nothing more is delivered to it"
