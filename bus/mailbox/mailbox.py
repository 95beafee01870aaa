"""One mailbox: the messages that a bot, or a group, has not settled yet.

Owns one view of the log, which consists of the `parts`. Its rules (docs/design.md):

- First deliveries happen in seq order; the position (`sources`) is the highest seq that was delivered in order.
- Every message of the mailbox at or below the position is settled, dead or unsettled (`outstanding`).
- How messages come into memory stands in `intake`. A mailbox without a session is *away*: it keeps in memory no
  more than the position and the seqs of what is unsettled.

Each message of the mailbox is in one of these places. It is moved by a method of this class, if no other is named.

    place       where its seq stands              what moves it on
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

What is unread, ready, or unsettled and waiting may be in `losses.losing` as well: it is being removed from the log,
and withheld if its turn comes. Nothing else is ever lost. A channel that was left, and is subscribed to again,
brings its dead letters again: those are dead, or reviving, and in another place too. A dead letter that is retried
may still be in `sources.ahead`.

Pure: time is an argument, and what must be read or sent is returned.
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
"""Messages settled before their turn that are kept in mind before a page is read to let their turn come."""

_RECALLED_MAX = 32
"""Messages that are read again by one page, beside what follows: together no more than the page's own bytes."""


class Mailbox:
    """See the module. The parts that are public answer the core's questions about what they own."""

    def __init__(
        self, state: MailboxState, delivery: Delivery, limits: Limits, *, group: str | None = None
    ) -> None:
        self.id = state.mailbox_id
        self.group = group
        """The name of the group that shares the mailbox; None for a bot's own."""
        self.sessions: list[Session] = []
        """Those whose credit it may use."""
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
        """The highest seq that was delivered in order."""
        return self.sources.position

    @property
    def dirty(self) -> bool:
        """Whether the stored state is an earlier one."""
        return self._dirty or self.outstanding.dirty or self.dead_letters.unsaved

    @property
    def timed(self) -> bool:
        """Whether time that passes changes something."""
        return self.outstanding.suspends or (bool(self.sessions) and self.outstanding.timed)

    def has(self, seq: int) -> bool:
        """Return True if a message was delivered and is not settled."""
        return seq in self.outstanding

    def save(self) -> SaveMailbox:
        """Return the change that stores the state as it is, and count it as stored."""
        self._dirty = self.outstanding.dirty = False
        return SaveMailbox(self.state(), self.outstanding.settling)

    def state(self) -> MailboxState:
        """Return the state that is to be stored."""
        position, floors, ahead = self.sources.saved()
        losing, items = self.losses.losing, self.outstanding.items()
        unsettled = [item.saved(seq) for seq, item in items if seq not in losing]
        reviving = [seq for seq in self.dead_letters.reviving if seq not in self.outstanding]
        unsettled += [UnsettledState(seq, 0, 0, retried=True) for seq in reviving]
        unsettled.sort(key=lambda item: item.seq)
        return MailboxState(self.id, position, tuple(unsettled), floors, ahead, self.losses.saved())

    def not_saved(self) -> None:
        """Note that the disk did not take what `save` returned."""
        self._dirty = True

    def forget_gap(self) -> None:
        """Note that a session has learned of what was lost."""
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
        """Note that a subscription which starts in the past is on its way to the disk.

        The state that is stored with it has gone back to that start already, so that after a crash its messages are
        found; in memory nothing changes before `subscribe`.
        """
        self.sources.prepare(channel, start_seq)
        self._dirty = True

    def subscribe(self, channel: str, interest: Interest, last_seq: int) -> None:
        """Add a channel. `last_seq` is the end of what arrived: older messages must be read."""
        if self.sources.add(channel, interest):
            self._dirty = True
        if interest.start_seq < last_seq:
            self.intake.unload(self.position)

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel: what waits is dropped, what is in flight may still be settled.

        A dead letter that is retried is neither: somebody asked for it.
        """
        if self.sources.remove(channel):
            self.intake.drop(lambda envelope: envelope.channel == channel)
            self._discard_channel(channel, in_flight=False)

    def forget(self, channel: str) -> None:
        """Drop everything of a channel that was left, even what is in flight: a group takes it over."""
        self._discard_channel(channel, in_flight=True)

    def _discard_channel(self, channel: str, *, in_flight: bool) -> None:
        items = self.outstanding.items()
        self.outstanding.discard(
            [seq for seq, item in items if item.is_of(channel) and (in_flight or item.session is None)]
        )

    # ── Arriving and reading ─────────────────────────────────────────────────────────────────────────────

    def arrive(self, envelope: Envelope) -> bool:
        """Add a newly committed message, in seq order; return True if it may be handed out."""
        if envelope.channel is None:
            self.backlog.came()
        if not self.intake.listening or envelope.seq in self.outstanding:
            return False
        if not self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel):
            return False
        return self.intake.arrive(envelope)

    def express(self, envelope: Envelope, session: Session, now: float) -> bytes | None:
        """Put a reply in flight for the session that waits for it, before its turn and outside the credit.

        Return the delivery; None if it is its turn anyway and only this session can get it: `arrive` will do.
        """
        alone = len(self.sessions) == 1
        if alone and self.intake.idle and not self.outstanding.is_anything_returned and session.free > 0:
            return None
        return self._deliver_express(envelope, session, now)

    def hand_over(self, seq: int, session: Session, now: float, wall: str) -> bytes | None:
        """Put a reply that did not arrive in a client's earlier session in flight for its new one.

        Return the delivery; None if it is not to be delivered any more: `detach` will do.
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
        # A bot that never takes anything, but has its replies early, would keep them all in mind.
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
        """Return what is not loaded, as `PageRequest.sources`."""
        return self.sources.after(self.intake.loaded_seq)

    def loaded(self) -> int:
        """Return how many messages are unsettled and in memory; `unread` is the rest."""
        return len(self.outstanding) + len(self.intake)

    def unread(self, last_seq: int) -> PageRequest:
        """Return what is unsettled and not in memory, to be counted."""
        early = self._early(self.intake.loaded_seq)
        return PageRequest(self.id, early, self.remaining(), last_seq, 1, 1)

    def _early(self, seq: int) -> tuple[int, ...]:
        """Return what was delivered before its turn and lies above a seq."""
        return tuple(early for early in {*self.outstanding.seqs, *self.sources.ahead} if early > seq)

    def page_read(
        self,
        recalled: Iterable[Envelope],
        messages: Sequence[Envelope],
        *,
        complete: bool,
        damaged: Sequence[int],
    ) -> tuple[int, ...]:
        """Add the page that `next_read` asked for; return the seqs that this mailbox lost by damage or removal."""
        request = self.intake.end_reading()
        lost = self._recall(request.seqs, {envelope.seq: envelope for envelope in recalled})
        # Where only single messages were asked for, nothing follows. Where the mailbox was rewound, left or given
        # another channel in the meantime, what was read no longer follows what is there.
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
        """Return True if a message that was read is wanted, and was not delivered before its turn."""
        return (
            self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel)
            and envelope.seq not in self.outstanding
            and envelope.seq not in self.sources.ahead
            and envelope.seq not in self.losses.gone
        )

    def _recall(self, seqs: Iterable[int], found: dict[int, Envelope]) -> set[int]:
        """Load what is to be redelivered and was read again; return what was not found: it is lost."""
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
        """Begin to count what waits: nothing does, if all of the log was handed out; else the store has to say."""
        self.backlog.known = self.sources.handed_out(None) >= last_seq

    def is_count_needed(self, last_seq: int, messages_max: int) -> bool:
        """Return True if only the store can say whether there is room: so much lies behind that it may be full."""
        asked = self.backlog.known or self.backlog.counting
        return not asked and last_seq - self.sources.handed_out(None) >= messages_max

    def count(self, last_seq: int) -> tuple[PageRequest, int]:
        """Return the direct messages that were not handed out, to be counted, and the number of that question."""
        handed_out = self.sources.handed_out(None)
        early, direct = self._early(handed_out), ((DIRECT, handed_out, False),)
        return PageRequest(self.id, early, direct, last_seq, 1, 1), self.backlog.ask()

    # ── Delivering ───────────────────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, wall: str = "") -> list[HandedOut]:
        """Put in flight what the sessions' credit allows; return each session's deliveries, in order.

        What has expired by the wall clock is passed over, and is found in `take_expired`.
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
        """Put in flight for one session what its credit allows."""
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
        """Yield what is to be delivered next, in order; drop what must not be delivered any more."""
        outstanding, losing = self.outstanding, self.losses.losing
        while (seq := outstanding.first_returned()) is not None:
            item = outstanding.get(seq)
            assert item is not None, "what is returned is unsettled"
            envelope = item.envelope
            if envelope is None and seq not in losing:
                return  # it must be read first, and goes before what is new
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
            # It may have been delivered since it was read: as a reply that was waited for, or as a dead letter.
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
        """Return what expired since the last time."""
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
        """Settle what a commit settled, whichever session has it by now; return how many messages that were."""
        seqs = self.outstanding.settle_committed(number)
        for seq in seqs:
            self._pass(seq)
        return len(seqs)

    def terminate(self, seq: int, reason: str) -> Abandoned | None:
        """Give up on a message that is in flight: its bot says so. One that a commit settles is left alone."""
        item = self.outstanding.get(seq)
        if item is None or self.outstanding.is_settling(seq):
            return None
        self.outstanding.settle(seq)
        return self._abandon(seq, reason, item.attempt)

    def fail(
        self, seq: int, now: float, *, wall: str = "", delay: float | None = None, release: bool = False
    ) -> Abandoned | None:
        """Return a message that is in flight, to be redelivered after a while; a failure unless it is released.

        One that a commit settles is left alone. The result is what the last failure made the mailbox give up on.
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
            item.unload()  # it waits, perhaps for long: memory is for what is in flight
            if wall:
                item.rest(wall, delay)
        return abandoned

    def expire(self, now: float) -> list[Abandoned]:
        """Return what was not settled in time; the result is what that made the mailbox give up on."""
        abandoned: list[Abandoned] = []
        for seq, session in self.outstanding.overdue(now):
            session.doubted = True  # it may be cut off: what is heard of it next says whether it was
            given_up = self._give_back(seq, now, failure="ack_wait ran out", gone=session.client)
            if given_up is not None:
                abandoned.append(given_up)
        for seq, failure, item in self.outstanding.given_up(now):
            abandoned.append(self._give_up(seq, failure, item))
        return abandoned

    def attach(self, session: Session) -> None:
        """Add a session, whose credit this mailbox may use."""
        self.sessions.append(session)

    def detach(
        self, session: Session, now: float, *, vanished: bool, unsent: Container[int] = ()
    ) -> list[Abandoned]:
        """Remove a session, and return what it had in flight: failures if it vanished, but for the unsent."""
        self.sessions.remove(session)
        loaded = self._has_credit()  # asked once: a session may have had a thousand messages
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
        """Return a message that is in flight; its text stays in memory if a session has credit for it."""
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
        """Note that a message is settled or dead, so that it is not delivered when its turn comes, or again.

        It comes again if its channel was left, and subscribed to from the past while it was in flight.
        """
        if seq > self.position:
            if self.intake.idle:  # nothing waits below it: it is its turn after all
                self.sources.advance(seq)
            else:
                self.sources.ahead.add(seq)
        self._dirty = True
