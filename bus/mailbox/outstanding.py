"""The unsettled messages of one mailbox: where each one is, and which commits are about to settle it.

A state machine: `unsettled.MessagePlace` names the places, `unsettled.MOVES` the moves between them. The place says
which container holds a message's seq; `_wires` has the JSON of those that are in memory.

    place       container
    ---------   ------------------------------------------------------
    in flight   its session's `in_flight`, with a deadline
    returned    `returned`
    delayed     `_delayed`, a heap by the time at which it is due
    resting     `_resting`
    suspended   `_absent`
    withheld    `_withheld`
    settling    `_settling`, by the number of the commit

A message that is in flight may also be in `_settling`. Until that commit is on disk, or was refused, it is neither
given up nor returned. Which messages are delivered is decided in `mailbox`. Pure.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Iterator, KeysView, Set

import msgspec

from ..model.records import parse_timestamp
from ..model.repository import UnsettledState
from ..settings import Delivery
from ..wire.codec import delivery_ending
from .absent import Absent
from .deadlines import AckDeadlines
from .parcel import Envelope, Parcel, WireDeliveries, id_of
from .returned import Returned
from .sessions import Session
from .unsettled import MOVES, MessagePlace, Unsettled, restored

__all__ = ["Outstanding"]


class Outstanding:
    """See the module. `dirty` says that the stored state is an earlier one."""

    def __init__(
        self, mailbox_id: str, unsettled: Iterable[UnsettledState], delivery: Delivery, *, group: str | None
    ) -> None:
        self.dirty = False
        self._mailbox_id = mailbox_id
        self._group = group
        self._delivery = delivery
        self._first_ending = delivery_ending(1, group)
        self._items = {item.seq: restored(item) for item in unsettled}
        self._wires: dict[int, bytes] = {}
        self._absent = Absent(self._items, failures_max=delivery.max_deliver)
        for seq, item in self._items.items():
            waiting = MessagePlace.RETURNED if item.due_at is None else MessagePlace.RESTING
            item.place = MessagePlace.SUSPENDED if seq in self._absent else waiting
        self.returned = Returned(
            (seq, item.rank) for seq, item in self._items.items() if item.place is MessagePlace.RETURNED
        )
        self._resting = [seq for seq, item in self._items.items() if item.place is MessagePlace.RESTING]
        self._delayed: list[tuple[float, int]] = []
        self._withheld: list[int] = []
        self._settling: dict[int, frozenset[int]] = {}
        self._deadlines = AckDeadlines()

    def __repr__(self) -> str:
        return f"<Outstanding {len(self)} returned={len(self.returned)} delayed={len(self._delayed)}>"

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, seq: int) -> bool:
        return seq in self._items

    def get(self, seq: int) -> Unsettled | None:
        """Return an unsettled message; None if it is not one."""
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
        """Whether something here waits for a deadline or a delay."""
        return bool(self._deadlines or self._delayed)

    @property
    def resting(self) -> int:
        """How many messages wait until a delay is over."""
        return len(self._delayed) + len(self._resting)

    @property
    def suspends(self) -> bool:
        """Whether a message waits for clients to return before it is given up."""
        return bool(self._absent)

    @property
    def is_anything_returned(self) -> bool:
        """Whether a message is to be delivered before anything new."""
        return len(self.returned) > 0

    # ── In flight ────────────────────────────────────────────────────────────────────────────────────────

    def deliver(self, parcel: Parcel, session: Session, deadline: float) -> WireDeliveries:
        """Put messages in flight for a session for the first time; return them as this mailbox delivers them.

        `expect_settled` follows, once for all that is delivered together.
        """
        seqs = parcel.seqs
        item = Unsettled(1, 0, parcel.envelope, MessagePlace.IN_FLIGHT, session, shared=len(seqs) > 1)
        item.begin(deadline, self._delivery)
        self._items.update(dict.fromkeys(seqs, item))
        self._wires.update(zip(seqs, parcel.wires, strict=True))
        session.take(seqs, self._mailbox_id, parcel.size_bytes)
        return WireDeliveries(parcel.wires, self._first_ending)

    def redeliver(self, seq: int, session: Session, deadline: float) -> WireDeliveries:
        """Put an unsettled message that is in memory in flight for a session, as `deliver` does."""
        item = self._own(seq)
        if item.session is not None:
            self._leave_session(seq, item)
        item.attempt += 1
        self._put_in_flight(seq, item, session, deadline)
        ending = self._first_ending if item.attempt == 1 else delivery_ending(item.attempt, self._group)
        return WireDeliveries((self._wires[seq],), ending)

    def identity(self, seq: int) -> tuple[str, str] | None:
        """Return the sender and the id of an unsettled message; None if they are not in memory."""
        wire, item = self._wires.get(seq), self._items.get(seq)
        if wire is None or item is None or item.envelope is None:
            return None if item is None else item.identity
        return item.envelope.sender_bot_id, id_of(wire)

    def use_reply(self, seq: int, reply_id: str) -> bool:
        """Use the right to reply to the sender of an unsettled message; return False if another message used it."""
        item = self._items[seq]
        if item.reply_id is None:
            self._own(seq).reply_id = reply_id
            return True
        return item.reply_id == reply_id

    def expect_settled(self, seqs: list[int], deadline: float) -> None:
        """Note the deadline of messages that were put in flight."""
        if self._deadlines.are_many(len(self._items)):
            self._deadlines.replace(
                (item.deadline, seq)
                for seq, item in self._items.items()
                if item.place is MessagePlace.IN_FLIGHT and item.deadline < math.inf
            )
        self._deadlines.add(deadline, seqs)
        self.dirty = True

    def extend(self, seq: int, now: float) -> bool:
        """Restart the ack_wait of a message that is in flight; return True if it was parked until now."""
        item = self._own(seq)
        item.deadline = now + self._delivery.ack_wait_seconds
        if item.session is None or seq not in item.session.parked:
            return False
        item.session.parked.remove(seq)
        self._deadlines.add(item.deadline, [seq])
        return True

    def park(self, seq: int) -> None:
        """Let a message that is in flight wait without a deadline, outside the credit and without its text."""
        item = self._own(seq)
        item.deadline, item.identity = math.inf, self.identity(seq)
        if item.session is not None:
            item.session.park(seq, len(self._wires.get(seq, b"")))
        self.unload(seq)

    def note_progress(self, seq: int) -> bool:
        """Forget the failures of a message: its work made progress since. Return True if there were any."""
        failed = self._items[seq].failures > 0
        if failed:
            self._own(seq).forget_failures()
            self.dirty = True
        return failed

    def settle(self, session: Session, seqs: Collection[int]) -> None:
        """Forget messages that are in flight for a session, each named once: they are settled."""
        size_bytes = 0
        for seq in seqs:
            del self._items[seq]
            size_bytes += len(self._wires.pop(seq, b""))
        session.drop(seqs, size_bytes)
        self.dirty = True

    def give_back(
        self,
        seq: int,
        now: float,
        *,
        delay: float = 0.0,
        failure: str | None,
        gone: str | None = None,
        sent: bool = True,
    ) -> Unsettled | None:
        """Remove a message from its session, to be redelivered after `delay` seconds.

        `failure` says why it failed; None if it did not. After the last one the message is suspended, if `gone` is
        the client that failed it by vanishing. Otherwise it is removed and returned: its mailbox gives it up.
        """
        item = self._own(seq)
        self._leave_session(seq, item)
        item.identity = None
        item.unseen = not sent and (item.unseen or item.attempt == 1)
        self.dirty = True
        if failure is not None:
            item.failures += 1
            if gone is not None:
                self._absent.note(gone, seq, self._items)
            if item.failures >= self._delivery.max_deliver:
                if not item.vanished:
                    self._forget(seq)
                    return item
                self._move(item, MessagePlace.SUSPENDED)
                self._absent.suspend(seq, failure, now + self._delivery.session_timeout_seconds)
                self.unload(seq)
                return None
        self.put_off(seq, now + delay)
        return None

    def overdue(self, now: float) -> Iterator[tuple[int, Session]]:
        """Yield what was not settled in time, with the session that has it; `give_back` is to follow for each."""
        for seq in self._deadlines.due(now):
            item = self._items.get(seq)
            if item is None or item.session is None or seq in item.session.parked:
                continue
            if self.is_settling(seq):
                self.extend(seq, now)
            deadline = self._items[seq].deadline
            if deadline > now:  # extended, or delivered again, since that deadline was noted
                self._deadlines.add(deadline, [seq])
            else:
                yield seq, item.session

    def keep(self, session: Session, seqs: Collection[int], now: float, *, earlier: Session | None) -> list[int]:
        """Put in flight for a client's new session what it has held since `earlier`; return what `may_be_kept`."""
        kept = [seq for seq in seqs if self._items[seq].may_be_kept(earlier) and seq not in session.in_flight]
        if not kept:
            return kept
        deadline = now + self._delivery.ack_wait_seconds
        self._leave_containers(kept)
        for seq in kept:
            self._put_in_flight(seq, self._own(seq), session, deadline)
        self.expect_settled(kept, deadline)
        return kept

    def _put_in_flight(self, seq: int, item: Unsettled, session: Session, deadline: float) -> None:
        self._move(item, MessagePlace.IN_FLIGHT)
        item.due_at = None
        item.session = session
        session.retries |= item.failures > 0
        item.begin(deadline, self._delivery)
        # It has no wire if a client has held it since before this worker knew of it.
        session.take((seq,), self._mailbox_id, len(self._wires.get(seq, b"")))

    def _leave_session(self, seq: int, item: Unsettled) -> None:
        session = item.session
        assert session is not None, "it is in flight"
        assert not item.shared, "what happens to it happens to it alone"
        session.drop((seq,), len(self._wires.get(seq, b"")))
        item.session = None

    def _own(self, seq: int) -> Unsettled:
        """Return a message's own record, for what happens to it alone."""
        item = self._items[seq]
        if item.shared:
            item = self._items[seq] = msgspec.structs.replace(item, shared=False)
        return item

    # ── To be delivered again ────────────────────────────────────────────────────────────────────────────

    def release_due(self, now: float, wall: str) -> None:
        """Return what is due. What rested, perhaps since before a restart, rests for what is left of it."""
        if self._resting and wall:
            for seq in self._resting:
                item = self._items[seq]
                left = (parse_timestamp(item.due_at or wall) - parse_timestamp(wall)).total_seconds()
                # However the wall clock was set since, it rests no longer than it was asked to.
                self.put_off(seq, now + min(max(left, 0.0), item.delay))
            self._resting.clear()
        while self._delayed and self._delayed[0][0] <= now:
            self._return(heapq.heappop(self._delayed)[1])

    def sender_of(self, seq: int) -> str:
        """Return who sent an unsettled message that is in memory."""
        envelope = self._items[seq].envelope
        assert envelope is not None, "it is in memory"
        return envelope.sender_bot_id

    def take_returned(self) -> None:
        """Remove the first returned message from its place: one of the methods in `MOVES` is next."""
        self._move(self._items[self.returned.take()], None)

    def missing(self, most: int) -> list[int]:
        """Return some of what is returned, and whose text is to be read again: the first one first."""
        return self.returned.some(most, lambda seq: self._items[seq].envelope is None)

    def rest(self, seq: int, wall: str, delay: float) -> None:
        """Note how long a returned message rests from a time of the wall clock on, for a restart of the worker."""
        self.unload(seq)  # it may rest for long: memory is for what is in flight
        if wall:
            self._items[seq].rest(wall, delay)

    def load(self, seq: int, envelope: Envelope, wire: bytes) -> None:
        """Keep the text of a message that was read again in memory."""
        item = self._items[seq]
        item.envelope, self._wires[seq] = envelope, wire
        if item.place is MessagePlace.RETURNED and item.priority != envelope.priority:  # it was not known
            self.returned.discard({seq})
            self.returned.add(seq, envelope.priority)

    def unload(self, seq: int) -> None:
        """Drop a message's text from memory: it is read again before it is redelivered."""
        self._items[seq].unload()
        self._wires.pop(seq, None)

    def forget_texts(self, seqs: Set[int]) -> None:
        """Drop the texts of messages, in flight or not: they are read again before they are redelivered."""
        for seq in self._wires.keys() & seqs:
            self._own(seq).forget_text(self._wires.pop(seq))

    def unload_all(self) -> None:
        """Drop all texts: the mailbox has no session any more."""
        for item in self._items.values():
            item.unload()
        self._wires.clear()
        self._deadlines.replace(())

    def discard(self, seqs: Collection[int]) -> None:
        """Forget messages, wherever they are."""
        if not seqs:
            return
        self._leave_containers(seqs)
        for seq in seqs:
            self._forget(seq)
        self.dirty = True

    def _forget(self, seq: int) -> None:
        self._items.pop(seq, None)
        self._wires.pop(seq, None)

    def revive(self, seq: int) -> None:
        """Return a dead letter that is retried, as if it had never been delivered."""
        if seq not in self._items:  # a subscription that starts in the past may have brought it again
            self._items[seq] = Unsettled(0, 0, None)
            self._return(seq)
        self._own(seq).retried = True
        self.dirty = True

    def remember(self, seq: int) -> None:
        """Return a message that was delivered once, which only the client that holds it remembers."""
        self._items[seq] = Unsettled(1, 0, None)
        self._return(seq)
        self.dirty = True

    def take_new(self, parcel: Parcel) -> None:
        """Keep messages whose turn has come for the first time, and that must wait: a method in `MOVES` is next."""
        for seq, wire in zip(parcel.seqs, parcel.wires, strict=True):
            self._items[seq] = Unsettled(0, 0, parcel.envelope)
            self._wires[seq] = wire

    def withhold(self, seq: int) -> None:
        """Keep back what was taken: it is being removed from the log, or its channel is paused."""
        self._move(self._items[seq], MessagePlace.WITHHELD)
        self._withheld.append(seq)

    def put_off(self, seq: int, due: float) -> None:
        """Return later what no session has: it failed, or a session has it from another mailbox."""
        self._move(self._items[seq], MessagePlace.DELAYED)
        self._items[seq].deadline = due
        heapq.heappush(self._delayed, (due, seq))

    def release_withheld(self) -> None:
        """Return what was kept back: it was not removed, or a channel goes on."""
        withheld, self._withheld = self._withheld, []
        for seq in withheld:
            self._return(seq)

    def _return(self, seq: int) -> None:
        self._move(self._items[seq], MessagePlace.RETURNED)
        self.returned.add(seq, self._items[seq].rank)

    @staticmethod
    def _move(item: Unsettled, place: MessagePlace | None) -> None:
        assert place in MOVES[item.place], f"no message moves from {item.place} to {place}"
        item.place = place

    def _leave_containers(self, seqs: Iterable[int]) -> None:
        """Remove messages from their sessions, and from where they wait."""
        waiting: set[int] = set()
        for seq in seqs:
            item = self._items.get(seq)
            if item is None:
                continue
            if item.session is not None:
                self._leave_session(seq, self._own(seq))
            elif item.place is MessagePlace.SUSPENDED:
                self._absent.resume(seq)
            elif item.place not in (MessagePlace.SETTLING, None):
                waiting.add(seq)
        if waiting:
            self.returned.discard(waiting)
            self._delayed = [(due, seq) for due, seq in self._delayed if seq not in waiting]
            self._resting = [seq for seq in self._resting if seq not in waiting]
            self._withheld = [seq for seq in self._withheld if seq not in waiting]
            heapq.heapify(self._delayed)

    # ── Commits ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def settling(self) -> dict[int, frozenset[int]]:
        """A copy of what commits on their way to the disk settle, by their numbers."""
        return dict(self._settling)

    def is_settling(self, seq: int) -> bool:
        """Return True while a commit that settles a message is on its way to the disk."""
        return any(seq in seqs for seqs in self._settling.values())

    def prepare_to_settle(self, number: int, seqs: Iterable[int], now: float) -> None:
        """Note that a commit on its way to the disk settles messages in flight, and restart their ack_wait."""
        self._settling[number] = frozenset(seqs)
        for seq in self._settling[number]:
            if self._items[seq].deadline < math.inf:  # otherwise it is parked, and has no ack_wait
                self.extend(seq, now)
        self.dirty = True

    def leave_to_commit(self, seq: int) -> None:
        """Remove a message that a commit settles from its session: it is returned only if the commit is refused."""
        item = self._own(seq)
        self._leave_session(seq, item)
        self._move(item, MessagePlace.SETTLING)

    def settle_committed(self, number: int) -> list[int]:
        """Settle what a commit settled, whichever session has it by now; return the seqs."""
        seqs = [seq for seq in self._settling.pop(number) if seq in self._items]
        self.discard(seqs)
        return seqs

    def keep_unsettled(self, number: int) -> None:
        """Return what a refused commit would have settled, if no session has it any more."""
        for seq in self._settling.pop(number):
            item = self._items.get(seq)
            if item is not None and item.place is MessagePlace.SETTLING and not self.is_settling(seq):
                self._return(seq)

    # ── Clients that return ──────────────────────────────────────────────────────────────────────────────

    @property
    def awaits_clients(self) -> bool:
        """Whether there are clients whose return takes failures back."""
        return self._absent.clients > 0

    def is_suspended(self, seq: int) -> bool:
        """Return True if a message waits for clients to return before it is given up."""
        return seq in self._absent

    def come_back(self, client: str) -> bool:
        """Undo the failures of a client that vanished and has returned. Return True if there were any."""
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
        """Let a client's failures stand: it was connected all the time, and too slow."""
        self._absent.confirm(client, self._items)
        self.dirty = True

    def postpone(self, client: str) -> None:
        """Restart the waiting for a client that vanished: it is on its way back."""
        self._absent.postpone(client)

    def wait_anew(self) -> None:
        """Restart the waiting for clients that vanished."""
        self._absent.wait_anew()

    def given_up(self, now: float) -> Iterator[tuple[int, str, Unsettled]]:
        """Remove what clients have failed that stayed away, and yield it, each with its failure."""
        for seq, failure in self._absent.due(now, self._delivery.session_timeout_seconds):
            self.dirty = True
            item = self._items[seq]
            self._forget(seq)
            yield seq, failure, item
