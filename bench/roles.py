"""What a benchmark's clients are told and what they answer, whichever system they are clients of.

Owns these values, and nothing that is done with them. A producer, a consumer and an asker of any system take the
same orders over their pipe, so that one driver serves all.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain

import msgspec

from .messages import Tally

__all__ = ["Answered", "Order", "Paced", "Receiver", "Sender", "Taken", "Wanted"]


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """A bot that sends: its number, and whom its messages are for: a bot, or a channel."""

    bot: str
    number: int
    to: str
    is_channel: bool = False


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """A bot that receives: what is sent to it, or on a channel."""

    bot: str
    channel: str | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Send until the time is over or so many messages are acknowledged, for each sender.

    At most `window` messages are out without an answer; `portion` of them are handed to the client at once.
    """

    seconds: float = 0.0
    count: int = 1 << 60
    window: int = 1
    portion: int = 1


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """Send so many messages a second, whether or not they are answered (an open loop)."""

    rate: float
    seconds: float


class Answered(msgspec.Struct, kw_only=True):
    """What was sent and acknowledged; times are monotonic nanoseconds."""

    counts: list[int]
    """Messages of each sender, in the order of the senders."""
    began: int
    ended: int
    latencies: array[int]
    """From each portion's sending to its answer; for asking, from question to reply."""
    late: array[int] = msgspec.field(default_factory=lambda: array("q"))
    """How long after they were due messages were sent, where they were due at a time."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Receive and settle until each receiver has had so many messages, or until a monotonic time in nanoseconds."""

    counts: list[int]
    deadline: int


class Taken(msgspec.Struct, kw_only=True):
    """What came, each message counted once, and is settled for good."""

    counts: list[int]
    repeated: int
    out_of_order: int
    began: int
    """When the first message came."""
    ended: int
    latencies: array[int]

    @classmethod
    def of(cls, tallies: Sequence[Tally], ended: int) -> Taken:
        """Sum up what some receivers got, and let them begin anew."""
        taken = cls(
            counts=[len(tally) for tally in tallies],
            repeated=sum(tally.repeated for tally in tallies),
            out_of_order=sum(tally.out_of_order for tally in tallies),
            began=min((tally.first for tally in tallies if tally.first), default=ended),
            ended=ended,
            latencies=array("q", chain.from_iterable(tally.latencies for tally in tallies)),
        )
        for tally in tallies:
            tally.forget()
        return taken
