"""What the worker tells on its channel for events, beside what it stores: as a check of each transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from bus.model.events import DeadLettersAdded, read_event
from bus.model.records import EVENTS_CHANNEL, WORKER_ID
from bus.model.repository import AddDeadLetters, AddMessages, Change, LogMessage

__all__ = ["telling_faults"]


def telling_faults(
    changes: Sequence[Change], written: Mapping[int, LogMessage], *, key: Callable[[str], str], wanted: bool
) -> Iterator[str]:
    """Report where somebody else tells of the worker, or dead letters are not told where they are stored.

    What happens to events is not told: but after a crash it is not known of all messages whether they are some.
    """
    stored, told = Counter[str](), Counter[str]()
    are_events = 0
    for change in changes:
        match change:
            case AddDeadLetters(dead_letters):
                for dead in dead_letters:
                    if written[dead.seq].recipient_channel == EVENTS_CHANNEL:
                        are_events += 1
                    else:
                        stored[key(dead.mailbox_id)] += 1
            case AddMessages(lots):
                for lot in (lot for lot in lots if lot.recipient_channel == EVENTS_CHANNEL):
                    if lot.sender_bot_id != WORKER_ID:
                        yield f"{lot.sender_bot_name} publishes on {EVENTS_CHANNEL}"
                    for event in (read_event(lot.message_type, msgspec.json.decode(each)) for each in lot.bodies):
                        if isinstance(event, DeadLettersAdded):
                            told[event.mailbox or ""] += event.dead_letters
    if told and not wanted:
        yield f"{told} was told, and nobody listens"
    if wanted and (stored - told or (told - stored).total() > are_events):
        yield f"the dead letters {stored} were told as {told}"
