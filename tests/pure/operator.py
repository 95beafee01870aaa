"""What an operator of a simulated world erases and removes."""

from __future__ import annotations

import random

from bus.wire.removing_frames import (
    BotOf,
    ChannelOf,
    DeadLettersOf,
    DelayedMessage,
    DelayedOf,
    EraseFrame,
    GroupOf,
    MailboxOf,
    Removable,
    RemoveFrame,
    SubscriptionOf,
)

from .fake_log import FakeLog
from .promises import Promises

__all__ = ["any_erasure", "any_removal"]


def any_erasure(chance: random.Random, log: FakeLog) -> EraseFrame:
    """Return an erasure of some messages, mostly recent ones, and of some that are not due yet."""
    recent = list(log.messages)[-chance.choice([3, 30, 3000]) :]
    seqs = chance.sample(recent, min(len(recent), chance.randint(1, 3)))
    scheduled = [DelayedMessage(*key) for key in list(log.scheduled)[: chance.choice([0, 0, 0, 1])]]
    return EraseFrame(request=0, id="", seqs=seqs, delayed=scheduled)


def any_removal(chance: random.Random, promises: Promises, *, request: int, id: str) -> RemoveFrame:
    """Return a removal of something that is there."""
    what = _any_removable(chance, promises)
    force = chance.random() < (0.9 if isinstance(what, BotOf) else 0.5)  # nearly all of them have something
    return RemoveFrame(request=request, id=id, what=what, dry_run=chance.random() < 0.2, force=force)


def _any_removable(chance: random.Random, promises: Promises) -> Removable:
    """Return some dead letters of a mailbox, what waits in one, and other things."""
    delayed = list(promises.log.scheduled)
    if delayed and chance.random() < 0.2:
        id, sender_bot_id = chance.choice(delayed)
        return DelayedOf([id, "00000000-0000-7000-8000-ffffffffffff"], sender_bot_id)
    subscriptions, groups = [*promises.log.subscriptions, *promises.log.patterns], list(promises.log.groups)
    if subscriptions and chance.random() < 0.2:
        bot_id, channel = chance.choice(subscriptions)
        return SubscriptionOf(bot_id, channel)
    if promises.log.channels and chance.random() < 0.1:
        return ChannelOf(chance.choice(list(promises.log.channels)))
    if chance.random() < 0.3:
        return BotOf(chance.choice(list(promises.log.bots.values())).name)
    if groups and chance.random() < 0.2:
        return GroupOf(*chance.choice(groups))
    dead = list(promises.log.dead_letters)
    if dead and chance.random() < 0.6:
        mailbox_id, _ = chance.choice(dead)
        theirs = [seq for other, seq in dead if other == mailbox_id]
        seqs = chance.sample(theirs, chance.randint(1, len(theirs)))
        return DeadLettersOf(mailbox=promises.key(mailbox_id), seqs=[*seqs, 999_999])
    return MailboxOf(mailbox=promises.key(chance.choice(list(promises.log.mailboxes))))
