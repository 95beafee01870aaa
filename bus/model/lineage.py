"""Which earlier logs a log goes on from, and up to which seq it agrees with each of them.

A log that may assign seqs again gets a new epoch: it is a restored copy, or goes on beside another one. What it had
by then, it has in common with the log before. So whoever remembers a seq of an earlier log can tell whether it is
still that message, and where to go on.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["EarlierLog", "agreed_seq", "read_earlier", "written_earlier"]

_EARLIER_MAX = 100
"""The latest ones are kept. Whoever remembers a seq of one before those begins anew."""


class EarlierLog(msgspec.Struct, frozen=True):
    """A log that another one goes on from: up to `through_seq`, both have the same messages."""

    epoch: str
    through_seq: int


def read_earlier(text: str) -> tuple[EarlierLog, ...]:
    """Return what a store has written, the earliest log first.

    None are returned if it cannot be read: then readers get messages again, and miss none.
    """
    try:
        found = msgspec.json.decode(text, type=list[tuple[str, int]])
    except (msgspec.MsgspecError, UnicodeError):
        return ()
    return tuple(EarlierLog(epoch, seq) for epoch, seq in found)


def written_earlier(text: str, epoch: str, last_seq: int) -> str:
    """Return what to write when another log goes on from that of `epoch`, which ends at `last_seq`."""
    earlier = [(each.epoch, min(each.through_seq, last_seq)) for each in read_earlier(text)]
    return msgspec.json.encode([*earlier, (epoch, last_seq)][-_EARLIER_MAX:]).decode()


def agreed_seq(earlier: Sequence[EarlierLog], epoch: str) -> int:
    """Return up to which seq a log agrees with another one; 0 if it does not go on from that."""
    return next((each.through_seq for each in earlier if each.epoch == epoch), 0)
