"""One mailbox: which messages a bot, or a group, has not settled, and which of them are in flight.

Owns one view of the log. Its rules (docs/design.md):

- First deliveries happen in seq order; the position (`sources`) is the highest seq delivered in order.
- Every message of the mailbox at or below the position is either settled or in `_unsettled`.
- `intake` loads messages into memory and moves between level and behind. A mailbox without a session is *away*: it
  keeps only the position and the seqs of unsettled messages in memory.

Each message of the mailbox is in one of the places below. Methods move it from one to the next. Methods and tests
use these names.

    place       where its seq is                  what moves it on
    ---------   -------------------------------   ---------------------------------------------------------
    unread      above `intake.loaded_seq`         `page_read`: ready; `arrive`: ready, or aside
    aside       `intake`, behind the page         `page_read`: ready, or unread
    ready       `intake`, above the position      `hand_out`: in flight; or dead, if it expired
    in flight   `_unsettled`, with a session;     `settle`: settled; `terminate`: dead; `fail`, `expire`, `detach`:
                that session's `in_flight`        delayed, suspended or dead; `keep`: in flight elsewhere
    delayed     `_unsettled`, `_delayed`          `hand_out`, when it is due: returned
    resting     `_unsettled`, `_resting`          `hand_out`: delayed, for the time left by the wall clock
    returned    `_unsettled`, `_returned`         `hand_out`: in flight, before what is ready; or dead likewise
    suspended   `_unsettled`, `_absent`           `come_back` of its client: returned or resting; `expire`: dead
    withheld    `_unsettled`, `losses`            `retain`: returned; `lose`: gone
    settling    `_unsettled`, `settling`          `settle_committed`: settled; `keep_unsettled`: returned
    settled     at or below the position, or      a subscription that starts in the past: unread
                in `_ahead`, and nowhere else
    dead        `dead`                            `put_back`: reviving
    reviving    `_reviving`                       `revive`: returned; `stay_dead`: dead

Two of these are also marks. A message in flight may be *settling*: a commit on its way to the disk settles it, and
until then it is neither given up nor put back. A message that is unread, ready, delayed, resting or returned may be
*losing* (`losses.losing`): it is being removed from the log, and is withheld when its turn comes. Messages in other
places are never lost. Leaving a channel and subscribing to it again from the past brings its dead letters back:
those are dead or reviving, and also in another place. A dead letter that is retried may still be in `_ahead`.

Pure: time is an argument, and methods return what must be read or sent.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator, Sequence, Set

from ..model.records import later, parse_timestamp
from ..model.repository import MailboxState, PageRequest, UnsettledState
from ..settings import Delivery, Limits
from .backlog import Backlog
from .envelope import Envelope
from .held import Held
from .intake import Intake
from .losses import Losses
from .sessions import Session
from .sources import DIRECT, Interest, Sources
from .turns import HandedOut, Turns
from .unsettled import Abandoned, Unsettled

__all__ = ["Mailbox"]

_AHEAD_MAX = 256
"""Messages delivered ahead of their turn to remember before a page is read so that their turn comes."""

_Owed = tuple[Envelope, Unsettled]

_RECALLED_MAX = 32
"""Messages to reload with one page, beside what follows: together no more than the page's own bytes."""


class Mailbox(Held):
    """See the module. `dirty` is True if the state differs from the one that `state()` returned last."""

    def __init__(
        self, state: MailboxState, delivery: Delivery, limits: Limits, *, group: str | None = None
    ) -> None:
        super().__init__(state, delivery, group=group)
        self.sources = Sources(state, direct=group is None)
        self.intake = Intake(state.position, limits)
        self.backlog = Backlog()
        self._limits = limits
        self._ahead = set(state.ahead)
        self.losses = Losses(state.gap)
        self._expired: list[Abandoned] = []

    def __repr__(self) -> str:
        state = "level" if self.level else "behind" if self.sessions else "away"
        return (
            f"<Mailbox {self.id} {state} position={self.position}"
            f" ready={len(self.intake)} unsettled={len(self._unsettled)}>"
        )

    @property
    def position(self) -> int:
        """The highest seq delivered in order."""
        return self.sources.position

    @property
    def interests(self) -> dict[str, Interest]:
        """The channels that it is subscribed to."""
        return self.sources.interests

    @property
    def level(self) -> bool:
        """Whether every committed message above the position is in memory."""
        return self.intake.level

    @property
    def gap(self) -> tuple[int, int] | None:
        """The range in which messages were lost, until a session has been notified."""
        return self.losses.gap

    def state(self) -> MailboxState:
        """Return the state to save, and mark it as saved."""
        self.dirty = False
        position, floors = self.sources.saved()
        unsettled = [item.saved(seq) for seq, item in self._unsettled.items() if seq not in self.losses.losing]
        reviving = [seq for seq in self._reviving if seq not in self._unsettled]
        unsettled += [UnsettledState(seq, 0, 0, retried=True) for seq in reviving]
        unsettled.sort(key=lambda item: item.seq)
        self._ahead = {seq for seq in self._ahead if seq > self.position}
        return MailboxState(
            self.id, position, tuple(unsettled), floors, tuple(sorted(self._ahead)), self.losses.saved()
        )

    def fate(self, seq: int, channel: str | None) -> str:
        """Return the state of a message of this mailbox: waiting, in_flight, returned, dead or settled."""
        item = self._unsettled.get(seq)
        if item is not None:
            return "in_flight" if item.session is not None else "returned"
        if seq in self.dead or seq in self._reviving:
            return "dead" if seq in self.dead else "returned"
        handed_out = self.sources.handed_out(channel)
        return "waiting" if seq > handed_out and seq not in self._ahead else "settled"

    # ── Sources ──────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, channel: str, start_seq: int) -> None:
        """Prepare for a subscription that starts in the past and is on its way to the disk.

        The state saved with it already goes back to that start, so that its messages are found after a crash.
        Nothing changes in memory before `subscribe`.
        """
        self.sources.prepare(channel, start_seq)
        self.dirty = True

    def dismiss(self, channel: str) -> None:
        """Cancel a prepared subscription, which was not stored or existed already."""
        self.sources.dismiss(channel)

    def restore(self, channel: str, interest: Interest) -> None:
        """Add a channel after a restart: the saved state has its progress."""
        self.sources.restore(channel, interest)

    def subscribe(self, channel: str, interest: Interest, last_seq: int) -> None:
        """Add a channel. `last_seq` is the last seq that arrived: older messages must be read."""
        if self.sources.add(channel, interest):
            self.dirty = True
        if interest.start_seq < last_seq:
            self.intake.unload(self.position)

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel: drop what waits; what is in flight may still be settled.

        A retried dead letter stays, because somebody asked for it.
        """
        if not self.sources.remove(channel):
            return
        self.intake.drop(lambda envelope: envelope.channel == channel)
        self._remove({seq for seq, item in self._unsettled.items() if item.session is None and item.is_of(channel)})

    def forget(self, channel: str) -> None:
        """Drop all messages of a channel that was left, even those in flight: a group takes it over."""
        seqs = {seq for seq, item in self._unsettled.items() if item.is_of(channel)}
        for seq in seqs:
            if self._unsettled[seq].session is not None:
                self._take_back(seq, self._unsettled[seq])
        self._remove(seqs)

    def _remove(self, seqs: Set[int]) -> None:
        """Drop unsettled messages that are not in flight."""
        if seqs:
            self._wait_no_more(seqs)
            for seq in seqs:
                del self._unsettled[seq]
            self.dirty = True

    # ── Arriving and reading ─────────────────────────────────────────────────────────────────────────────

    def arrive(self, envelope: Envelope) -> bool:
        """Add a newly committed message, in seq order; return True if it is ready for delivery."""
        if envelope.channel is None:
            self.backlog.came()
        if not self.intake.listening or envelope.seq in self._unsettled:
            return False
        if not self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel):
            return False
        return self.intake.arrive(envelope)

    def express(self, envelope: Envelope, session: Session, now: float) -> bytes | None:
        """Put a reply in flight, ahead of its turn and outside the credit, for the session that waits for it.

        Return the delivery, or None if its turn has come anyway and only this session can get it: then call
        `arrive`.
        """
        alone = len(self.sessions) == 1
        if alone and self.level and not self.intake and not self._returned and session.free > 0:
            return None
        item = self._unsettled[envelope.seq] = Unsettled(0, 0, envelope)
        deadline = now + self._delivery.ack_wait_seconds
        session.express.add(envelope.seq)
        self._add_deadline(deadline, [envelope.seq])
        self.dirty = True
        return self._put_in_flight(envelope, item, session, deadline)

    def next_read(self, last_seq: int) -> PageRequest | None:
        """Return the page to read now; None while one is being read, or if no session could take it."""
        if self.intake.reading is not None or not self.sessions:
            return None
        lost = [seq for seq in self._returned if self._is_lost(seq)]
        # A bot that takes no messages, but receives its replies early, would fill `_ahead` without limit.
        eager = len(self._ahead) > _AHEAD_MAX or any(session.free > 0 for session in self.sessions)
        if not lost and not (self.intake.hungry and eager):
            return None
        return self.intake.read(
            PageRequest(
                mailbox_id=self.id,
                seqs=tuple(lost[:_RECALLED_MAX]),
                sources=() if self.level else self.remaining(),
                through_seq=last_seq,
                messages_max=max(1, self._limits.ready_messages_max // 2),
                bytes_max=self._limits.ready_bytes_max // 2,
            )
        )

    def remaining(self) -> tuple[tuple[str, int, bool], ...]:
        """Return what is not loaded yet, as `PageRequest.sources`."""
        return self.sources.after(self.intake.loaded_seq)

    def loaded(self) -> int:
        """Return the number of unsettled messages that are known here; `unread` is the rest."""
        return len(self._unsettled) + len(self.intake)

    def unread(self, last_seq: int) -> PageRequest:
        """Return a request to count the unsettled messages that are not loaded."""
        early = self._early(self.intake.loaded_seq)
        return PageRequest(self.id, early, self.remaining(), last_seq, 1, 1)

    def _early(self, seq: int) -> tuple[int, ...]:
        """Return the seqs above `seq` that were delivered ahead of their turn."""
        return tuple(early for early in {*self._unsettled, *self._ahead} if early > seq)

    def page_read(
        self,
        recalled: Iterable[Envelope],
        messages: Sequence[Envelope],
        *,
        complete: bool,
        damaged: Sequence[int],
    ) -> tuple[int, ...]:
        """Add the page that `next_read` asked for; return the seqs lost by damage or removal."""
        request = self.intake.end_reading()
        found = {envelope.seq: envelope for envelope in recalled}
        lost = self._recall(request.seqs, found)
        # A request for single messages only has nothing after it. If the mailbox was rewound, or left or joined a
        # channel in the meantime, the page no longer follows what is loaded.
        if request.sources and self.sessions and request.sources == self.remaining():
            skipped = [seq for seq in damaged if seq not in request.seqs]
            lost.update(seq for seq in skipped if seq not in self._unsettled and seq not in self._ahead)
            seen = [*(envelope.seq for envelope in messages), *skipped]
            through_seq = request.through_seq if complete else max(seen, default=self.intake.loaded_seq)
            wanted = [envelope for envelope in messages if self._is_new(envelope)]
            self.intake.take(wanted, through_seq=through_seq, complete=complete)
        self.intake.take_aside()
        self.losses.gone.clear()
        if self.level and not self.intake:
            self.sources.position = max(self.position, self.intake.loaded_seq)
            self.dirty = True
        return tuple(sorted(lost))

    def _is_new(self, envelope: Envelope) -> bool:
        """Return True if a message that was read is wanted and was not delivered ahead of its turn."""
        return (
            self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel)
            and envelope.seq not in self._unsettled
            and envelope.seq not in self._ahead
            and envelope.seq not in self.losses.gone
        )

    # ── Room ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, last_seq: int) -> None:
        """Start the backlog count: it is zero if all of the log was delivered; otherwise the store must count."""
        self.backlog.known = self.sources.handed_out(None) >= last_seq

    def expect(self) -> None:
        """Reserve room for a direct message on its way to the disk."""
        self.backlog.expected += 1

    def expect_no_more(self) -> None:
        """Release the room for a direct message whose outcome is known."""
        self.backlog.expected -= 1

    def is_count_needed(self, last_seq: int, messages_max: int) -> bool:
        """Return True if the store must count first: the mailbox is so far behind that it may be full."""
        asked = self.backlog.known or self.backlog.counting
        return not asked and last_seq - self.sources.handed_out(None) >= messages_max

    def count(self, last_seq: int) -> tuple[PageRequest, int]:
        """Return a request to count the undelivered direct messages, and the number of this question."""
        handed_out = self.sources.handed_out(None)
        early, direct = self._early(handed_out), ((DIRECT, handed_out, False),)
        return PageRequest(self.id, early, direct, last_seq, 1, 1), self.backlog.ask()

    def counted(self, waiting: int, *, number: int) -> None:
        """Apply the answer to a question of `count`."""
        self.backlog.counted(waiting, number=number)

    def count_anew(self) -> None:
        """Void a count that is under way: direct messages left the log, and it may or may not include them."""
        self.backlog.void()

    # ── Delivering and settling ──────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, wall: str = "") -> list[HandedOut]:
        """Put in flight what the sessions' credit allows; return each session's deliveries, in order.

        Messages that expired by the wall clock are skipped; `take_expired` returns them.
        """
        if self._resting and wall:
            self._rest_on(now, wall)
        while self._delayed and self._delayed[0][0] <= now:
            heapq.heappush(self._returned, heapq.heappop(self._delayed)[1])
        if not (self._returned or self.intake):
            return []
        handed_out = [HandedOut(session, [], []) for session in self.sessions if session.free > 0]
        if not handed_out:
            return []
        deadline = now + self._delivery.ack_wait_seconds
        if len(handed_out) == 1:
            self._hand_out_to(handed_out[0], self._owed(wall), deadline)
        else:
            self._share_out(handed_out, self._owed(wall), deadline)
        seqs = [seq for handed in handed_out for seq in handed.seqs]
        if seqs:
            self._add_deadline(deadline, seqs)
            self.dirty = True
        return [handed for handed in handed_out if handed.seqs]

    def _hand_out_to(self, handed: HandedOut, owed: Iterator[_Owed], deadline: float) -> None:
        """Put in flight what one session's credit allows."""
        session, deliveries, seqs = handed
        room = session.free
        while room > 0 and (taken := next(owed, None)) is not None:
            deliveries.append(self._put_in_flight(*taken, session, deadline))
            seqs.append(taken[0].seq)
            room = room - 1 if session.in_flight_bytes < session.in_flight_bytes_max else 0

    def _share_out(self, handed_out: Sequence[HandedOut], owed: Iterator[_Owed], deadline: float) -> None:
        """Put each message in flight for the session whose turn it is."""
        by_session = {handed.session: handed for handed in handed_out}
        turns = Turns(list(by_session), apart=self.group is not None)
        while turns and (taken := next(owed, None)) is not None:
            session = turns.take(taken[0].sender_bot_id)
            by_session[session].deliveries.append(self._put_in_flight(*taken, session, deadline))
            by_session[session].seqs.append(taken[0].seq)
            turns.give_back(session)

    def settle(self, session: Session, seq: int) -> bool:
        """Settle a message; return False if it is not in flight for this session."""
        item = self._unsettled.get(seq)
        if item is None or item.session is not session:
            return False
        self._take_back(seq, item)
        self._drop(seq)
        return True

    def settle_committed(self, number: int) -> int:
        """Settle the messages that a commit settled, in flight or not; return how many there were."""
        seqs = [seq for seq in self.settling.pop(number) if seq in self._unsettled]
        for seq in seqs:
            if self._unsettled[seq].session is not None:
                self._take_back(seq, self._unsettled[seq])
            self._drop(seq)
        return len(seqs)

    def terminate(self, seq: int, reason: str) -> Abandoned | None:
        """Give up on a message in flight, as its bot asked; do nothing if a commit settles it."""
        if self.is_settling(seq):
            return None
        item = self._unsettled[seq]
        self._take_back(seq, item)
        self._drop(seq)
        return self._abandon(seq, reason, item)

    def fail(
        self, seq: int, now: float, *, wall: str = "", delay: float | None = None, release: bool = False
    ) -> Abandoned | None:
        """Put back a message in flight, to be redelivered after a delay; count a failure unless it is released.

        Do nothing if a commit settles it. Return the abandoned message if this was its last failure.
        """
        if self.is_settling(seq):
            return None
        item = self._unsettled[seq]
        if release:
            delay = delay or self._delivery.release_wait(item.attempt - item.failures - 1)
        elif delay is None:
            delay = self._delivery.nak_wait(item.failures)
        abandoned = self._give_back(seq, item, now, delay=delay, failure=None if release else "nak")
        if delay > 0:
            item.unload()  # it may wait for long: memory is for messages in flight
            if wall:
                item.due_at, item.delay = later(wall, delay), delay
        return abandoned

    def expire(self, now: float) -> list[Abandoned]:
        """Put back messages that were not settled in time; return those abandoned because of it."""
        abandoned: list[Abandoned] = []
        for seq in self._deadlines.due(now):
            item = self._unsettled.get(seq)
            if item is None or item.session is None:
                continue
            if self.is_settling(seq):
                item.deadline = now + self._delivery.ack_wait_seconds
            if item.deadline > now:  # it was extended: check again then
                self._deadlines.add(item.deadline, [seq])
                continue
            item.session.doubted = True  # its client may be cut off; its next frame tells
            given_up = self._give_back(seq, item, now, failure="ack_wait ran out", gone=item.session.client)
            if given_up is not None:
                abandoned.append(given_up)
        for seq, failure in self._absent.due(now, self._delivery.session_timeout_seconds):
            item = self._unsettled[seq]
            self._drop(seq)
            abandoned.append(self._give_up(seq, item, failure))
        return abandoned

    def attach(self, session: Session) -> None:
        """Add a session whose credit this mailbox may use."""
        self.sessions.append(session)

    def detach(
        self, session: Session, now: float, *, vanished: bool, unsent: Container[int] = ()
    ) -> list[Abandoned]:
        """Remove a session, and put back what it had in flight: as failures if it vanished, except for `unsent`."""
        self.sessions.remove(session)
        wanted = self._has_credit()  # once, not for each of perhaps a thousand messages
        abandoned: list[Abandoned] = []
        for seq in [seq for seq, mailbox_id in session.in_flight.items() if mailbox_id == self.id]:
            item = self._unsettled[seq]
            if self.is_settling(seq):  # redelivered only if that commit is refused
                self._take_back(seq, item)
                continue
            failure = "its session vanished" if vanished and seq not in unsent else None
            given_up = self._give_back(seq, item, now, failure=failure, gone=session.client, wanted=wanted)
            if given_up is not None:
                abandoned.append(given_up)
        if not self.sessions:
            for item in self._unsettled.values():
                item.unload()
            self._deadlines.replace(())
            self.intake.unload(self.position)
        return abandoned

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────

    def take_expired(self) -> list[Abandoned]:
        """Return the messages that expired since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def _rest_on(self, now: float, wall: str) -> None:
        """Delay resting messages for the time left by the wall clock; never longer than their whole delay."""
        for seq in self._resting:
            item = self._unsettled.get(seq)
            if item is not None and item.due_at is not None:
                left = (parse_timestamp(item.due_at) - parse_timestamp(wall)).total_seconds()
                heapq.heappush(self._delayed, (now + min(max(left, 0.0), item.delay), seq))
        self._resting = []

    def _owed(self, wall: str) -> Iterator[_Owed]:
        """Yield what to deliver, in order; drop what must not be delivered any more."""
        while self._returned:
            seq = self._returned[0]
            item = self._unsettled.get(seq)
            if seq in self.losses.losing:
                self.losses.withhold(heapq.heappop(self._returned))
                continue
            envelope = item.envelope if item is not None and item.session is None else None
            if item is not None and item.session is None and envelope is None:
                return  # it must be read first, and comes before new messages
            heapq.heappop(self._returned)
            if item is None or envelope is None:
                continue  # settled, dropped or delivered since it was put here
            if not (item.retried or self.sources.still_wants(seq, envelope.channel)):
                del self._unsettled[seq]
                self.dirty = True
            elif not self._expires(envelope, item, wall):
                yield envelope, item
        sources, unsettled = self.sources, self._unsettled
        while (envelope := self.intake.next()) is not None:
            seq = envelope.seq
            if seq > sources.position:
                sources.position = seq
            # It may have been delivered since it was read: as an awaited reply, or as a retried dead letter.
            if seq in unsettled or seq in self._ahead:
                continue
            item = unsettled[seq] = Unsettled(0, 0, envelope)
            if envelope.channel is None:
                self.backlog.went()
            if seq in self.losses.losing:
                self.losses.withhold(seq)
            elif not self._expires(envelope, item, wall):
                yield envelope, item

    def _expires(self, envelope: Envelope, item: Unsettled, wall: str) -> bool:
        """Give up on a message if it has expired, and return whether it has."""
        if not envelope.is_expired(wall):
            return False
        self._drop(envelope.seq)
        self._expired.append(self._abandon(envelope.seq, "expired", item))
        return True

    def _give_back(
        self,
        seq: int,
        item: Unsettled,
        now: float,
        *,
        delay: float = 0.0,
        failure: str | None,
        gone: str | None = None,
        wanted: bool | None = None,
    ) -> Abandoned | None:
        """Put back a message in flight; `gone` is the client that failed it by vanishing, and may return.

        It stays in memory if it is `wanted`: if a session has credit for it, which this call may have freed.
        """
        self._take_back(seq, item)
        self.dirty = True
        if failure is not None:
            item.failures += 1
            if gone is not None:
                self._absent.note(gone, seq, self._unsettled)
            if item.failures >= self._delivery.max_deliver:
                if not item.vanished:
                    self._drop(seq)
                    return self._give_up(seq, item, failure)
                self._absent.suspend(seq, failure, now + self._delivery.session_timeout_seconds)
                item.unload()
                return None
        heapq.heappush(self._delayed, (now + delay, seq))
        if not (self._has_credit() if wanted is None else wanted):
            item.unload()
        return None

    def _has_credit(self) -> bool:
        return any(session.free > 0 for session in self.sessions)

    def _drop(self, seq: int) -> None:
        """Remove an unsettled message, and ensure that it is not delivered when its seq comes up.

        That can happen if its channel was left, and subscribed to again from the past, while it was in flight.
        """
        if seq > self.position:
            if self.level and not self.intake:  # nothing waits below it: its turn has come
                self.sources.position = seq
            else:
                self._ahead.add(seq)
        del self._unsettled[seq]
        self.dirty = True

    def _recall(self, seqs: Iterable[int], found: dict[int, Envelope]) -> set[int]:
        lost: set[int] = set()
        for seq in seqs:
            item = self._unsettled.get(seq)
            if item is None or item.session is not None or seq in self._absent:
                continue
            envelope = found.get(seq)
            if envelope is None:
                lost.add(seq)
            elif item.retried or self.sources.still_wants(seq, envelope.channel):
                item.envelope = envelope
                if not self.sessions:
                    item.unload()
                continue
            del self._unsettled[seq]
            self.dirty = True
        return lost
