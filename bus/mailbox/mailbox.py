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
    any of these four, and waiting                `Purging.purge`: settled
    settled     at or below the position, or in   a subscription that starts in the past: unread
                `sources.ahead`, and nowhere else
    dead        `dead_letters.dead`               `dead_letters.put_back`: reviving; `take_out`: settled
    reviving    `dead_letters.reviving`           `dead_letters.revive`: unsettled; `stay_dead`: dead

What is unread, ready, or unsettled and waiting may be in `losses.losing` as well: it is being removed from the log,
and withheld if its turn comes. Nothing else is ever lost. A channel that was left, and is subscribed to again,
brings its dead letters again: those are dead, or reviving, and in another place too. A dead letter that is retried
may still be in `sources.ahead`.

Pure: time is an argument, and what must be read or sent is returned.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence

from ..model.repository import MailboxState, PageRequest, SaveMailbox, UnsettledState
from ..settings import Delivery, Limits
from .backlog import Backlog
from .claims import Claims
from .dead_letters import DeadLetterBox
from .delivering import Delivering
from .intake import Intake
from .leaving import Leaving
from .losses import Losses
from .outstanding import Outstanding
from .parcel import Parcel, WireDeliveries
from .parts import Parts
from .purging import Purging
from .reading import Reading
from .sessions import Session
from .sources import Interest, Sources
from .turns import HandedOut
from .unsettled import Abandoned, Unsettled

__all__ = ["Mailbox"]


class Mailbox:
    """See the module. The parts that are public answer the core's questions about what they own."""

    def __init__(
        self, state: MailboxState, delivery: Delivery, limits: Limits, *, group: str | None = None
    ) -> None:
        self.id = state.mailbox_id
        self.group = group
        """The name of the group that shares the mailbox; None for a bot's own."""
        self.removed = False
        """Whether it is removed, or about to be: its state is not saved any more."""
        self.sessions: list[Session] = []
        """Those whose credit it may use."""
        self.sources = Sources(state, limits, direct=group is None)
        self.intake = Intake(state.position, limits)
        self.backlog = Backlog()
        self.outstanding = Outstanding(state.mailbox_id, state.unsettled, delivery, group=group)
        self.dead_letters = DeadLetterBox(self.outstanding)
        self.losses = Losses(state.gap)
        self._parts = parts = Parts(
            self.sources, self.intake, self.backlog, self.outstanding, self.dead_letters, self.losses
        )
        self.claims = Claims(parts)
        self.leaving = Leaving(parts)
        self.purging = Purging(self.id, parts)
        self.reading = Reading(self.id, parts)
        self._delivering = Delivering(
            parts,
            ack_wait_seconds=delivery.ack_wait_seconds,
            delayed_max=limits.delayed_per_mailbox_max,
            apart=group is not None,
        )
        self._delivery = delivery

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
        return self.sources.dirty or self.outstanding.dirty or self.dead_letters.unsaved

    @property
    def timed(self) -> bool:
        """Whether time that passes changes something."""
        return self.outstanding.suspends or (bool(self.sessions) and self.outstanding.timed)

    @property
    def takers(self) -> int:
        """How many sessions take from it: those with credit."""
        return sum(session.credit > 0 for session in self.sessions)

    @property
    def waits(self) -> bool:
        """Whether it has something to deliver, or to read, once a session has credit."""
        intake, lanes = self.intake, self.sources.lanes
        return bool(
            len(intake)
            or (not intake.level and intake.reading is None)
            or self.outstanding.is_anything_returned
            or (lanes and any(lane.waits and lane.intake.reading is None for lane in lanes))
        )

    def has(self, seq: int) -> bool:
        """Return True if a message was delivered and is not settled."""
        return seq in self.outstanding

    def save(self) -> SaveMailbox:
        """Return the change that stores the state as it is, and count it as stored."""
        self.sources.dirty = self.outstanding.dirty = False
        return SaveMailbox(self.state(), self.outstanding.settling)

    def state(self) -> MailboxState:
        """Return the state that is to be stored."""
        position, floors, ahead = self.sources.saved()
        losing, purging, items = self.losses.losing, self.purging.seqs, self.outstanding.items()
        unsettled = [item.saved(seq) for seq, item in items if seq not in losing and seq not in purging]
        reviving = [seq for seq in self.dead_letters.reviving if seq not in self.outstanding]
        unsettled += [UnsettledState(seq, 0, 0, retried=True) for seq in reviving]
        unsettled.sort(key=lambda item: item.seq)
        return MailboxState(self.id, position, tuple(unsettled), floors, ahead, self.losses.saved())

    def not_saved(self) -> None:
        """Note that the disk did not take what `save` returned."""
        self.sources.dirty = True

    def forget_gap(self) -> None:
        """Note that a session has learned of what was lost."""
        self.losses.gap = None
        self.sources.dirty = True

    def fate(self, seq: int, source: str | None) -> str:
        """Return the state of a message of this mailbox: waiting, in_flight, returned, dead or settled."""
        item = self.outstanding.get(seq)
        if item is not None:
            return "in_flight" if item.session is not None else "returned"
        if seq in self.dead_letters:
            return "dead" if seq in self.dead_letters.dead else "returned"
        return "settled" if self.sources.has_delivered(seq, source) else "waiting"

    # ── Sources ──────────────────────────────────────────────────────────────────────────────────────────

    def subscribe(self, channel: str, interest: Interest, last_seq: int) -> None:
        """Add a channel. `last_seq` is the end of what arrived: older messages must be read."""
        self.sources.add(channel, interest)
        if interest.start_seq < last_seq:
            self.intake.unload(self.position)

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel: what waits is dropped, what is in flight may still be settled.

        A dead letter that is retried is neither: somebody asked for it.
        """
        if self.sources.remove(channel):
            self.intake.drop_channel(channel)
            self._discard_channel(channel, in_flight=False)

    def pause(self, channel: str) -> bool:
        """Deliver nothing of a channel until `resume`; what is in flight may still be settled.

        Return True if that is a change.
        """
        if not self.sources.pause(channel):
            return False
        self.intake.drop_channel(channel)
        return True

    def resume(self, channel: str, last_seq: int) -> bool:
        """Deliver a paused channel where it was; return True if it was paused. `last_seq` as in `subscribe`."""
        through = self.sources.resume(channel)
        if through is None:
            return False
        if through < last_seq:
            self.intake.unload(self.position)
        self.outstanding.release_withheld()
        return True

    def forget(self, channel: str) -> None:
        """Drop everything of a channel that was left, even what is in flight: a group takes it over."""
        self._discard_channel(channel, in_flight=True)

    def _discard_channel(self, channel: str, *, in_flight: bool) -> None:
        items = self.outstanding.items()
        self.outstanding.discard(
            [seq for seq, item in items if item.is_of(channel) and (in_flight or item.session is None)]
        )

    # ── Arriving and reading ─────────────────────────────────────────────────────────────────────────────

    def arrive(self, parcel: Parcel) -> bool:
        """Add newly committed messages, in seq order; return True if some may be handed out."""
        if parcel.envelope.channel is None:
            self.backlog.came(parcel.envelope.sender_bot_id, len(parcel))
            if parcel.envelope.priority:
                if self.intake.idle:
                    self.sources.advance(parcel.seqs[0] - 1)
                return self.sources.lanes.arrive(parcel, connected=bool(self.sessions))
        if not self.intake.listening:
            return False
        wanted = self.sources.wanted(parcel)
        return len(wanted) > 0 and self.intake.arrive(wanted)

    def express(self, replies: Parcel, session: Session, now: float) -> WireDeliveries:
        """Put replies in flight for the session that waits for them: early, and outside the credit."""
        deadline = now + self._delivery.ack_wait_seconds
        self.sources.lanes.put_early(replies.envelope.priority, replies.seqs)
        delivery = self.outstanding.deliver(replies, session, deadline)
        return self._expressed(replies.seqs, delivery, session, deadline)

    def hand_over(self, seq: int, session: Session, now: float, wall: str) -> WireDeliveries | None:
        """Put a reply that did not arrive in a client's earlier session in flight for its new one.

        Return the delivery; None if it is not to be delivered any more: `detach` will do.
        """
        item = self.outstanding.get(seq)
        envelope = None if item is None else item.envelope
        if envelope is None or self.outstanding.is_settling(seq) or envelope.is_expired(wall):
            return None
        deadline = now + self._delivery.ack_wait_seconds
        return self._expressed([seq], self.outstanding.redeliver(seq, session, deadline), session, deadline)

    def _expressed(
        self, seqs: Sequence[int], delivery: WireDeliveries, session: Session, deadline: float
    ) -> WireDeliveries:
        session.express.update(seqs)
        self.outstanding.expect_settled(list(seqs), deadline)
        return delivery

    def next_read(self, last_seq: int) -> PageRequest | None:
        """Return the page to read now; None while one is being read, or if nobody could take it."""
        return self.reading.next_read(self.sessions, last_seq)

    def page_read(
        self, recalled: Iterable[Parcel], messages: Sequence[Parcel], *, complete: bool, damaged: Sequence[int]
    ) -> tuple[int, ...]:
        """Add the page that `next_read` asked for; return the seqs that were lost by damage or removal."""
        return self.reading.page_read(
            recalled, messages, complete=complete, damaged=damaged, away=not self.sessions
        )

    # ── Room ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, last_seq: int) -> None:
        """Begin to count what waits: nothing does, if all of the log was handed out; else the store has to say."""
        self.backlog.known = self.sources.handed_out(None) >= last_seq

    def restore_lane(self, priority: int, last_seq: int) -> None:
        """Note after a restart the last of the bot's messages of a priority that is not normal; after `begin`."""
        lanes = self.sources.lanes
        lanes.restore(priority, last_seq, self.sources.handed_out(None))
        self.backlog.known = self.backlog.known and not any(lane.waits for lane in lanes)

    def is_count_needed(self, last_seq: int, messages_max: int) -> bool:
        """Return True if only the store can say whether there is room: so much lies behind that it may be full."""
        asked = self.backlog.known or self.backlog.counting
        return not asked and last_seq - min(after for _, after, _ in self.sources.directs) >= messages_max

    def count(self, last_seq: int) -> tuple[PageRequest, int]:
        """Return the direct messages that were not handed out, to be counted, and the number of that question."""
        direct = self.sources.directs
        early = self._parts.early(min(after for _, after, _ in direct))
        return PageRequest(self.id, early, direct, last_seq, 1, 1), self.backlog.ask()

    # ── Delivering ───────────────────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, wall: str = "") -> list[HandedOut]:
        """Put in flight what the sessions' credit allows; return each session's deliveries, in order.

        What has expired by the wall clock is passed over, and is found in `take_expired`.
        """
        return self._delivering.hand_out(self.sessions, now, wall)

    def take_expired(self) -> list[Abandoned]:
        """Return what expired since the last time."""
        return self._delivering.take_expired()

    # ── Settling ─────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, session: Session, seqs: Collection[int]) -> None:
        """Settle messages of this mailbox that are in flight for a session, each named once."""
        self.outstanding.settle(session, seqs)
        self._parts.pass_over(seqs)

    def settle_committed(self, number: int) -> int:
        """Settle what a commit settled, whichever session has it by now; return how many messages that were."""
        seqs = self.outstanding.settle_committed(number)
        self._parts.pass_over(seqs)
        return len(seqs)

    def terminate(self, seq: int, reason: str) -> Abandoned | None:
        """Abandon a message that is in flight, as its bot asks. One that a commit settles is left alone."""
        item = self.outstanding.get(seq)
        if item is None or item.session is None or self.outstanding.is_settling(seq):
            return None
        channel = item.channel
        self.outstanding.settle(item.session, (seq,))
        return self._parts.abandon(seq, reason, item.attempt, channel)

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
        if delay > 0 and seq in self.outstanding:
            self.outstanding.rest(seq, wall, delay)
        return abandoned

    def expire(self, now: float) -> list[Abandoned]:
        """Return what was not settled in time; the result is what that made the mailbox give up on."""
        abandoned: list[Abandoned | None] = []
        for seq, session in self.outstanding.overdue(now):
            session.doubted = True  # it may be cut off: what is heard of it next says whether it was
            abandoned.append(self._give_back(seq, now, failure="ack_wait ran out", gone=session.client))
        for seq, failure, item in self.outstanding.given_up(now):
            abandoned.append(self._give_up(seq, failure, item))
        return [given_up for given_up in abandoned if given_up is not None]

    def attach(self, session: Session) -> None:
        """Add a session, whose credit this mailbox may use."""
        self.sessions.append(session)

    def detach(
        self, session: Session, now: float, *, vanished: bool, unsent: Container[int] = ()
    ) -> list[Abandoned]:
        """Remove a session, and return what it had in flight.

        If it vanished, these are failures, but for the unsent, and for the parked ones: nobody was at work on them.
        """
        self.sessions.remove(session)
        loaded = self._has_credit()  # asked once: a session may have had a thousand messages
        abandoned: list[Abandoned | None] = []
        for seq in [seq for seq, mailbox_id in session.in_flight.items() if mailbox_id == self.id]:
            if self.outstanding.is_settling(seq):
                self.outstanding.leave_to_commit(seq)
                continue
            sent = seq not in unsent
            failure = "its session vanished" if vanished and sent and seq not in session.parked else None
            given_up = self._give_back(seq, now, failure=failure, gone=session.client, sent=sent, loaded=loaded)
            abandoned.append(given_up)
        if not self.sessions:
            self.outstanding.unload_all()
            self.intake.unload(self.position)
            self.sources.lanes.unload()
        return [given_up for given_up in abandoned if given_up is not None]

    def _give_back(
        self,
        seq: int,
        now: float,
        *,
        delay: float = 0.0,
        failure: str | None,
        gone: str | None = None,
        sent: bool = True,
        loaded: bool | None = None,
    ) -> Abandoned | None:
        """Return a message that is in flight; its text stays in memory if a session has credit for it."""
        item = self.outstanding.give_back(seq, now, delay=delay, failure=failure, gone=gone, sent=sent)
        if item is not None:
            return self._give_up(seq, failure or "", item)
        if not (self._has_credit() if loaded is None else loaded):
            self.outstanding.unload(seq)
        return None

    def _has_credit(self) -> bool:
        return any(session.free > 0 for session in self.sessions)

    def _give_up(self, seq: int, failure: str, item: Unsettled) -> Abandoned | None:
        return self._parts.abandon(seq, f"{failure}; failed {item.failures} times", item.attempt, item.channel)
