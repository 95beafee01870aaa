"""What a mailbox delivers next, and to which of its sessions.

Its rules:

- Nothing is delivered while a purge is on its way to the disk.
- What has a higher priority is delivered first, and of one priority what is returned before anything new. If it
  must be read first, everything after it waits for that.
- Nothing new is delivered while many messages wait after a nak: they are part of the mailbox's stored state.
- What must not be delivered any more is dropped here: it expired, its channel was left, or it leaves the log.
- What one of the sessions has in flight from another mailbox is put off: a session settles a message by its seq.
  That can happen to a retried dead letter of a channel that a group of the bot has taken over.
- New messages are delivered in parcels, as far as credit and bytes allow; shared mailboxes take turns by message.

Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..model.priorities import PRIORITIES
from .lanes import Lane
from .parcel import Parcel
from .parts import Parts
from .sessions import Session
from .turns import HandedOut, Turns
from .unsettled import Abandoned

__all__ = ["Delivering"]

_PUT_OFF_SECONDS = 1.0


class Delivering:
    """Delivers from one mailbox, with whose parts it works; `apart` as in `Turns`."""

    def __init__(self, parts: Parts, *, ack_wait_seconds: float, delayed_max: int, apart: bool) -> None:
        self._parts = parts
        self._ack_wait_seconds = ack_wait_seconds
        self._delayed_max = delayed_max
        self._apart = apart
        self._expired: list[Abandoned] = []
        self._elsewhere: list[Mapping[int, str]] = []
        """What sessions with several mailboxes have in flight."""
        self._put_off_until = 0.0
        self._put_off_new: set[int] = set()
        """What was put off before its first delivery: nothing newer is delivered before it."""

    def __repr__(self) -> str:
        return f"<Delivering expired={len(self._expired)}>"

    def hand_out(self, sessions: Sequence[Session], now: float, wall: str) -> list[HandedOut]:
        """Put in flight what the sessions' credit allows; return each session's deliveries, in order.

        What has expired by the wall clock is passed over, and is found in `take_expired`.
        """
        if self._parts.sources.purging:
            return []
        self._parts.outstanding.release_due(now, wall)
        lanes = self._parts.sources.lanes
        if not (self._parts.outstanding.is_anything_returned or self._may_deliver_new or lanes):
            return []
        handed_out = [HandedOut(session, [], []) for session in sessions if session.free > 0]
        if not handed_out:
            return []
        self._elsewhere = [session.in_flight for session in sessions if len(session.mailbox_ids) > 1]
        self._put_off_until = now + _PUT_OFF_SECONDS
        deadline = now + self._ack_wait_seconds
        if len(handed_out) > 1:
            self._share_out(handed_out, deadline, wall)
        elif lanes or self._parts.outstanding.returned.prioritized:
            self._hand_out_by_priority(handed_out[0], deadline, wall)
        else:
            self._hand_out_to(handed_out[0], deadline, wall)
        seqs = [seq for handed in handed_out for seq in handed.seqs]
        if seqs:
            self._parts.outstanding.expect_settled(seqs, deadline)
        return [handed for handed in handed_out if handed.seqs]

    @property
    def _may_deliver_new(self) -> bool:
        """Whether there is something new, and what is returned was delivered: it may have to be read first."""
        outstanding = self._parts.outstanding
        if outstanding.is_anything_returned or not self._parts.intake or self._is_put_off:
            return False
        return outstanding.resting < self._delayed_max

    @property
    def _is_put_off(self) -> bool:
        """Whether something waits that was put off before its first delivery."""
        if self._put_off_new:
            self._put_off_new &= self._parts.outstanding.seqs  # the others were discarded
        return bool(self._put_off_new)

    def _hand_out_to(self, handed: HandedOut, deadline: float, wall: str) -> None:
        """Put in flight for one session what its credit allows."""
        session = handed.session
        while session.free > 0 and (seq := self._next_returned(wall)) is not None:
            handed.deliveries.append(self._parts.outstanding.redeliver(seq, session, deadline))
            handed.seqs.append(seq)
        if not self._may_deliver_new:
            return
        while (room := session.free) > 0:
            parcel = self._next_new(room, session.in_flight_bytes_max - session.in_flight_bytes, wall)
            if parcel is None:
                return
            handed.deliveries.append(self._parts.outstanding.deliver(parcel, session, deadline))
            handed.seqs.extend(parcel.seqs)

    def _hand_out_by_priority(self, handed: HandedOut, deadline: float, wall: str) -> None:
        """Do the same where some of it is prioritized."""
        session = handed.session
        while (room := session.free) > 0:
            found = self._next(room, session.in_flight_bytes_max - session.in_flight_bytes, wall)
            if found is None:
                return
            if isinstance(found, Parcel):
                handed.deliveries.append(self._parts.outstanding.deliver(found, session, deadline))
                handed.seqs.extend(found.seqs)
            else:
                handed.deliveries.append(self._parts.outstanding.redeliver(found, session, deadline))
                handed.seqs.append(found)

    def _share_out(self, handed_out: Sequence[HandedOut], deadline: float, wall: str) -> None:
        """Put each message in flight for the session whose turn it is."""
        by_session = {handed.session: handed for handed in handed_out}
        turns = Turns(list(by_session), apart=self._apart)
        while turns:
            found = self._next(1, 1, wall)
            if found is None:
                return
            if isinstance(found, Parcel):
                session, seq = turns.take(found.envelope.sender_bot_id), found.seqs[0]
                deliveries = self._parts.outstanding.deliver(found, session, deadline)
            else:
                session, seq = turns.take(self._parts.outstanding.sender_of(found)), found
                deliveries = self._parts.outstanding.redeliver(seq, session, deadline)
            by_session[session].deliveries.append(deliveries)
            by_session[session].seqs.append(seq)
            turns.give_back(session)

    def _next(self, messages_max: int, bytes_max: int, wall: str) -> int | Parcel | None:
        """Remove and return what is delivered next: what is returned, or new; None if it must be read first.

        Nothing of a lower priority is delivered while something of a higher one waits that may be.
        """
        parts = self._parts
        for priority in sorted(PRIORITIES.values(), reverse=True) if self._is_prioritized else (0,):
            seq = self._next_returned(wall, priority)
            if seq is not None:
                return seq
            first = parts.outstanding.returned.first
            if first is not None and first[1] >= priority:
                return None
            if parts.outstanding.resting >= self._delayed_max:
                continue
            if priority:
                lane = parts.sources.lanes.get(priority)
                parcel = None if lane is None else self._next_new(messages_max, bytes_max, wall, lane)
                waits = lane is not None and lane.waits
            else:
                parcel = None if self._is_put_off else self._next_new(messages_max, bytes_max, wall)
                waits = self._is_put_off or not parts.intake.idle
            if parcel is not None or waits:
                return parcel
        return None

    @property
    def _is_prioritized(self) -> bool:
        return bool(self._parts.sources.lanes) or self._parts.outstanding.returned.prioritized > 0

    def _next_returned(self, wall: str, priority: int = -1) -> int | None:
        """Remove and return what is to be redelivered next; None if nothing is, or if it must be read first.

        It has at least that priority. What must not be delivered any more is dropped.
        """
        outstanding, losing = self._parts.outstanding, self._parts.losses.losing
        while (first := outstanding.returned.first) is not None and first[1] >= priority:
            seq = first[0]
            item = outstanding.get(seq)
            assert item is not None, "what is returned is unsettled"
            if seq in losing:
                outstanding.take_returned()
                outstanding.withhold(seq)
                continue
            if item.envelope is None:
                return None
            outstanding.take_returned()
            if (self._elsewhere and self._is_elsewhere(seq)) or self._comes_later(seq):
                self._put_off(seq)
                continue
            if self._parts.sources.is_paused(item.envelope.channel):
                outstanding.withhold(seq)
                continue
            self._put_off_new.discard(seq)
            wanted = item.retried or self._parts.sources.still_wants(seq, item.envelope.channel)
            if wanted and not item.envelope.is_expired(wall):
                return seq
            outstanding.discard((seq,))
            if wanted:
                self._expire(seq, item.attempt, item.envelope.channel)
        return None

    def _next_new(self, messages_max: int, bytes_max: int, wall: str, lane: Lane | None = None) -> Parcel | None:
        """Remove and return the next first deliveries, of a lane or of all others; None if none is in memory.

        What must not be delivered any more is dropped. The last message may exceed the limit in bytes.
        """
        outstanding, sources, losing = self._parts.outstanding, self._parts.sources, self._parts.losses.losing
        intake, ahead = (self._parts.intake, sources.ahead) if lane is None else (lane.intake, sources.lanes.early)
        while (lane is not None or not self._put_off_new) and (
            parcel := intake.next(messages_max, bytes_max)
        ) is not None:
            if lane is None:
                sources.advance(parcel.seqs[-1])
            else:
                sources.hand_out(lane, parcel.seqs)
            # Some may have been delivered since they were read: as awaited replies, or as dead letters.
            if not (outstanding.seqs.isdisjoint(parcel.seqs) and ahead.isdisjoint(parcel.seqs)):
                parcel = parcel.without(outstanding.seqs, ahead)
            if parcel.envelope.channel is None:
                self._parts.backlog.went(parcel.envelope.sender_bot_id, len(parcel))
            if losing:
                staying = {seq for seq in parcel.seqs if seq not in losing}
                self._keep_back(parcel.without(staying), outstanding.withhold)
                parcel = parcel.without(losing)
            if self._elsewhere and (first := next(filter(self._is_elsewhere, parcel.seqs), None)) is not None:
                waiting = {seq for seq in parcel.seqs if seq >= first}
                self._put_off_new |= waiting
                self._keep_back(parcel.without(set(parcel.seqs) - waiting), self._put_off)
                parcel = parcel.without(waiting)
            if parcel.envelope.is_expired(wall):
                for seq in parcel.seqs:
                    self._expire(seq, 0, parcel.envelope.channel)
            elif len(parcel):
                return parcel
        return None

    def _keep_back(self, parcel: Parcel, move: Callable[[int], None]) -> None:
        self._parts.outstanding.take_new(parcel)
        for seq in parcel.seqs:
            move(seq)

    def _put_off(self, seq: int) -> None:
        self._parts.outstanding.put_off(seq, self._put_off_until)

    def _comes_later(self, seq: int) -> bool:
        """Return True if a message was put off before its first delivery, as was an earlier one."""
        return seq in self._put_off_new and seq > min(self._put_off_new)

    def _is_elsewhere(self, seq: int) -> bool:
        return any(seq in in_flight for in_flight in self._elsewhere)

    def _expire(self, seq: int, attempts: int, channel: str | None) -> None:
        abandoned = self._parts.abandon(seq, "expired", attempts, channel)
        if abandoned is not None:
            self._expired.append(abandoned)

    def take_expired(self) -> list[Abandoned]:
        """Return what expired since the last time."""
        expired, self._expired = self._expired, []
        return expired
