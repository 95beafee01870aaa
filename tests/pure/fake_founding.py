"""What a log in memory does with messages that name new channels: those of refused ones are not created."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus.model.repository import AddFirstMessages, Outcome, each

if TYPE_CHECKING:
    from .fake_log import FakeLog

__all__ = ["add_first"]


def add_first(log: FakeLog, change: AddFirstMessages) -> list[Outcome]:
    added = [log.add_lot(lot, change.timestamp) for lot in change.lots]
    log.keyed.retain(change.lots, added, change.timestamp)
    stored = {
        lot.recipient_channel
        for lot, outcome in zip(change.lots, added, strict=True)
        if any(not one.duplicate and (one.seq or one.scheduled) for one in each(lot, outcome))
    }
    for channel in change.channels:
        if channel.name in stored:
            log.channels.setdefault(channel.name, channel)
    for subscription in change.subscriptions:
        if subscription.channel in stored:
            log.subscribe(subscription)
    return added
