"""One mailbox: the messages that a bot, or a group, has not settled yet.

Owns one view of the log, made of the `parts`. Its rules (docs/design.md):

- First deliveries happen in seq order; the position (`sources`) is the highest seq delivered in order.
- Every message of the mailbox at or below the position is settled, dead or unsettled (`outstanding`).
- `intake` loads messages into memory. A mailbox without a session is *away*: it keeps only the position and the
  seqs of
  unsettled messages in memory.

Each message of the mailbox is in one of these places. Methods of this class move it, unless another is named.

    place       where its seq is                  what moves it on
    ---------   -------------------------------   ---------------------------------------------------------
    unread      above `intake.loaded_seq`         `page_read`: ready; `arrive`: ready, or aside
    aside       `intake`, behind the page         `page_read`: ready, or unread
    ready       `intake`, above the position      `hand_out`: unsettled; or dead, if it has expired
    unsettled   `outstanding`, in one of its      `settle`: settled; `terminate`, `fail`, `expire`, `detach`, and
                places (`unsettled.MessagePlace`)        `hand_out` if it has expired: dead; `Leaving.lose`: gone
    settled     at or below the position, or in   a subscription that starts in the past: unread
                `sources.ahead`, and nowhere else
    dead        `dead_letters.dead`               `dead_letters.put_back`: reviving
    reviving    `dead_letters.reviving`           `dead_letters.revive`: unsettled; `stay_dead`: dead

A message that is unread, ready, or unsettled and waiting may also be in `losses.losing`: it is being removed from
the log, and withheld if its turn comes. Other messages are never lost. Leaving a channel and subscribing to it
again from the past brings its dead letters back: those are dead or reviving, and also in another place. A dead
letter that is retried may still be in `sources.ahead`.

Pure: time is an argument, and methods return what must be read or sent.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from ..model.repository import MailboxState, PageRequest, SaveMailbox, UnsettledState
from ..settings import Delivery, Limits
from .backlog import Backlog
from .claims import Claims
from .dead_letters import DeadLetterBox
from .envelope import Envelope
from .intake import Intake
from .leaving import Leaving
from .losses import Losses
from .outstanding import Outstanding
from .parts import Parts
from .sessions import Session
from .sources import DIRECT, Interest, Sources
from .turns import HandedOut, Turns
from .unsettled import Abandoned, Unsettled

__all__ = ["Mailbox"]

_AHEAD_MAX = 256
"""Messages settled ahead of their turn to remember before a page is read so that their turn comes."""

_RECALLED_MAX = 32
"""Messages to reload with one page, beside what follows: together no more than the page's own bytes."""


class Mailbox:
    """See the module. The public parts answer the core's questions about what they own."""

    def __init__(
        self, state: MailboxState, delivery: Delivery, limits: Limits, *, group: str | None = None
    ) -> None:
        self.id = state.mailbox_id
        self.group = group
        """The name of the group that shares the mailbox; None for a bot's own."""
        self.sessions: list[Session] = []
        """The sessions whose credit it may use."""
        self.sources = Sources(state, direct=group is None)
        self.intake = Intake(state.position, limits)
        self.backlog = Backlog()
        self.outstanding = Outstanding(state.mailbox_id, state.unsettled, delivery, group=group)
        self.dead_letters = DeadLetterBox(self.outstanding)
        self.losses = Losses(state.gap)
        parts = Parts(self.sources, self.intake, self.backlog, self.outstanding, self.dead_letters, self.losses)
        self.claims = Claims(parts)
        self.leaving = Leaving(parts)
        self._delivery = delivery
        self._limits = limits
        self._dirty = False
        self._expired: list[Abandoned] = []

    def __repr__(self) -> str:
        state = "level" if self.intake.level else "behind" if self.sessions else "away"
        return (
            f"<Mailbox {self.id} {state} position={self.position}"
            f" ready={len(self.intake)} unsettled={len(self.outstanding)}>"
        )

    @property
    def position(self) -> int:
        """The highest seq delivered in order."""
        return self.sources.position

    @property
    def dirty(self) -> bool:
        """Whether the state on disk is out of date."""
        return self._dirty or self.outstanding.dirty or self.dead_letters.unsaved

    @property
    def timed(self) -> bool:
        """Whether anything changes as time passes."""
        return self.outstanding.suspends or (bool(self.sessions) and self.outstanding.timed)

    def has(self, seq: int) -> bool:
        """Return True if a message was delivered and is not settled."""
        return seq in self.outstanding

    def save(self) -> SaveMailbox:
        """Return the change that stores the current state, and mark it as stored."""
        self._dirty = self.outstanding.dirty = False
        return SaveMailbox(self.state(), self.outstanding.settling)

    def state(self) -> MailboxState:
        """Return the state to store."""
        position, floors, ahead = self.sources.saved()
        losing, items = self.losses.losing, self.outstanding.items()
        unsettled = [item.saved(seq) for seq, item in items if seq not in losing]
        reviving = [seq for seq in self.dead_letters.reviving if seq not in self.outstanding]
        unsettled += [UnsettledState(seq, 0, 0, retried=True) for seq in reviving]
        unsettled.sort(key=lambda item: item.seq)
        return MailboxState(self.id, position, tuple(unsettled), floors, ahead, self.losses.saved())

    def not_saved(self) -> None:
        """Mark the state as unsaved: the disk did not take what `save` returned."""
        self._dirty = True

    def forget_gap(self) -> None:
        """Clear the gap: a session has been notified."""
        self.losses.gap = None
        self._dirty = True

    def fate(self, seq: int, channel: str | None) -> str:
        """Return the state of a message of this mailbox: waiting, in_flight, returned, dead or settled."""
        item = self.outstanding.get(seq)
        if item is not None:
            return "in_flight" if item.session is not None else "returned"
        if seq in self.dead_letters:
            return "dead" if seq in self.dead_letters.dead else "returned"
        return "settled" if self._was_handed_out(seq, channel) else "waiting"

    def _was_handed_out(self, seq: int, channel: str | None) -> bool:
        return seq <= self.sources.handed_out(channel) or seq in self.sources.ahead

    # ── Sources ──────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, channel: str, start_seq: int) -> None:
        """Prepare for a subscription that starts in the past and is on its way to the disk.

        The state stored with it already goes back to that start, so that its messages are found after a crash.
        Nothing changes in memory before `subscribe`.
        """
        self.sources.prepare(channel, start_seq)
        self._dirty = True

    def subscribe(self, channel: str, interest: Interest, last_seq: int) -> None:
        """Add a channel. `last_seq` is the last seq that arrived: older messages must be read."""
        if self.sources.add(channel, interest):
            self._dirty = True
        if interest.start_seq < last_seq:
            self.intake.unload(self.position)

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel: drop what waits; what is in flight may still be settled.

        A retried dead letter stays, because somebody asked for it.
        """
        if self.sources.remove(channel):
            self.intake.drop(lambda envelope: envelope.channel == channel)
            self._discard_channel(channel, in_flight=False)

    def forget(self, channel: str) -> None:
        """Drop all messages of a channel that was left, even those in flight: a group takes it over."""
        self._discard_channel(channel, in_flight=True)

    def _discard_channel(self, channel: str, *, in_flight: bool) -> None:
        items = self.outstanding.items()
        self.outstanding.discard(
            [seq for seq, item in items if item.is_of(channel) and (in_flight or item.session is None)]
        )

    # ── Arriving and reading ─────────────────────────────────────────────────────────────────────────────

    def arrive(self, envelope: Envelope) -> bool:
        """Add a newly committed message, in seq order; return True if it is ready for delivery."""
        if envelope.channel is None:
            self.backlog.came()
        if not self.intake.listening or envelope.seq in self.outstanding:
            return False
        if not self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel):
            return False
        return self.intake.arrive(envelope)

    def express(self, envelope: Envelope, session: Session, now: float) -> bytes | None:
        """Put a reply in flight, ahead of its turn and outside the credit, for the session that awaits it.

        Return the delivery, or None if its turn has come anyway and only this session can get it: then call
        `arrive`.
        """
        alone = len(self.sessions) == 1
        if alone and self.intake.idle and not self.outstanding.is_anything_returned and session.free > 0:
            return None
        return self._deliver_express(envelope, session, now)

    def hand_over(self, seq: int, session: Session, now: float, wall: str) -> bytes | None:
        """Put in flight for a client's new session a reply that did not arrive in its earlier one.

        Return the delivery, or None if it may not be delivered any more: `detach` handles it.
        """
        item = self.outstanding.get(seq)
        envelope = None if item is None else item.envelope
        if envelope is None or self.outstanding.is_settling(seq) or envelope.is_expired(wall):
            return None
        return self._deliver_express(envelope, session, now)

    def _deliver_express(self, envelope: Envelope, session: Session, now: float) -> bytes:
        deadline = now + self._delivery.ack_wait_seconds
        delivery = self.outstanding.deliver(envelope, session, deadline)
        session.express.add(envelope.seq)
        self.outstanding.expect_settled([envelope.seq], deadline)
        return delivery

    def next_read(self, last_seq: int) -> PageRequest | None:
        """Return the page to read now; None while one is being read, or if nobody could take it."""
        if self.intake.reading is not None or not self.sessions:
            return None
        missing = self.outstanding.missing()
        # A bot that takes no messages, but receives its replies early, would fill `ahead` without limit.
        eager = len(self.sources.ahead) > _AHEAD_MAX or self._has_credit()
        if not missing and not (self.intake.hungry and eager):
            return None
        return self.intake.read(
            PageRequest(
                mailbox_id=self.id,
                seqs=tuple(missing[:_RECALLED_MAX]),
                sources=() if self.intake.level else self.remaining(),
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
        return len(self.outstanding) + len(self.intake)

    def unread(self, last_seq: int) -> PageRequest:
        """Return a request to count the unsettled messages that are not loaded."""
        early = self._early(self.intake.loaded_seq)
        return PageRequest(self.id, early, self.remaining(), last_seq, 1, 1)

    def _early(self, seq: int) -> tuple[int, ...]:
        """Return the seqs above `seq` that were delivered ahead of their turn."""
        return tuple(early for early in {*self.outstanding.seqs, *self.sources.ahead} if early > seq)

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
        lost = self._recall(request.seqs, {envelope.seq: envelope for envelope in recalled})
        # A request for single messages only has nothing after it. If the mailbox was rewound, or left or joined a
        # channel in the meantime, the page no longer follows what is loaded.
        if request.sources and self.sessions and request.sources == self.remaining():
            skipped = [seq for seq in damaged if seq not in request.seqs]
            lost.update(seq for seq in skipped if seq not in self.outstanding and seq not in self.sources.ahead)
            seen = [*(envelope.seq for envelope in messages), *skipped]
            through_seq = request.through_seq if complete else max(seen, default=self.intake.loaded_seq)
            wanted = [envelope for envelope in messages if self._is_new(envelope)]
            self.intake.take(wanted, through_seq=through_seq, complete=complete)
        self.intake.take_aside()
        self.losses.gone.clear()
        if self.intake.idle:
            self.sources.advance(self.intake.loaded_seq)
            self._dirty = True
        return tuple(sorted(lost))

    def _is_new(self, envelope: Envelope) -> bool:
        """Return True if a message that was read is wanted and was not delivered ahead of its turn."""
        return (
            self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel)
            and envelope.seq not in self.outstanding
            and envelope.seq not in self.sources.ahead
            and envelope.seq not in self.losses.gone
        )

    def _recall(self, seqs: Iterable[int], found: dict[int, Envelope]) -> set[int]:
        """Load messages to redeliver that were read again; return the seqs not found, which are lost."""
        lost: set[int] = set()
        unwanted: set[int] = set()
        for seq in seqs:
            item = self.outstanding.get(seq)
            if item is None or item.session is not None or self.outstanding.is_suspended(seq):
                continue
            envelope = found.get(seq)
            if envelope is None:
                lost.add(seq)
            elif not (item.retried or self.sources.still_wants(seq, envelope.channel)):
                unwanted.add(seq)
            else:
                item.envelope = envelope
                if not self.sessions:
                    item.unload()
        self.outstanding.discard(lost | unwanted)
        return lost

    # ── Room ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, last_seq: int) -> None:
        """Start the backlog count: it is zero if all of the log was delivered; otherwise the store must count."""
        self.backlog.known = self.sources.handed_out(None) >= last_seq

    def is_count_needed(self, last_seq: int, messages_max: int) -> bool:
        """Return True if the store must count first: the mailbox is so far behind that it may be full."""
        asked = self.backlog.known or self.backlog.counting
        return not asked and last_seq - self.sources.handed_out(None) >= messages_max

    def count(self, last_seq: int) -> tuple[PageRequest, int]:
        """Return a request to count the undelivered direct messages, and the number of this question."""
        handed_out = self.sources.handed_out(None)
        early, direct = self._early(handed_out), ((DIRECT, handed_out, False),)
        return PageRequest(self.id, early, direct, last_seq, 1, 1), self.backlog.ask()

    # ── Delivering ───────────────────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, wall: str = "") -> list[HandedOut]:
        """Put in flight what the sessions' credit allows; return each session's deliveries, in order.

        Messages that expired by the wall clock are skipped; `take_expired` returns them.
        """
        self.outstanding.release_due(now, wall)
        if not (self.outstanding.is_anything_returned or self.intake):
            return []
        handed_out = [HandedOut(session, [], []) for session in self.sessions if session.free > 0]
        if not handed_out:
            return []
        deadline = now + self._delivery.ack_wait_seconds
        if len(handed_out) == 1:
            self._hand_out_to(handed_out[0], self._next(wall), deadline)
        else:
            self._share_out(handed_out, self._next(wall), deadline)
        seqs = [seq for handed in handed_out for seq in handed.seqs]
        if seqs:
            self.outstanding.expect_settled(seqs, deadline)
        return [handed for handed in handed_out if handed.seqs]

    def _hand_out_to(self, handed: HandedOut, envelopes: Iterator[Envelope], deadline: float) -> None:
        """Put in flight what one session's credit allows."""
        session, deliveries, seqs = handed
        room = session.free
        while room > 0 and (envelope := next(envelopes, None)) is not None:
            deliveries.append(self.outstanding.deliver(envelope, session, deadline))
            seqs.append(envelope.seq)
            room = room - 1 if session.in_flight_bytes < session.in_flight_bytes_max else 0

    def _share_out(self, handed_out: Sequence[HandedOut], envelopes: Iterator[Envelope], deadline: float) -> None:
        """Put each message in flight for the session whose turn it is."""
        by_session = {handed.session: handed for handed in handed_out}
        turns = Turns(list(by_session), apart=self.group is not None)
        while turns and (envelope := next(envelopes, None)) is not None:
            session = turns.take(envelope.sender_bot_id)
            by_session[session].deliveries.append(self.outstanding.deliver(envelope, session, deadline))
            by_session[session].seqs.append(envelope.seq)
            turns.give_back(session)

    def _next(self, wall: str) -> Iterator[Envelope]:
        """Yield what to deliver next, in order; drop what must not be delivered any more."""
        outstanding, losing = self.outstanding, self.losses.losing
        while (seq := outstanding.first_returned()) is not None:
            item = outstanding.get(seq)
            assert item is not None, "a returned message is unsettled"
            envelope = item.envelope
            if envelope is None and seq not in losing:
                return  # it must be read first, and comes before new messages
            outstanding.take_returned()
            if seq in losing:
                outstanding.withhold(seq, envelope)
            elif envelope is not None and not (item.retried or self.sources.still_wants(seq, envelope.channel)):
                outstanding.discard((seq,))
            elif envelope is not None and not self._expires(envelope, wall):
                yield envelope
        while (envelope := self.intake.next()) is not None:
            seq = envelope.seq
            self.sources.advance(seq)
            # It may have been delivered since it was read: as an awaited reply, or as a retried dead letter.
            if seq in outstanding or seq in self.sources.ahead:
                continue
            if envelope.channel is None:
                self.backlog.went()
            if seq in losing:
                outstanding.withhold(seq, envelope)
            elif not self._expires(envelope, wall):
                yield envelope

    def _expires(self, envelope: Envelope, wall: str) -> bool:
        """Give up on a message if it has expired, and return whether it has."""
        if not envelope.is_expired(wall):
            return False
        item = self.outstanding.get(envelope.seq)
        self.outstanding.discard((envelope.seq,))
        attempts = 0 if item is None else item.attempt
        self._expired.append(self._abandon(envelope.seq, "expired", attempts))
        return True

    def take_expired(self) -> list[Abandoned]:
        """Return the messages that expired since the last call."""
        expired, self._expired = self._expired, []
        return expired

    # ── Settling ─────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, session: Session, seq: int) -> bool:
        """Settle a message; return False if it is not in flight for this session."""
        item = self.outstanding.get(seq)
        if item is None or item.session is not session:
            return False
        self.outstanding.settle(seq)
        self._pass(seq)
        return True

    def settle_committed(self, number: int) -> int:
        """Settle the messages that a commit settled, in flight or not; return how many there were."""
        seqs = self.outstanding.settle_committed(number)
        for seq in seqs:
            self._pass(seq)
        return len(seqs)

    def terminate(self, seq: int, reason: str) -> Abandoned | None:
        """Give up on a message in flight, as its bot asked; do nothing if a commit settles it."""
        item = self.outstanding.get(seq)
        if item is None or self.outstanding.is_settling(seq):
            return None
        self.outstanding.settle(seq)
        return self._abandon(seq, reason, item.attempt)

    def fail(
        self, seq: int, now: float, *, wall: str = "", delay: float | None = None, release: bool = False
    ) -> Abandoned | None:
        """Put back a message in flight, to be redelivered after a delay; count a failure unless it is released.

        Do nothing if a commit settles it. Return the abandoned message if this was its last failure.
        """
        item = self.outstanding.get(seq)
        if item is None or self.outstanding.is_settling(seq):
            return None
        if release:
            delay = delay or self._delivery.release_wait(item.attempt - item.failures - 1)
        elif delay is None:
            delay = self._delivery.nak_wait(item.failures)
        abandoned = self._give_back(seq, now, delay=delay, failure=None if release else "nak")
        if delay > 0:
            item.unload()  # it may wait for long: memory is for messages in flight
            if wall:
                item.rest(wall, delay)
        return abandoned

    def expire(self, now: float) -> list[Abandoned]:
        """Put back messages that were not settled in time; return those abandoned because of it."""
        abandoned: list[Abandoned] = []
        for seq, session in self.outstanding.overdue(now):
            session.doubted = True  # its client may be cut off; its next frame tells
            given_up = self._give_back(seq, now, failure="ack_wait ran out", gone=session.client)
            if given_up is not None:
                abandoned.append(given_up)
        for seq, failure, item in self.outstanding.given_up(now):
            abandoned.append(self._give_up(seq, failure, item))
        return abandoned

    def attach(self, session: Session) -> None:
        """Add a session whose credit this mailbox may use."""
        self.sessions.append(session)

    def detach(
        self, session: Session, now: float, *, vanished: bool, unsent: Container[int] = ()
    ) -> list[Abandoned]:
        """Remove a session, and put back what it had in flight: as failures if it vanished, except for `unsent`."""
        self.sessions.remove(session)
        loaded = self._has_credit()  # once, not for each of perhaps a thousand messages
        abandoned: list[Abandoned] = []
        for seq in [seq for seq, mailbox_id in session.in_flight.items() if mailbox_id == self.id]:
            if self.outstanding.is_settling(seq):
                self.outstanding.leave_to_commit(seq)
                continue
            failure = "its session vanished" if vanished and seq not in unsent else None
            given_up = self._give_back(seq, now, failure=failure, gone=session.client, loaded=loaded)
            if given_up is not None:
                abandoned.append(given_up)
        if not self.sessions:
            self.outstanding.unload()
            self.intake.unload(self.position)
        return abandoned

    def _give_back(
        self,
        seq: int,
        now: float,
        *,
        delay: float = 0.0,
        failure: str | None,
        gone: str | None = None,
        loaded: bool | None = None,
    ) -> Abandoned | None:
        """Put back a message in flight; it stays in memory if a session has credit for it."""
        item = self.outstanding.give_back(seq, now, delay=delay, failure=failure, gone=gone)
        if item is not None:
            return self._give_up(seq, failure or "", item)
        returned = self.outstanding.get(seq)
        if returned is not None and not (self._has_credit() if loaded is None else loaded):
            returned.unload()
        return None

    def _has_credit(self) -> bool:
        return any(session.free > 0 for session in self.sessions)

    def _give_up(self, seq: int, failure: str, item: Unsettled) -> Abandoned:
        return self._abandon(seq, f"{failure}; failed {item.failures} times", item.attempt)

    def _abandon(self, seq: int, reason: str, attempts: int) -> Abandoned:
        self._pass(seq)
        self.dead_letters.dead.add(seq)
        return Abandoned(seq, reason, attempts)

    def _pass(self, seq: int) -> None:
        """Note that a message is settled or dead, so that it is not delivered when its turn comes.

        That can happen if its channel was left, and subscribed to again from the past, while it was in flight.
        """
        if seq > self.position:
            if self.intake.idle:  # nothing waits below it: its turn has come
                self.sources.advance(seq)
            else:
                self.sources.ahead.add(seq)
        self._dirty = True
