"""What a mailbox handed out and is not settled: where it is, until when, and which commits are about to settle it.

Owns the unsettled messages of one mailbox, and the queues in which those wait that nobody has: until they are due,
or for credit. What the mailbox is still to hand out the first time is not here.

Pure: time is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Set

from ..model.repository import MailboxState
from ..settings import Delivery
from ..wire.codec import delivery_ending
from .absent import Absent
from .deadlines import AckDeadlines
from .envelope import Envelope
from .losses import Losses
from .sessions import Session
from .unsettled import Unsettled, restored

__all__ = ["Outstanding"]


class Outstanding:
    """The part of a mailbox that knows what is out. `dirty` says that the state on disk is not this one."""

    losses: Losses

    def __init__(self, state: MailboxState, delivery: Delivery, *, group: str | None) -> None:
        self.id = state.mailbox_id
        self.group = group
        """The name of the group that shares the mailbox; None for a bot's own."""
        self.dirty = False
        self.sessions: list[Session] = []
        """Those whose credit it may use."""
        self.settling: dict[int, frozenset[int]] = {}
        """What commits on their way to the disk settle, by their numbers."""
        self._first = delivery_ending(1, group)
        self._delivery = delivery
        self._unsettled = {item.seq: restored(item) for item in state.unsettled}
        self._absent = Absent(self._unsettled, failures_max=delivery.max_deliver)
        waiting = (seq for seq, item in self._unsettled.items() if item.due_at is None)
        self._returned = sorted(seq for seq in waiting if seq not in self._absent)
        self._resting = [
            seq for seq, item in self._unsettled.items() if item.due_at is not None and seq not in self._absent
        ]
        """What rests since before the start; `hand_out` knows for how much longer."""
        self._delayed: list[tuple[float, int]] = []
        self._deadlines = AckDeadlines()

    @property
    def timed(self) -> bool:
        """Whether time that passes changes something."""
        return bool(self._absent) or (bool(self.sessions) and bool(self._deadlines or self._delayed))

    def has(self, seq: int) -> bool:
        """Return True if a message was handed out and is not settled."""
        return seq in self._unsettled

    # ── In flight ────────────────────────────────────────────────────────────────────────────────────────

    def _put_in_flight(self, envelope: Envelope, item: Unsettled, session: Session, deadline: float) -> bytes:
        """Note that a session has a message; return it as this mailbox delivers it."""
        item.attempt += 1
        item.due_at = None
        item.session = session
        item.deadline = deadline
        session.in_flight[envelope.seq] = self.id
        session.in_flight_bytes += len(envelope.wire)
        return envelope.wire + (self._first if item.attempt == 1 else delivery_ending(item.attempt, self.group))

    def extend(self, seq: int, now: float) -> None:
        """Restart the ack_wait of a message that is in flight."""
        self._unsettled[seq].deadline = now + self._delivery.ack_wait_seconds

    def _add_deadline(self, deadline: float, seqs: list[int]) -> None:
        if self._deadlines.are_many(len(self._unsettled)):
            in_flight = [(item.deadline, seq) for seq, item in self._unsettled.items() if item.session is not None]
            self._deadlines.replace(in_flight)
        self._deadlines.add(deadline, seqs)  # afterwards: these may not be in flight yet

    def _take_back(self, seq: int, item: Unsettled) -> None:
        session, envelope = item.session, item.envelope
        assert session is not None, "only what is in flight is taken back"
        del session.in_flight[seq]
        if session.express:
            session.express.discard(seq)
        if envelope is not None:  # None where a client held it since before this worker knew of it
            session.in_flight_bytes -= len(envelope.wire)
        item.session = None

    def _wait_no_more(self, seqs: Set[int]) -> None:
        """Remove messages from where they wait: one that comes by other means must not come by this as well."""
        self._returned = [seq for seq in self._returned if seq not in seqs]
        self._delayed = [(due, seq) for due, seq in self._delayed if seq not in seqs]
        self._resting = [seq for seq in self._resting if seq not in seqs]
        heapq.heapify(self._returned)
        heapq.heapify(self._delayed)
        for seq in seqs:
            self._absent.resume(seq)

    def _is_lost(self, seq: int) -> bool:
        item = self._unsettled.get(seq)
        return item is not None and item.session is None and item.envelope is None

    # ── Commits ──────────────────────────────────────────────────────────────────────────────────────────

    def prepare_to_settle(self, number: int, seqs: Iterable[int], now: float) -> None:
        """Note that a commit on its way to the disk, by its number, settles messages: their ack_wait restarts."""
        self.settling[number] = frozenset(seqs)
        for seq in self.settling[number]:
            self._unsettled[seq].deadline = now + self._delivery.ack_wait_seconds
        self.dirty = True

    def keep_unsettled(self, number: int) -> None:
        """Note that a commit was refused: what nobody has any more of what it would have settled comes again."""
        for seq in self.settling.pop(number):
            item = self._unsettled.get(seq)
            if item is not None and item.session is None and not self.is_settling(seq):
                heapq.heappush(self._returned, seq)

    def is_settling(self, seq: int) -> bool:
        """Return True while a commit that settles a message is on its way to the disk."""
        return any(seq in seqs for seqs in self.settling.values())

    # ── Clients that return ──────────────────────────────────────────────────────────────────────────────

    def come_back(self, client: str) -> bool:
        """Take back a client's failures by vanishing: it is back. Return True if there were any."""
        changed = False
        for seq in self._absent.take(client, self._unsettled):
            changed = self.dirty = True
            item = self._unsettled[seq]
            if item.failures < self._delivery.max_deliver and self._absent.resume(seq):
                if item.due_at is not None:
                    self._resting.append(seq)  # its last failure was a nak, whose delay holds
                else:
                    heapq.heappush(self._returned, seq)
        return changed

    @property
    def awaits_clients(self) -> bool:
        """Whether there are clients whose return takes something back."""
        return self._absent.clients > 0

    def confirm(self, client: str) -> None:
        """Keep a client's failures: it was there all the time, and too slow."""
        self._absent.confirm(client, self._unsettled)
        self.dirty = True

    def postpone(self, client: str) -> None:
        """Give up nothing that a client failed by vanishing: it is on its way back."""
        self._absent.postpone(client)

    def wait_anew(self) -> None:
        """Begin all waiting for clients that vanished anew."""
        self._absent.wait_anew()

    def keep(self, session: Session, seqs: Collection[int], now: float, *, earlier: Session | None) -> list[int]:
        """Put in flight for a client's new session what it has held since an earlier one; return what could be.

        What another session has by now cannot, nor what is being removed from the log, nor a dead letter that was
        put back and is to be delivered anew.
        """
        kept: list[int] = []
        for seq in seqs:
            item = self._unsettled[seq]
            if item.attempt > 0 and item.session in (None, earlier) and seq not in self.losses.losing:
                kept.append(seq)
        if not kept:
            return kept
        waiting = {seq for seq in kept if self._unsettled[seq].session is None}
        if waiting:
            self._wait_no_more(waiting)
        deadline = now + self._delivery.ack_wait_seconds
        for seq in kept:
            item = self._unsettled[seq]
            if item.session is not None:
                self._take_back(seq, item)
            item.due_at = None
            item.session = session
            item.deadline = deadline
            session.in_flight[seq] = self.id
            session.in_flight_bytes += 0 if item.envelope is None else len(item.envelope.wire)
        self._add_deadline(deadline, kept)
        self.dirty = True
        return kept

    def hand_over(self, seq: int, session: Session, now: float, wall: str) -> bytes | None:
        """Put a reply that did not arrive in a client's earlier session in flight for its new one.

        Returns the delivery; None where it is not to be delivered any more, and `detach` will do.
        """
        item = self._unsettled[seq]
        envelope = item.envelope
        if envelope is None or self.is_settling(seq) or envelope.is_expired(wall):
            return None
        self._take_back(seq, item)
        deadline = now + self._delivery.ack_wait_seconds
        session.express.add(seq)
        self._add_deadline(deadline, [seq])
        return self._put_in_flight(envelope, item, session, deadline)
