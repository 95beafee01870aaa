"""One mailbox: which messages a bot is still owed, and which of them are in flight.

Owns a bot's view of the log. Its rules (docs/design.md):

- First deliveries happen in seq order; `position` is the highest seq handed out.
- Every message of the mailbox at or below the position is settled or stands in `_unsettled`.
- *Level*: every committed message above the position is in `_ready`, and new ones arrive from memory.
  *Behind*: some are only in the store, and are read by page. *Away*: no session; nothing is kept in memory but
  the position and the seqs of what is unsettled.
- While a page is being read, what arrives is kept aside, after the page; when that overflows, the next page
  finds it in the store. So the moves between level and behind lose and repeat nothing.

Pure: time is an argument, and what must be read or sent is returned.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Container, Iterable, Sequence

import msgspec

from store.repository import DeadLetter, MailboxState, PageRequest, UnsettledState

from .sessions import Session
from .settings import Delivery, Limits

__all__ = ["DIRECT", "Abandoned", "Envelope", "Interest", "Mailbox"]

_RECALLED_MAX = 32
"""Messages that are read again by one page, beside what follows: together no more than the page's own bytes."""

DIRECT = ""
"""The source that is no channel: what is sent to the bot itself."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A committed message on its way to mailboxes; `wire` is its JSON but for the closing brace.

    From `expires_at` on, a time of the wall clock, it is handed out no more.
    """

    seq: int
    sender_bot_id: str
    channel: str | None
    wire: bytes
    expires_at: str | None = None


class Interest(msgspec.Struct, frozen=True):
    """What a subscription means for delivery."""

    start_seq: int
    echo: bool


class Abandoned(msgspec.Struct, frozen=True):
    """A message that the mailbox gave up on."""

    seq: int
    reason: str
    attempts: int


class _Unsettled:
    """A message that was handed out, or came back, and is not settled."""

    __slots__ = ("attempt", "deadline", "envelope", "failures", "session")

    def __init__(self, attempt: int, failures: int, envelope: Envelope | None) -> None:
        self.attempt = attempt
        self.failures = failures
        self.envelope = envelope
        self.session: Session | None = None
        self.deadline = 0.0


class Mailbox:
    """See the module. `dirty` says that its state differs from what was last taken by `state()`."""

    def __init__(self, state: MailboxState, delivery: Delivery, limits: Limits) -> None:
        self.bot_id = state.bot_id
        self.position = state.position
        self.dirty = False
        self.sessions: list[Session] = []
        self.interests: dict[str, Interest] = {}
        self.dead: set[int] = set()
        self.buried: list[DeadLetter] = []
        self._reviving: set[int] = set()
        self._starting: dict[str, int] = {}
        self.level = False
        self._floors = dict(state.floors)
        self._delivery = delivery
        self._limits = limits
        self._unsettled = {item.seq: _Unsettled(item.attempt, item.failures, None) for item in state.unsettled}
        self._returned = sorted(self._unsettled)
        self._delayed: list[tuple[float, int]] = []
        self._deadlines: list[tuple[float, list[int]]] = []
        self._ready: deque[Envelope] = deque()
        self._ready_bytes = 0
        self._loaded_seq = state.position
        self._reading: PageRequest | None = None
        self._arrived: list[Envelope] = []
        self._arrived_bytes = 0
        self._overflowed = False
        self._ahead = set(state.ahead)
        self._expired: list[Abandoned] = []

    def __repr__(self) -> str:
        state = "level" if self.level else "behind" if self.sessions else "away"
        return (
            f"<Mailbox {self.bot_id} {state} position={self.position}"
            f" ready={len(self._ready)} unsettled={len(self._unsettled)}>"
        )

    @property
    def listening(self) -> bool:
        """Whether new messages are to be given to `arrive`; else the next page finds them."""
        return self.level or (self._reading is not None and not self._overflowed)

    @property
    def timed(self) -> bool:
        """Whether `expire` has something to wait for."""
        return bool(self._deadlines or self._delayed)

    def state(self) -> MailboxState:
        """Give what is to be kept on disk, and count it as kept."""
        self.dirty = False
        position = min([self.position, *self._starting.values()])
        floors = self._floors if position == self.position else self._raised_floors()
        unsettled = [UnsettledState(seq, item.attempt, item.failures) for seq, item in self._unsettled.items()]
        unsettled += [UnsettledState(seq, 0, 0) for seq in self._reviving if seq not in self._unsettled]
        unsettled.sort(key=lambda item: item.seq)
        sources = {DIRECT, *self.interests}
        above = {source: seq for source, seq in floors.items() if seq > position and source in sources}
        self._ahead = {seq for seq in self._ahead if seq > self._direct_position}
        return MailboxState(self.bot_id, position, tuple(unsettled), above, tuple(sorted(self._ahead)))

    def fate(self, seq: int, channel: str | None) -> str:
        """Tell what became of a message of this mailbox: waiting, in_flight, returned, dead or settled."""
        item = self._unsettled.get(seq)
        if item is not None:
            return "in_flight" if item.session is not None else "returned"
        if seq in self.dead:
            return "dead"
        floor = max(self.position, self._floors.get(channel or DIRECT, 0))
        return "waiting" if seq > floor and seq not in self._ahead else "settled"

    def wants(self, seq: int, sender_bot_id: str, channel: str | None) -> bool:
        """Tell whether a message belongs to this mailbox and lies above its source's floor."""
        if channel is None:
            return seq > self._floors.get(DIRECT, 0)
        interest = self.interests.get(channel)
        if interest is None or seq <= self._floors.get(channel, interest.start_seq):
            return False
        return interest.echo or sender_bot_id != self.bot_id

    # ── Sources ──────────────────────────────────────────────────────────────────────────────────────────

    def restore(self, channel: str, interest: Interest) -> None:
        """Want a channel as before a restart: the state that was saved knows how far it was handed out."""
        self.interests[channel] = interest

    def prepare(self, channel: str, start_seq: int) -> None:
        """Note that a subscription which starts in the past is on its way to the disk.

        The state that goes there with it goes back to that start already, so that after a crash its messages are
        found; in memory nothing changes before `subscribe`.
        """
        self._starting[channel] = start_seq
        self.dirty = True

    def dismiss(self, channel: str) -> None:
        """Note that the subscription was not stored, or stood already."""
        self._starting.pop(channel, None)

    def subscribe(self, channel: str, interest: Interest, last_seq: int) -> None:
        """Begin to want a channel. `last_seq` is the end of what arrived: older messages must be read.

        Where the start lies below the position, the position goes back to it, and floors keep what the other
        sources had handed out from being handed out again.
        """
        self._starting.pop(channel, None)
        self._floors.pop(channel, None)
        if interest.start_seq < self.position:
            self._floors = self._raised_floors()
            self.position = interest.start_seq
            self.dirty = True
        self.interests[channel] = interest
        if interest.start_seq < last_seq:
            self._unload()

    def unsubscribe(self, channel: str) -> None:
        """Want a channel no more: what waits is dropped, what is in flight may still be settled."""
        if self.interests.pop(channel, None) is None:
            return
        self._floors.pop(channel, None)
        self._keep_ready(envelope for envelope in self._ready if envelope.channel != channel)
        self._keep_arrived(envelope for envelope in self._arrived if envelope.channel != channel)
        for seq, item in list(self._unsettled.items()):
            if item.session is None and item.envelope is not None and item.envelope.channel == channel:
                del self._unsettled[seq]
                self.dirty = True

    @property
    def _direct_position(self) -> int:
        """How far direct messages were handed out, even where the position went back for a channel."""
        return max(self.position, self._floors.get(DIRECT, 0))

    def _raised_floors(self) -> dict[str, int]:
        return {source: max(start, self.position) for source, start in self._starts()}

    def _starts(self) -> list[tuple[str, int]]:
        channels = [
            (channel, self._floors.get(channel, interest.start_seq)) for channel, interest in self.interests.items()
        ]
        return [(DIRECT, self._floors.get(DIRECT, 0)), *channels]

    # ── Arriving and reading ─────────────────────────────────────────────────────────────────────────────

    def arrive(self, envelope: Envelope) -> bool:
        """Take a newly committed message, in seq order; tell whether it is one to hand out."""
        if (
            not self.wants(envelope.seq, envelope.sender_bot_id, envelope.channel)
            or envelope.seq in self._unsettled
        ):
            return False
        if self._is_full():
            # Whatever is not taken now is found by the next page.
            if self.level:
                self._loaded_seq = envelope.seq - 1
            self.level, self._overflowed = False, True
            self._keep_arrived(())
            return False
        if self.level:
            self._make_ready(envelope)
        else:
            self._arrived.append(envelope)
            self._arrived_bytes += len(envelope.wire)
        return True

    def express(self, envelope: Envelope, session: Session, now: float) -> bytes | None:
        """Put a reply in flight for the session that waits for it, before its turn and outside the credit.

        Gives the delivery; None where it is its turn anyway, and `arrive` will do.
        """
        if self.level and not self._ready and not self._returned and session.free > 0:
            return None
        item = _Unsettled(1, 0, envelope)
        item.session, item.deadline = session, now + self._delivery.ack_wait_seconds
        self._unsettled[envelope.seq] = item
        session.in_flight[envelope.seq] = self
        session.in_flight_bytes += len(envelope.wire)
        session.express.add(envelope.seq)
        heapq.heappush(self._deadlines, (item.deadline, [envelope.seq]))
        self.dirty = True
        return b'%b,"attempt":1}' % envelope.wire

    def next_read(self, last_seq: int) -> PageRequest | None:
        """Give the page to read now, if there is one: nothing while one is being read or nobody could take it."""
        if self._reading is not None or not self.sessions:
            return None
        lost = [seq for seq in self._returned if self._is_lost(seq)]
        if not lost:
            hungry = len(self._ready) < self._limits.ready_messages_max // 2
            if self.level or not hungry or not any(session.free > 0 for session in self.sessions):
                return None
        self._reading = PageRequest(
            bot_id=self.bot_id,
            seqs=tuple(lost[:_RECALLED_MAX]),
            sources=() if self.level else self.remaining(),
            through_seq=last_seq,
            messages_max=max(1, self._limits.ready_messages_max // 2),
            bytes_max=self._limits.ready_bytes_max // 2,
        )
        self._overflowed = False
        return self._reading

    def remaining(self) -> tuple[tuple[str, int, bool], ...]:
        """Give what is not loaded: each source, the seq after which it counts, and whether to skip our own."""
        return tuple(
            (source, max(start, self._loaded_seq), source != DIRECT and not self.interests[source].echo)
            for source, start in self._starts()
        )

    def loaded(self) -> int:
        """Count what is owed, not settled and in memory: the rest is `remaining`."""
        return len(self._unsettled) + len(self._ready)

    def early(self) -> int:
        """Count what was handed out before its turn, and lies in what is `remaining` all the same."""
        if self.level:
            return 0
        loaded = max(self._loaded_seq, self._direct_position)
        return sum(seq > loaded for seq in (*self._unsettled, *self._ahead))

    def page_read(
        self,
        recalled: Iterable[Envelope],
        messages: Sequence[Envelope],
        *,
        complete: bool,
        damaged: Sequence[int],
    ) -> tuple[int, ...]:
        """Take the page that `next_read` asked for; give the seqs that this mailbox lost by damage or removal."""
        request, self._reading = self._reading, None
        assert request is not None
        found = {envelope.seq: envelope for envelope in recalled}
        lost = self._recall(request.seqs, found)
        lost.update(seq for seq in damaged if seq not in request.seqs)
        # Where only single messages were asked for, nothing follows. Where the mailbox was rewound, left or given
        # another channel in the meantime, what was read no longer follows what is there.
        if request.sources and self.sessions and request.sources == self.remaining():
            for envelope in messages:
                if self.wants(envelope.seq, envelope.sender_bot_id, envelope.channel):
                    self._make_ready(envelope)
            self.level = complete and not self._overflowed
            self._loaded_seq = request.through_seq if complete else max(
                [*(envelope.seq for envelope in messages), *(seq for seq in damaged if seq not in request.seqs)],
                default=self._loaded_seq,
            )  # fmt: skip
        if self.level:
            for envelope in self._arrived:
                self._make_ready(envelope)
        self._keep_arrived(())
        return tuple(sorted(lost))

    # ── Handing out and settling ─────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, wall: str = "") -> list[tuple[Session, list[bytes]]]:
        """Put in flight what the sessions' credit allows; give each session's deliveries, in order.

        What expired by the wall clock is passed over, and is found in `take_expired`.
        """
        while self._delayed and self._delayed[0][0] <= now:
            heapq.heappush(self._returned, heapq.heappop(self._delayed)[1])
        if not self._returned and not self._ready:
            return []
        deadline = now + self._delivery.ack_wait_seconds
        free = [(-session.free, number) for number, session in enumerate(self.sessions) if session.free > 0]
        heapq.heapify(free)
        deliveries: dict[int, list[bytes]] = {}
        seqs: list[int] = []
        while free:
            taken = self._next(wall)
            if taken is None:
                break
            envelope, item = taken
            number = free[0][1]
            session = self.sessions[number]
            item.attempt += 1
            item.session = session
            item.deadline = deadline
            session.in_flight[envelope.seq] = self
            session.in_flight_bytes += len(envelope.wire)
            seqs.append(envelope.seq)
            deliveries.setdefault(number, []).append(b'%b,"attempt":%d}' % (envelope.wire, item.attempt))
            if session.free > 0:
                heapq.heapreplace(free, (-session.free, number))
            else:
                heapq.heappop(free)
        if seqs:
            heapq.heappush(self._deadlines, (deadline, seqs))
            self.dirty = True
        return [(self.sessions[number], packed) for number, packed in deliveries.items()]

    def settle(self, session: Session, seq: int) -> bool:
        """Take a message out for good; False where it is not in flight for this session."""
        if session.in_flight.get(seq) is not self:
            return False
        self._take_back(seq, self._unsettled[seq])
        self._drop(seq)
        return True

    def terminate(self, session: Session, seq: int, reason: str) -> Abandoned | None:
        """Give up on a message because its bot says so."""
        item = self._unsettled.get(seq)
        if item is None or not self.settle(session, seq):
            return None
        return self._abandon(seq, reason, item)

    def fail(
        self, session: Session, seq: int, now: float, *, delay: float | None = None, release: bool = False
    ) -> Abandoned | None:
        """Take a message back, to come again after a while; count a failure, perhaps the last, unless released."""
        if session.in_flight.get(seq) is not self:
            return None
        item = self._unsettled[seq]
        if release:
            delay = delay or self._delivery.release_wait(item.attempt - item.failures - 1)
        elif delay is None:
            delay = self._delivery.nak_wait(item.failures)
        abandoned = self._give_back(seq, item, due=now + delay, failure=None if release else "nak")
        if delay > 0:
            item.envelope = None  # it waits, perhaps for long: memory is for what is in flight
        return abandoned

    def extend(self, session: Session, seqs: Iterable[int], now: float) -> None:
        """Restart the ack_wait of messages that are in flight for this session."""
        for seq in seqs:
            if session.in_flight.get(seq) is self:
                self._unsettled[seq].deadline = now + self._delivery.ack_wait_seconds

    def expire(self, now: float) -> list[Abandoned]:
        """Take back what was not settled in time; give what that made the mailbox give up on."""
        abandoned: list[Abandoned] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            for seq in heapq.heappop(self._deadlines)[1]:
                item = self._unsettled.get(seq)
                if item is None or item.session is None:
                    continue
                if item.deadline > now:  # it was extended: look again then
                    heapq.heappush(self._deadlines, (item.deadline, [seq]))
                else:
                    given_up = self._give_back(seq, item, due=now, failure="ack_wait ran out")
                    if given_up is not None:
                        abandoned.append(given_up)
        return abandoned

    def attach(self, session: Session) -> None:
        """Lend a session's credit to this mailbox."""
        self.sessions.append(session)

    def detach(
        self, session: Session, now: float, *, vanished: bool, unsent: Container[int] = ()
    ) -> list[Abandoned]:
        """Take back a session's credit, and what it had in flight: failures if it vanished, but for the unsent."""
        self.sessions.remove(session)
        abandoned: list[Abandoned] = []
        for seq in [seq for seq, mailbox in session.in_flight.items() if mailbox is self]:
            failure = "its session vanished" if vanished and seq not in unsent else None
            given_up = self._give_back(seq, self._unsettled[seq], due=now, failure=failure)
            if given_up is not None:
                abandoned.append(given_up)
        if not self.sessions:
            for item in self._unsettled.values():
                item.envelope = None
            self._deadlines.clear()
            self._unload()
        return abandoned

    def bury(self, dead_letter: DeadLetter) -> None:
        """Keep a dead letter for the disk: it goes there with the state that no longer owes it, or neither does."""
        self.buried.append(dead_letter)
        self.dirty = True

    def take_buried(self) -> list[DeadLetter]:
        """Give the dead letters that are not on disk yet."""
        buried, self.buried = self.buried, []
        return buried

    def put_back(self, seqs: Iterable[int]) -> list[int]:
        """Prepare to owe dead letters again; give those that there were. `revive` follows once that is on disk."""
        there = sorted(self.dead.intersection(seqs))
        self.dead.difference_update(there)
        self._reviving.update(there)
        return there

    def revive(self, seqs: Iterable[int]) -> None:
        """Owe dead letters again, as if they had never been delivered."""
        for seq in seqs:
            self._reviving.remove(seq)
            if seq not in self._unsettled:  # a subscription that started in the past may have brought it again
                self._unsettled[seq] = _Unsettled(0, 0, None)
                heapq.heappush(self._returned, seq)
                self.dirty = True

    def stay_dead(self, seqs: Iterable[int]) -> None:
        """Leave dead letters as they are: the disk would not take that they come back."""
        self._reviving.difference_update(seqs)
        self.dead.update(seqs)

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _next(self, wall: str) -> tuple[Envelope, _Unsettled] | None:
        """Give what is to be handed out next, in order, and drop what must not be handed out any more."""
        while (found := self._next_owed()) is not None:
            envelope, item = found
            if envelope.expires_at is None or envelope.expires_at > wall:
                return found
            self._drop(envelope.seq)
            self._expired.append(self._abandon(envelope.seq, "expired", item))
        return None

    def take_expired(self) -> list[Abandoned]:
        """Give what expired since the last time."""
        expired, self._expired = self._expired, []
        return expired

    def _next_owed(self) -> tuple[Envelope, _Unsettled] | None:
        while self._returned:
            seq = self._returned[0]
            item = self._unsettled.get(seq)
            if item is None or item.session is not None:
                heapq.heappop(self._returned)  # settled, dropped or handed out since it was put here
            elif item.envelope is None:
                return None  # it must be read first, and goes before what is new
            elif not self._is_owed(item.envelope):
                heapq.heappop(self._returned)
                del self._unsettled[seq]
            else:
                heapq.heappop(self._returned)
                return item.envelope, item
        while self._ready:
            envelope = self._ready.popleft()
            self._ready_bytes -= len(envelope.wire)
            self.position = max(self.position, envelope.seq)
            # It may have been handed out since it was read: as a reply that was waited for, or as a dead letter.
            if envelope.seq not in self._unsettled and envelope.seq not in self._ahead:
                item = _Unsettled(0, 0, envelope)
                self._unsettled[envelope.seq] = item
                return envelope, item
        return None

    def _give_back(self, seq: int, item: _Unsettled, *, due: float, failure: str | None) -> Abandoned | None:
        self._take_back(seq, item)
        self.dirty = True
        if failure is not None:
            item.failures += 1
            if item.failures >= self._delivery.max_deliver:
                self._drop(seq)
                return self._abandon(seq, f"{failure}; failed {item.failures} times", item)
        heapq.heappush(self._delayed, (due, seq))
        if not any(other.free > 0 for other in self.sessions):
            item.envelope = None
        return None

    def _abandon(self, seq: int, reason: str, item: _Unsettled) -> Abandoned:
        self.dead.add(seq)
        return Abandoned(seq, reason, item.attempt)

    def _drop(self, seq: int) -> None:
        """Owe a message no more; one that came before its turn is not to come again with it."""
        if seq > self._direct_position:
            self._ahead.add(seq)
        del self._unsettled[seq]
        self.dirty = True

    def _take_back(self, seq: int, item: _Unsettled) -> None:
        session, envelope = item.session, item.envelope
        assert session is not None, "only what is in flight is taken back"
        assert envelope is not None, "what is in flight is in memory"
        del session.in_flight[seq]
        session.express.discard(seq)
        session.in_flight_bytes -= len(envelope.wire)
        item.session = None

    def _is_lost(self, seq: int) -> bool:
        item = self._unsettled.get(seq)
        return item is not None and item.session is None and item.envelope is None

    def _recall(self, seqs: Iterable[int], found: dict[int, Envelope]) -> set[int]:
        lost: set[int] = set()
        for seq in seqs:
            item = self._unsettled.get(seq)
            if item is None:
                continue
            envelope = found.get(seq)
            if envelope is None:
                lost.add(seq)
            elif self._is_owed(envelope):
                item.envelope = envelope if self.sessions else None
                continue
            del self._unsettled[seq]
            self.dirty = True
        return lost

    def _is_owed(self, envelope: Envelope) -> bool:
        """Tell whether a message that comes back is still wanted: its channel may have been left since."""
        if envelope.channel is None:
            return True
        interest = self.interests.get(envelope.channel)
        return interest is not None and envelope.seq > interest.start_seq

    def _is_full(self) -> bool:
        waiting = len(self._ready) + len(self._arrived)
        size_bytes = self._ready_bytes + self._arrived_bytes
        return waiting >= self._limits.ready_messages_max or size_bytes >= self._limits.ready_bytes_max

    def _make_ready(self, envelope: Envelope) -> None:
        if envelope.seq not in self._unsettled and envelope.seq not in self._ahead:
            self._ready.append(envelope)
            self._ready_bytes += len(envelope.wire)

    def _keep_ready(self, envelopes: Iterable[Envelope]) -> None:
        self._ready = deque(envelopes)
        self._ready_bytes = sum(len(envelope.wire) for envelope in self._ready)

    def _keep_arrived(self, envelopes: Iterable[Envelope]) -> None:
        self._arrived = list(envelopes)
        self._arrived_bytes = sum(len(envelope.wire) for envelope in self._arrived)

    def _unload(self) -> None:
        """Fall behind: forget what is in memory and not handed out; the next page begins at the position."""
        self._keep_ready(())
        self._keep_arrived(())
        self._overflowed = True
        self.level = False
        self._loaded_seq = self.position
