"""A mailbox's unsettled messages: where each is, until when, and which commits are about to settle it.

Owns the unsettled messages of one mailbox, and the queues of those that are not in flight: until they are due, or
for credit. Messages that wait for their first delivery are not here.

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
    """The unsettled part of a mailbox. `dirty` is True if the state on disk is out of date."""

    losses: Losses

    def __init__(self, state: MailboxState, delivery: Delivery, *, group: str | None) -> None:
        self.id = state.mailbox_id
        self.group = group
        """The name of the group that shares the mailbox; None for a bot's own."""
        self.dirty = False
        self.sessions: list[Session] = []
        """The sessions whose credit it may use."""
        self.settling: dict[int, frozenset[int]] = {}
        """The seqs that commits on their way to the disk settle, by commit number."""
        self._first = delivery_ending(1, group)
        self._delivery = delivery
        self._unsettled = {item.seq: restored(item) for item in state.unsettled}
        self._absent = Absent(self._unsettled, failures_max=delivery.max_deliver)
        waiting = (seq for seq, item in self._unsettled.items() if item.due_at is None)
        self._returned = sorted(seq for seq in waiting if seq not in self._absent)
        self._resting = [
            seq for seq, item in self._unsettled.items() if item.due_at is not None and seq not in self._absent
        ]
        """Messages with a `due_at` by the wall clock: restored at the start, or resumed after a nak.

        `hand_out` turns it into a delay.
        """
        self._delayed: list[tuple[float, int]] = []
        self._deadlines = AckDeadlines()

    @property
    def timed(self) -> bool:
        """Whether anything changes as time passes."""
        return bool(self._absent) or (bool(self.sessions) and bool(self._deadlines or self._delayed))

    def has(self, seq: int) -> bool:
        """Return True if a message was delivered and is not settled."""
        return seq in self._unsettled

    # ── In flight ────────────────────────────────────────────────────────────────────────────────────────

    def _put_in_flight(self, envelope: Envelope, item: Unsettled, session: Session, deadline: float) -> bytes:
        """Put a message in flight for a session; return it as this mailbox delivers it."""
        item.attempt += 1
        item.due_at = None
        item.session = session
        item.deadline = deadline
        session.in_flight[envelope.seq] = self.id
        session.in_flight_bytes += len(envelope.wire)
        return envelope.wire + (self._first if item.attempt == 1 else delivery_ending(item.attempt, self.group))

    def extend(self, seq: int, now: float) -> None:
        """Restart the ack_wait of a message in flight."""
        self._unsettled[seq].deadline = now + self._delivery.ack_wait_seconds

    def _add_deadline(self, deadline: float, seqs: list[int]) -> None:
        if self._deadlines.are_many(len(self._unsettled)):
            in_flight = [(item.deadline, seq) for seq, item in self._unsettled.items() if item.session is not None]
            self._deadlines.replace(in_flight)
        self._deadlines.add(deadline, seqs)  # last: these may not be in flight yet

    def _take_back(self, seq: int, item: Unsettled) -> None:
        session, envelope = item.session, item.envelope
        assert session is not None, "only a message in flight is taken back"
        del session.in_flight[seq]
        if session.express:
            session.express.discard(seq)
        if envelope is not None:  # None if a client held it since before a restart
            session.in_flight_bytes -= len(envelope.wire)
        item.session = None

    def _wait_no_more(self, seqs: Set[int]) -> None:
        """Remove messages from the queues in which they wait, so that they are not delivered twice."""
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
        """Note that commit `number`, on its way to the disk, settles messages; restart their ack_wait."""
        self.settling[number] = frozenset(seqs)
        for seq in self.settling[number]:
            self._unsettled[seq].deadline = now + self._delivery.ack_wait_seconds
        self.dirty = True

    def keep_unsettled(self, number: int) -> None:
        """Undo `prepare_to_settle` after a refusal: messages no longer in flight are redelivered."""
        for seq in self.settling.pop(number):
            item = self._unsettled.get(seq)
            if item is not None and item.session is None and not self.is_settling(seq):
                heapq.heappush(self._returned, seq)

    def is_settling(self, seq: int) -> bool:
        """Return True while a commit that settles a message is on its way to the disk."""
        return any(seq in seqs for seqs in self.settling.values())

    # ── Returning clients ────────────────────────────────────────────────────────────────────────────────

    def come_back(self, client: str) -> bool:
        """Undo the failures of a client that vanished and is back. Return True if there were any."""
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
        """Whether clients are away whose return would undo failures."""
        return self._absent.clients > 0

    def confirm(self, client: str) -> None:
        """Keep the failures of a client that was slow, not gone."""
        self._absent.confirm(client, self._unsettled)
        self.dirty = True

    def postpone(self, client: str) -> None:
        """Keep what a client failed by vanishing from being given up: it is on its way back."""
        self._absent.postpone(client)

    def wait_anew(self) -> None:
        """Restart all waits for clients that vanished."""
        self._absent.wait_anew()

    def keep(self, session: Session, seqs: Collection[int], now: float, *, earlier: Session | None) -> list[int]:
        """Put in flight for a client's new session what it holds since an earlier one; return the seqs that were.

        Not kept: what another session has by now, what is being removed from the log, and dead letters that were
        put back, which are delivered anew.
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
        """Put in flight for a client's new session a reply that did not arrive in its earlier one.

        Return the delivery, or None if it may not be delivered any more: `detach` handles it.
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
