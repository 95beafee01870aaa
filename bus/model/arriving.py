"""What becomes of lots that are added to a log, whatever its backend.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from msgspec.structs import replace

from .changes import AddFirstMessages, AddMessages, Change, Committed, CommitWork, ReleaseDue, SaveMailbox
from .lots import Appended, Lot, Outcome, each, lots_of, outcome_of
from .run_changes import RecoverRuns, StartScheduled

__all__ = [
    "appended",
    "are_due",
    "are_plain",
    "fitting",
    "founding",
    "settled",
    "stored",
    "waits",
    "whole",
    "written",
]


def are_due(lots: Iterable[Lot]) -> bool:
    """Return True if messages are to be appended now, unless their sender used an id of theirs before."""
    return not any(lot.due_at or lot.known_only for lot in lots)


def are_plain(lots: Iterable[Lot]) -> bool:
    """Return True if, besides, there is nothing else to write for them."""
    return not any(lot.due_at or lot.known_only or lot.retain for lot in lots)


def appended(lots: Iterable[Lot], first_seq: int) -> list[Outcome]:
    """Return the outcomes of lots that were appended one after the other."""
    ends = accumulate(map(len, lots), initial=first_seq)
    return [Appended(seq, lot.tainted, lot.budget) for seq, lot in zip(ends, lots, strict=False)]


def whole(parts: Sequence[Lot], outcomes: Sequence[Outcome]) -> Outcome:
    """Return what became of a lot that was stored in parts."""
    if len(parts) == 1:
        return outcomes[0]
    return outcome_of([one for part, outcome in zip(parts, outcomes, strict=True) for one in each(part, outcome)])


def fitting(rows: Iterable[Any], bytes_max: int) -> list[int]:
    """Return the first numbers of rows (number, bytes) that fit into so many bytes, but at least one."""
    numbers: list[int] = []
    size_bytes = 0
    for number, row_bytes in rows:
        size_bytes += row_bytes
        if numbers and size_bytes > bytes_max:
            break
        numbers.append(number)
    return numbers


def waits(answer: Any) -> bool:
    """Return True if a change's answer says that a message waits until it is due."""
    outcomes = answer.added if isinstance(answer, Committed) else answer
    return isinstance(outcomes, list) and any(
        isinstance(outcome, list) and any(added.scheduled for added in outcome) for outcome in outcomes
    )


def settled(change: SaveMailbox, committed: Iterable[int]) -> SaveMailbox:
    """Return a mailbox's state without the messages settled by commits carried out in this transaction."""
    seqs = {seq for number in committed for seq in change.settled_by.get(number, ())}
    return SaveMailbox(change.state.without(seqs)) if seqs else change


def written(change: Change, answer: Any) -> Sequence[Lot]:
    """Return the lots of a client that were added by this change, or found to be there."""
    if isinstance(change, CommitWork):
        return change.lots if isinstance(answer, Committed) and answer.added is not None else ()
    return change.lots if isinstance(change, AddMessages | AddFirstMessages) else ()


def stored(change: Change, answer: Any) -> Sequence[Lot]:
    """Return the lots of which this change added something to the log."""
    match change:
        case AddMessages(lots) | AddFirstMessages(lots):
            return [lot for lot, outcome in zip(lots, answer, strict=True) if _is_any_new(outcome)]
        case ReleaseDue() | RecoverRuns() | StartScheduled():
            return lots_of(answer.messages)
        case CommitWork() if isinstance(answer, Committed) and answer.added is not None:
            return stored(AddMessages(change.lots, change.timestamp), answer.added)
        case _:
            return ()


def founding(change: AddFirstMessages, outcomes: Sequence[Outcome]) -> AddFirstMessages:
    """Return a change with all its messages, but only those channels on which one of them was stored."""
    names = {
        lot.recipient_channel for lot, outcome in zip(change.lots, outcomes, strict=True) if _is_any_kept(outcome)
    }
    channels = [channel for channel in change.channels if channel.name in names]
    if len(channels) == len(change.channels):
        return change
    subscriptions = [each for each in change.subscriptions if each.channel in names]
    return replace(change, channels=channels, subscriptions=subscriptions)


def _is_any_kept(outcome: Outcome) -> bool:
    return isinstance(outcome, Appended) or any(
        not added.duplicate and (added.seq is not None or added.scheduled) for added in outcome
    )


def _is_any_new(outcome: Outcome) -> bool:
    return isinstance(outcome, Appended) or any(added.seq is not None and not added.duplicate for added in outcome)
