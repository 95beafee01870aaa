"""The unsettled messages of one mailbox: where each one is, and which commits are about to settle it.

A state machine: `unsettled.MessagePlace` names the places, and `unsettled.MOVES` the moves between them. The place
determines which container holds a message's seq:

    place       container
    ---------   ------------------------------------------------------
    in flight   its session's `in_flight`, with a deadline
    returned    `_returned`, a heap by seq
    delayed     `_delayed`, a heap by the time at which it is due
    resting     `_resting`
    suspended   `_absent`
    withheld    `_withheld`
    settling    `_settling`, by the number of the commit

A message in flight may also be in `_settling`. Until that commit is on disk or was refused, it is neither given up
nor returned.

`mailbox` decides which messages are delivered, and what follows when one is settled or given up.

Pure: time is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, KeysView

from ..model.records import parse_timestamp
from ..model.repository import UnsettledState
from ..settings import Delivery
from ..wire.codec import delivery_ending
from .absent import Absent
from .deadlines import AckDeadlines
from .envelope import Envelope
from .sessions import Session
from .unsettled import MOVES, MessagePlace, Unsettled, restored

__all__ = ["Outstanding"]


class Outstanding:
    """See the module. `dirty` is True if the state on disk is out of date."""

    def __init__(
        self, mailbox_id: str, unsettled: Iterable[UnsettledState], delivery: Delivery, *, group: str | None
    ) -> None:
        self.dirty = False
        self._mailbox_id = mailbox_id
        self._group = group
        self._delivery = delivery
        self._first_ending = delivery_ending(1, group)
        self._items = {item.seq: restored(item) for item in unsettled}
        self._absent = Absent(self._items, failures_max=delivery.max_deliver)
        for seq, item in self._items.items():
            waiting = MessagePlace.RETURNED if item.due_at is None else MessagePlace.RESTING
            item.place = MessagePlace.SUSPENDED if seq in self._absent else waiting
        self._returned = sorted(seq for seq, item in self._items.items() if item.place is MessagePlace.RETURNED)
        self._resting = [seq for seq, item in self._items.items() if item.place is MessagePlace.RESTING]
        self._delayed: list[tuple[float, int]] = []
        self._withheld: list[int] = []
        self._settling: dict[int, frozenset[int]] = {}
        self._deadlines = AckDeadlines()

    def __repr__(self) -> str:
        return f"<Outstanding {len(self)} returned={len(self._returned)} delayed={len(self._delayed)}>"

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, seq: int) -> bool:
        return seq in self._items

    def get(self, seq: int) -> Unsettled | None:
        """Return an unsettled message, or None."""
        return self._items.get(seq)

    def items(self) -> Iterator[tuple[int, Unsettled]]:
        """Yield the unsettled messages with their seqs."""
        return iter(self._items.items())

    @property
    def seqs(self) -> KeysView[int]:
        """The seqs of the unsettled messages."""
        return self._items.keys()

    @property
    def timed(self) -> bool:
        """Whether a deadline or a delay is running here."""
        return bool(self._deadlines or self._delayed)

    @property
    def suspends(self) -> bool:
        """Whether a message waits for clients to return before it is given up."""
        return bool(self._absent)

    @property
    def is_anything_returned(self) -> bool:
        """Whether a message is to be delivered before anything new."""
        return bool(self._returned)

    # ── In flight ────────────────────────────────────────────────────────────────────────────────────────

    def deliver(self, envelope: Envelope, session: Session, deadline: float) -> bytes:
        """Put a message in flight for a session; return it as this mailbox delivers it.

        Call `expect_settled` afterwards, once for all messages that are delivered together.
        """
        seq = envelope.seq
        item = self._items.get(seq)
        if item is None:
            item = self._items[seq] = Unsettled(0, 0, envelope)
        elif item.session is not None:
            self._leave_session(seq, item)
        item.attempt += 1
        self._put_in_flight(seq, item, session, deadline)
        return envelope.wire + (
            self._first_ending if item.attempt == 1 else delivery_ending(item.attempt, self._group)
        )

    def expect_settled(self, seqs: list[int], deadline: float) -> None:
        """Add the deadline of messages that were put in flight."""
        if self._deadlines.are_many(len(self._items)):
            self._deadlines.replace(
                (item.deadline, seq) for seq, item in self._items.items() if item.place is MessagePlace.IN_FLIGHT
            )
        self._deadlines.add(deadline, seqs)
        self.dirty = True

    def extend(self, seq: int, now: float) -> None:
        """Restart the ack_wait of a message in flight."""
        self._items[seq].deadline = now + self._delivery.ack_wait_seconds

    def settle(self, seq: int) -> None:
        """Remove a message in flight: it is settled."""
        self._leave_session(seq, self._items.pop(seq))
        self.dirty = True

    def give_back(
        self,
        seq: int,
        now: float,
        *,
        delay: float = 0.0,
        failure: str | None,
        gone: str | None = None,
    ) -> Unsettled | None:
        """Take a message back from its session, to be redelivered after `delay` seconds.

        `failure` says why it failed; None if it did not. `gone` is the client that failed it by vanishing. After
        the last failure, the message is suspended if clients that failed it by vanishing may return. Otherwise it
        is removed and returned, for the mailbox to give it up.
        """
        item = self._items[seq]
        self._leave_session(seq, item)
        self.dirty = True
        if failure is not None:
            item.failures += 1
            if gone is not None:
                self._absent.note(gone, seq, self._items)
            if item.failures >= self._delivery.max_deliver:
                if not item.vanished:
                    del self._items[seq]
                    return item
                self._move(item, MessagePlace.SUSPENDED)
                self._absent.suspend(seq, failure, now + self._delivery.session_timeout_seconds)
                item.unload()
                return None
        self._move(item, MessagePlace.DELAYED)
        heapq.heappush(self._delayed, (now + delay, seq))
        return None

    def overdue(self, now: float) -> Iterator[tuple[int, Session]]:
        """Yield messages that were not settled in time, with their sessions; call `give_back` for each."""
        for seq in self._deadlines.due(now):
            item = self._items.get(seq)
            if item is None or item.session is None:
                continue
            if self.is_settling(seq):
                item.deadline = now + self._delivery.ack_wait_seconds
            if item.deadline > now:  # extended, or delivered again, since that deadline was noted
                self._deadlines.add(item.deadline, [seq])
            else:
                yield seq, item.session

    def keep(self, session: Session, seqs: Collection[int], now: float, *, earlier: Session | None) -> list[int]:
        """Put in flight for a client's new session what it holds since `earlier`; return the seqs that were.

        Not kept: what another session has by now, and dead letters that were put back, which are delivered anew.
        """
        items = ((seq, self._items[seq]) for seq in seqs)
        kept = [seq for seq, item in items if item.attempt > 0 and item.session in (None, earlier)]
        if not kept:
            return kept
        deadline = now + self._delivery.ack_wait_seconds
        self._leave_containers(kept)
        for seq in kept:
            self._put_in_flight(seq, self._items[seq], session, deadline)
        self.expect_settled(kept, deadline)
        return kept

    def _put_in_flight(self, seq: int, item: Unsettled, session: Session, deadline: float) -> None:
        self._move(item, MessagePlace.IN_FLIGHT)
        item.due_at = None
        item.session = session
        item.deadline = deadline
        session.in_flight[seq] = self._mailbox_id
        if item.envelope is not None:  # None if a client held it since before a restart
            session.in_flight_bytes += len(item.envelope.wire)

    def _leave_session(self, seq: int, item: Unsettled) -> None:
        session, envelope = item.session, item.envelope
        assert session is not None, "it is in flight"
        del session.in_flight[seq]
        if session.express:
            session.express.discard(seq)
        if envelope is not None:
            session.in_flight_bytes -= len(envelope.wire)
        item.session = None

    # ── Redelivery ───────────────────────────────────────────────────────────────────────────────────────────

    def release_due(self, now: float, wall: str) -> None:
        """Return what is due. Resting messages become delayed, for the time left by the wall clock."""
        if self._resting and wall:
            for seq in self._resting:
                item = self._items[seq]
                left = (parse_timestamp(item.due_at or wall) - parse_timestamp(wall)).total_seconds()
                self._move(item, MessagePlace.DELAYED)
                # Never longer than the requested delay, however the wall clock was set meanwhile.
                heapq.heappush(self._delayed, (now + min(max(left, 0.0), item.delay), seq))
            self._resting = []
        while self._delayed and self._delayed[0][0] <= now:
            self._return(heapq.heappop(self._delayed)[1])

    def first_returned(self) -> int | None:
        """Return the seq of the message to deliver next, before anything new; None if there is none."""
        return self._returned[0] if self._returned else None

    def take_returned(self) -> None:
        """Take the first returned message out of its place; call `deliver`, `withhold` or `discard` next."""
        self._move(self._items[heapq.heappop(self._returned)], None)

    def missing(self) -> list[int]:
        """Return the seqs of returned messages that must be read again."""
        return [seq for seq in self._returned if self._items[seq].envelope is None]

    def unload(self) -> None:
        """Drop the messages' contents: the mailbox has no session any more."""
        for item in self._items.values():
            item.unload()
        self._deadlines.replace(())

    def discard(self, seqs: Collection[int]) -> None:
        """Remove messages, wherever they are."""
        if not seqs:
            return
        self._leave_containers(seqs)
        for seq in seqs:
            self._items.pop(seq, None)
        self.dirty = True

    def revive(self, seq: int) -> None:
        """Return a retried dead letter, as if it had never been delivered."""
        item = self._items.get(seq)
        if item is None:  # otherwise a subscription that starts in the past brought it again
            item = self._items[seq] = Unsettled(0, 0, None)
            self._return(seq)
        item.retried = True
        self.dirty = True

    def remember(self, seq: int) -> None:
        """Return a message that was delivered once, which only the client that holds it knows."""
        self._items[seq] = Unsettled(1, 0, None)
        self._return(seq)
        self.dirty = True

    def withhold(self, seq: int, envelope: Envelope | None) -> None:
        """Hold back a message whose turn has come while it is being removed from the log."""
        item = self._items.get(seq)
        if item is None:
            item = self._items[seq] = Unsettled(0, 0, envelope)
        self._move(item, MessagePlace.WITHHELD)
        self._withheld.append(seq)

    def release_withheld(self) -> None:
        """Return the messages that were held back and not removed."""
        withheld, self._withheld = self._withheld, []
        for seq in withheld:
            self._return(seq)

    def _return(self, seq: int) -> None:
        self._move(self._items[seq], MessagePlace.RETURNED)
        heapq.heappush(self._returned, seq)

    @staticmethod
    def _move(item: Unsettled, place: MessagePlace | None) -> None:
        assert place in MOVES[item.place], f"no message moves from {item.place} to {place}"
        item.place = place

    def _leave_containers(self, seqs: Iterable[int]) -> None:
        """Remove messages from their sessions, and from the queues in which they wait."""
        waiting: set[int] = set()
        for seq in seqs:
            item = self._items.get(seq)
            if item is None:
                continue
            if item.session is not None:
                self._leave_session(seq, item)
            elif item.place is MessagePlace.SUSPENDED:
                self._absent.resume(seq)
            elif item.place not in (MessagePlace.SETTLING, None):
                waiting.add(seq)
        if waiting:
            self._returned = [seq for seq in self._returned if seq not in waiting]
            self._delayed = [(due, seq) for due, seq in self._delayed if seq not in waiting]
            self._resting = [seq for seq in self._resting if seq not in waiting]
            self._withheld = [seq for seq in self._withheld if seq not in waiting]
            heapq.heapify(self._returned)
            heapq.heapify(self._delayed)

    # ── Commits ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def settling(self) -> dict[int, frozenset[int]]:
        """A copy of the seqs that commits on their way to the disk settle, by commit number."""
        return dict(self._settling)

    def is_settling(self, seq: int) -> bool:
        """Return True while a commit that settles a message is on its way to the disk."""
        return any(seq in seqs for seqs in self._settling.values())

    def prepare_to_settle(self, number: int, seqs: Iterable[int], now: float) -> None:
        """Note that commit `number`, on its way to the disk, settles messages in flight; restart their ack_wait."""
        self._settling[number] = frozenset(seqs)
        for seq in self._settling[number]:
            self.extend(seq, now)
        self.dirty = True

    def leave_to_commit(self, seq: int) -> None:
        """Take a message that a commit settles from its session; return it only if the commit is refused."""
        item = self._items[seq]
        self._leave_session(seq, item)
        self._move(item, MessagePlace.SETTLING)

    def settle_committed(self, number: int) -> list[int]:
        """Settle the messages that a commit settled, in flight or not; return their seqs."""
        seqs = [seq for seq in self._settling.pop(number) if seq in self._items]
        self.discard(seqs)
        return seqs

    def keep_unsettled(self, number: int) -> None:
        """Return the messages of a refused commit that are no longer in flight."""
        for seq in self._settling.pop(number):
            item = self._items.get(seq)
            if item is not None and item.place is MessagePlace.SETTLING and not self.is_settling(seq):
                self._return(seq)

    # ── Returning clients ────────────────────────────────────────────────────────────────────────────────────

    @property
    def awaits_clients(self) -> bool:
        """Whether clients are away whose return would undo failures."""
        return self._absent.clients > 0

    def is_suspended(self, seq: int) -> bool:
        """Return True if a message waits for clients to return before it is given up."""
        return seq in self._absent

    def come_back(self, client: str) -> bool:
        """Undo the failures of a client that vanished and is back. Return True if there were any."""
        changed = False
        for seq in self._absent.take(client, self._items):
            changed = self.dirty = True
            item = self._items[seq]
            if item.failures < self._delivery.max_deliver and self._absent.resume(seq):
                if item.due_at is None:
                    self._return(seq)
                else:  # its last failure was a nak, whose delay holds
                    self._move(item, MessagePlace.RESTING)
                    self._resting.append(seq)
        return changed

    def confirm(self, client: str) -> None:
        """Keep the failures of a client that was slow, not gone."""
        self._absent.confirm(client, self._items)
        self.dirty = True

    def postpone(self, client: str) -> None:
        """Keep what a client failed by vanishing from being given up: it is on its way back."""
        self._absent.postpone(client)

    def wait_anew(self) -> None:
        """Restart all waits for clients that vanished."""
        self._absent.wait_anew()

    def given_up(self, now: float) -> Iterator[tuple[int, str, Unsettled]]:
        """Remove and yield the messages whose clients stayed away too long, with their failures."""
        for seq, failure in self._absent.due(now, self._delivery.session_timeout_seconds):
            self.dirty = True
            yield seq, failure, self._items.pop(seq)
