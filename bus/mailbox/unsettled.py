"""What a mailbox keeps of an unsettled message, and the places where it can be.

Owns the places and the moves between them, as data. `outstanding` makes the moves.

Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from ..model.records import later
from ..model.repository import UnsettledState
from ..settings import Delivery
from .parcel import Envelope, id_of
from .sessions import Session
from .sources import DIRECT

__all__ = ["MOVES", "WAITING", "Abandoned", "MessagePlace", "Unsettled", "restored"]


class MessagePlace(enum.StrEnum):
    """Where an unsettled message is: in exactly one place, except briefly during a delivery."""

    IN_FLIGHT = "in flight"
    """A session has it."""
    RETURNED = "returned"
    """It is delivered next, before anything new."""
    DELAYED = "delayed"
    """It is returned at a time of the monotonic clock."""
    RESTING = "resting"
    """It is delayed by the wall clock; the remaining time is computed at the next delivery."""
    SUSPENDED = "suspended"
    """It failed for the last time, but a client that failed it by vanishing may still return."""
    WITHHELD = "withheld"
    """It is being removed from the log, or its channel is paused, and its turn came meanwhile."""
    SETTLING = "settling"
    """No session has it, and a commit on its way to the disk settles it."""


_P = MessagePlace
MOVES: Mapping[MessagePlace | None, frozenset[MessagePlace | None]] = {
    #                      by (None: not, or no longer, an unsettled message)
    None: frozenset(
        {
            _P.IN_FLIGHT,  # deliver: for the first time; redeliver: after take_returned
            _P.WITHHELD,  # withhold: likewise
            _P.RETURNED,  # revive: a dead letter is retried; remember: a client holds it
            _P.DELAYED,  # put_off: a session has it from another mailbox
        }
    ),
    _P.IN_FLIGHT: frozenset(
        {
            None,  # settle, discard; give_back: failed for the last time
            _P.IN_FLIGHT,  # keep, redeliver: for the client's next session
            _P.DELAYED,  # give_back
            _P.SUSPENDED,  # give_back: the last failure, perhaps
            _P.SETTLING,  # leave_to_commit: its session ended
        }
    ),
    _P.RETURNED: frozenset({None, _P.IN_FLIGHT}),  # take_returned, discard; keep
    _P.DELAYED: frozenset({None, _P.IN_FLIGHT, _P.RETURNED}),  # discard; keep; release_due
    _P.RESTING: frozenset({None, _P.DELAYED}),  # discard; release_due
    _P.SUSPENDED: frozenset(
        {
            None,  # discard; given_up: the client stayed away
            _P.IN_FLIGHT,  # keep
            _P.RETURNED,  # come_back
            _P.RESTING,  # come_back: its last failure was a nak, whose delay holds
        }
    ),
    _P.WITHHELD: frozenset({None, _P.RETURNED}),  # discard; release_withheld
    _P.SETTLING: frozenset({None, _P.IN_FLIGHT, _P.RETURNED}),  # settle_committed; keep; keep_unsettled
}
"""The moves, by the methods of `outstanding.Outstanding` that make them."""

WAITING = frozenset({_P.RETURNED, _P.DELAYED, _P.RESTING, _P.WITHHELD})
"""The places in which no client can have a message, and from which it is delivered again."""


class Abandoned(msgspec.Struct, frozen=True):
    """A message that the mailbox gave up on."""

    seq: int
    reason: str
    attempts: int
    channel: str | None
    """The channel that it came by; None for a direct message, or if it is unknown."""


class Unsettled(msgspec.Struct, gc=False, eq=False):
    """A message that was delivered, or put back, and is not settled.

    Messages that were delivered together the first time *share* one, until what happens to one of them differs.
    """

    attempt: int
    failures: int
    envelope: Envelope | None
    """None while the message is only in the store."""
    place: MessagePlace | None = None
    session: Session | None = None
    """The session for which it is in flight."""
    since: float = 0.0
    """When that session got it."""
    deadline: float = 0.0
    """When its `ack_wait` is over while it is in flight, and when it is due while it is delayed."""
    due_at: str | None = None
    """When a nak's delay ends, by the wall clock; it lasts at most `delay` seconds."""
    delay: float = 0.0
    source: str | None = None
    """The channel that it came by, "" for a direct message, while `envelope` is None; None if unknown."""
    retried: bool = False
    """Whether it was a dead letter: it is then delivered even if its channel has been left."""
    vanished: tuple[str, ...] = ()
    """The clients that failed it by vanishing, one per failure. A client's return undoes its failures."""
    reply_id: str | None = None
    """The message that used the right to reply to this one, if somebody needed that right."""
    shared: bool = False
    identity: tuple[str, str] | None = None
    """Its sender and its id, while it is in flight and its text is not in memory."""
    priority: int = 0
    """As far as that is known, while `envelope` is None."""
    unseen: bool = False
    """Whether it was put in flight and never sent, as far as is known: no client can have it."""

    def begin(self, deadline: float, delivery: Delivery) -> None:
        """Note that it is in flight from now on, until a deadline."""
        self.since, self.deadline = deadline - delivery.ack_wait_seconds, deadline

    def forget_failures(self) -> None:
        """Count it as if it had never failed."""
        self.failures, self.vanished = 0, ()

    def may_be_kept(self, earlier: Session | None) -> bool:
        """Return True if a client that comes back may keep it: it was in its `earlier` session, or nobody has it.

        It may not keep what rests after a nak, whose delay holds, what was never sent, nor a dead letter that is to
        be delivered anew.
        """
        rests = self.due_at is not None and self.place in (MessagePlace.DELAYED, MessagePlace.RESTING)
        return self.attempt > 0 and self.session in (None, earlier) and not (rests or self.unseen)

    @property
    def channel(self) -> str | None:
        """The channel that it came by, as far as is known in memory; None for a direct message."""
        return (self.source or None) if self.envelope is None else self.envelope.channel

    @property
    def rank(self) -> int:
        """Its priority, as far as that is known in memory."""
        return self.priority if self.envelope is None else self.envelope.priority

    def is_of(self, channel: str) -> bool:
        """Return True if it came by a channel, as far as is known in memory."""
        return not self.retried and self.channel == channel

    def unload(self) -> None:
        """Note that the message is only in the store now, and keep the channel that it came by."""
        if self.envelope is not None:
            self.source, self.priority = self.envelope.channel or DIRECT, self.envelope.priority
            self.envelope = None

    def forget_text(self, wire: bytes) -> None:
        """Note that the message is only in the store now, even if it is in flight, and where it came from."""
        if self.session is not None and self.envelope is not None:
            self.identity = (self.envelope.sender_bot_id, id_of(wire))
            self.session.in_flight_bytes -= len(wire)
        self.unload()

    def rest(self, wall: str, delay: float) -> None:
        """Note, for a restart of the worker, a delay that begins at a time of the wall clock."""
        self.due_at, self.delay = later(wall, delay), delay

    def saved(self, seq: int) -> UnsettledState:
        """Return what is stored of it."""
        return UnsettledState(
            seq, self.attempt, self.failures, self.due_at, self.delay, self.retried, self.vanished, self.rank
        )


def restored(item: UnsettledState) -> Unsettled:
    """Return an unsettled message as it was stored, without its contents."""
    return Unsettled(
        item.attempt,
        item.failures,
        None,
        due_at=item.due_at,
        delay=item.delay,
        retried=item.retried,
        vanished=item.vanished,
        priority=item.priority,
    )
