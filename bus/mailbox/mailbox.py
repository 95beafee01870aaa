"""One mailbox: which messages a bot, or a group, has not settled, and which of them are in flight.

Owns one view of the log. Its rules (docs/design.md):

- First deliveries happen in seq order; the position (`sources`) is the highest seq handed out.
- Every message of the mailbox at or below the position is settled or stands in `_unsettled`.
- How messages come into memory, and the moves between level and behind, stand in `intake`. A mailbox without a
  session is *away*: it keeps in memory no more than the position and the seqs of what is unsettled.

Each message of the mailbox is in one of these places. What moves it is a method; the name of the place is the word
that the methods and tests use.

    place       where its seq stands              what moves it on
    ---------   -------------------------------   ---------------------------------------------------------
    unread      above `intake.loaded_seq`         `page_read`: ready; `arrive`: ready, or aside
    aside       `intake`, behind the page         `page_read`: ready, or unread
    ready       `intake`, above the position      `hand_out`: in flight; or dead, where it expired
    in flight   `_unsettled`, with a session;     `settle`: settled; `terminate`: dead; `fail`, `expire`, `detach`:
                that session's `in_flight`        delayed, suspended or dead; `keep`: in flight elsewhere
    delayed     `_unsettled`, `_delayed`          `hand_out`, when it is due: returned
    resting     `_unsettled`, `_resting`          `hand_out`: delayed, for what is left by the wall clock
    returned    `_unsettled`, `_returned`         `hand_out`: in flight, before what is ready; or dead likewise
    suspended   `_unsettled`, `_absent`           `come_back` of its client: returned or resting; `expire`: dead
    withheld    `_unsettled`, `losses`            `retain`: returned; `lose`: gone
    settling    `_unsettled`, `settling`          `settle_committed`: settled; `keep_unsettled`: returned
    settled     at or below the position, or      a subscription that starts in the past: unread
                in `_ahead`, and nowhere else
    dead        `dead`                            `put_back`: reviving
    reviving    `_reviving`                       `revive`: returned; `stay_dead`: dead

Two of them are marks as well. What is in flight may be *settling* too: a commit on its way to the disk settles it,
and until then it is neither given up nor put back. What is unread, ready, delayed, resting or returned may be
*losing* (`losses.losing`): it is being removed from the log, and where its turn comes it is withheld. Nothing
else is ever lost. A channel that was left and is asked for from the past brings its dead letters again: those are
dead, or reviving, and in another place. A dead letter that is tried again may stand in `_ahead` still.

Pure: time is an argument, and what must be read or sent is returned.
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
"""Messages handed out before their turn that are kept in mind before a page is read to let their turn come."""

_Owed = tuple[Envelope, Unsettled]

_RECALLED_MAX = 32
"""Messages that are read again by one page, beside what follows: together no more than the page's own bytes."""


class Mailbox(Held):
    """See the module. `dirty` says that its state differs from what was last taken by `state()`."""

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
        """The highest seq handed out in order."""
        return self.sources.position

    @property
    def interests(self) -> dict[str, Interest]:
        """The channels that it wants."""
        return self.sources.interests

    @property
    def level(self) -> bool:
        """Whether every committed message above the position is in memory."""
        return self.intake.level

    @property
    def gap(self) -> tuple[int, int] | None:
        """The range in which messages were lost, until a session was told."""
        return self.losses.gap

    def state(self) -> MailboxState:
        """Return what is to be kept on disk, and count it as kept."""
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
        """Note that a subscription which starts in the past is on its way to the disk.

        The state that goes there with it goes back to that start already, so that after a crash its messages are
        found; in memory nothing changes before `subscribe`.
        """
        self.sources.prepare(channel, start_seq)
        self.dirty = True

    def dismiss(self, channel: str) -> None:
        """Note that a subscription that was prepared was not stored, or stood already."""
        self.sources.dismiss(channel)

    def restore(self, channel: str, interest: Interest) -> None:
        """Add a channel as before a restart: the saved state knows how far it was handed out."""
        self.sources.restore(channel, interest)

    def subscribe(self, channel: str, interest: Interest, last_seq: int) -> None:
        """Add a channel. `last_seq` is the end of what arrived: older messages must be read."""
        if self.sources.add(channel, interest):
            self.dirty = True
        if interest.start_seq < last_seq:
            self.intake.unload(self.position)

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel: what waits is dropped, what is in flight may still be settled.

        A dead letter that is tried again is neither: somebody asked for it.
        """
        if not self.sources.remove(channel):
            return
        self.intake.drop(lambda envelope: envelope.channel == channel)
        self._remove({seq for seq, item in self._unsettled.items() if item.session is None and item.is_of(channel)})

    def forget(self, channel: str) -> None:
        """Drop everything of a channel that was left, even what is in flight: a group takes it over."""
        seqs = {seq for seq, item in self._unsettled.items() if item.is_of(channel)}
        for seq in seqs:
            if self._unsettled[seq].session is not None:
                self._take_back(seq, self._unsettled[seq])
        self._remove(seqs)

    def _remove(self, seqs: Set[int]) -> None:
        """Forget unsettled messages that no session has."""
        if seqs:
            self._wait_no_more(seqs)
            for seq in seqs:
                del self._unsettled[seq]
            self.dirty = True

    # ── Arriving and reading ─────────────────────────────────────────────────────────────────────────────

    def arrive(self, envelope: Envelope) -> bool:
        """Add a newly committed message, in seq order; return True if it is one to hand out."""
        if envelope.channel is None:
            self.backlog.came()
        if not self.intake.listening or envelope.seq in self._unsettled:
            return False
        if not self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel):
            return False
        return self.intake.arrive(envelope)

    def express(self, envelope: Envelope, session: Session, now: float) -> bytes | None:
        """Put a reply in flight for the session that waits for it, before its turn and outside the credit.

        Returns the delivery; None if it is its turn anyway and only this session can get it: `arrive` will do.
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
        """Return the page to read now; None while one is being read, or if nobody could take it."""
        if self.intake.reading is not None or not self.sessions:
            return None
        lost = [seq for seq in self._returned if self._is_lost(seq)]
        # A bot that never takes anything, but has its replies early, would keep them all in mind.
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
        """Return what is not loaded, as `PageRequest.sources`."""
        return self.sources.after(self.intake.loaded_seq)

    def loaded(self) -> int:
        """Return how many messages are unsettled and in memory; `unread` is the rest."""
        return len(self._unsettled) + len(self.intake)

    def unread(self, last_seq: int) -> PageRequest:
        """Return what is unsettled and not in memory, to be counted."""
        early = self._early(self.intake.loaded_seq)
        return PageRequest(self.id, early, self.remaining(), last_seq, 1, 1)

    def _early(self, seq: int) -> tuple[int, ...]:
        """Return what was handed out before its turn and lies above a seq."""
        return tuple(early for early in {*self._unsettled, *self._ahead} if early > seq)

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
        found = {envelope.seq: envelope for envelope in recalled}
        lost = self._recall(request.seqs, found)
        # Where only single messages were asked for, nothing follows. Where the mailbox was rewound, left or given
        # another channel in the meantime, what was read no longer follows what is there.
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
        """Return True if a message that was read is wanted, and was not handed out before its turn."""
        return (
            self.sources.wants(envelope.seq, envelope.sender_bot_id, envelope.channel)
            and envelope.seq not in self._unsettled
            and envelope.seq not in self._ahead
            and envelope.seq not in self.losses.gone
        )

    # ── Room ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, last_seq: int) -> None:
        """Begin to count what waits: nothing does, if all of the log was handed out; else the store has to say."""
        self.backlog.known = self.sources.handed_out(None) >= last_seq

    def expect(self) -> None:
        """Keep room for a direct message that is on its way to the disk."""
        self.backlog.expected += 1

    def expect_no_more(self) -> None:
        """Keep room no more for a direct message whose outcome is known."""
        self.backlog.expected -= 1

    def is_count_needed(self, last_seq: int, messages_max: int) -> bool:
        """Return True if only the store can say whether there is room: so much lies behind that it may be full."""
        asked = self.backlog.known or self.backlog.counting
        return not asked and last_seq - self.sources.handed_out(None) >= messages_max

    def count(self, last_seq: int) -> tuple[PageRequest, int]:
        """Return the direct messages that were not handed out, to be counted, and the number of that question."""
        handed_out = self.sources.handed_out(None)
        early, direct = self._early(handed_out), ((DIRECT, handed_out, False),)
        return PageRequest(self.id, early, direct, last_seq, 1, 1), self.backlog.ask()

    def counted(self, waiting: int, *, number: int) -> None:
        """Accept the answer to a question of `count`."""
        self.backlog.counted(waiting, number=number)

    def count_anew(self) -> None:
        """Note that direct messages left the log: a count that is on its way may have them or not."""
        self.backlog.void()

    # ── Handing out and settling ─────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, wall: str = "") -> list[HandedOut]:
        """Put in flight what the sessions' credit allows; return each session's deliveries, in order.

        What expired by the wall clock is passed over, and is found in `take_expired`.
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
        """Put in flight for one session what its credit allows."""
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
        """Settle what a commit settled, whoever has it in flight by now; return how many messages that were."""
        seqs = [seq for seq in self.settling.pop(number) if seq in self._unsettled]
        for seq in seqs:
            if self._unsettled[seq].session is not None:
                self._take_back(seq, self._unsettled[seq])
            self._drop(seq)
        return len(seqs)

    def terminate(self, seq: int, reason: str) -> Abandoned | None:
        """Give up on a message that is in flight: its bot says so. One that a commit settles is left alone."""
        if self.is_settling(seq):
            return None
        item = self._unsettled[seq]
        self._take_back(seq, item)
        self._drop(seq)
        return self._abandon(seq, reason, item)

    def fail(
        self, seq: int, now: float, *, wall: str = "", delay: float | None = None, release: bool = False
    ) -> Abandoned | None:
        """Put back a message that is in flight, to come again after a while; count a failure unless it is released.

        One that a commit settles is left alone. Returns what the last failure made the mailbox give up on.
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
            item.unload()  # it waits, perhaps for long: memory is for what is in flight
            if wall:
                item.due_at, item.delay = later(wall, delay), delay
        return abandoned

    def expire(self, now: float) -> list[Abandoned]:
        """Put back what was not settled in time; return what that made the mailbox give up on."""
        abandoned: list[Abandoned] = []
        for seq in self._deadlines.due(now):
            item = self._unsettled.get(seq)
            if item is None or item.session is None:
                continue
            if self.is_settling(seq):
                item.deadline = now + self._delivery.ack_wait_seconds
            if item.deadline > now:  # it was extended: look again then
                self._deadlines.add(item.deadline, [seq])
                continue
            item.session.doubted = True  # it may be cut off: what is heard of it next says whether it was
            given_up = self._give_back(seq, item, now, failure="ack_wait ran out", gone=item.session.client)
            if given_up is not None:
                abandoned.append(given_up)
        for seq, failure in self._absent.due(now, self._delivery.session_timeout_seconds):
            item = self._unsettled[seq]
            self._drop(seq)
            abandoned.append(self._give_up(seq, item, failure))
        return abandoned

    def attach(self, session: Session) -> None:
        """Add a session, whose credit this mailbox may use."""
        self.sessions.append(session)

    def detach(
        self, session: Session, now: float, *, vanished: bool, unsent: Container[int] = ()
    ) -> list[Abandoned]:
        """Remove a session, and put back what it had in flight: failures if it vanished, but for the unsent."""
        self.sessions.remove(session)
        wanted = self._has_credit()  # asked once: a session may have had a thousand messages
        abandoned: list[Abandoned] = []
        for seq in [seq for seq, mailbox_id in session.in_flight.items() if mailbox_id == self.id]:
            item = self._unsettled[seq]
            if self.is_settling(seq):  # it comes again only if that commit is refused
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
        """Return what expired since the last time."""
        expired, self._expired = self._expired, []
        return expired

    def _rest_on(self, now: float, wall: str) -> None:
        """Let what rested before the start do so for what is left of it, however the wall clock was set since."""
        for seq in self._resting:
            item = self._unsettled.get(seq)
            if item is not None and item.due_at is not None:
                left = (parse_timestamp(item.due_at) - parse_timestamp(wall)).total_seconds()
                heapq.heappush(self._delayed, (now + min(max(left, 0.0), item.delay), seq))
        self._resting = []

    def _owed(self, wall: str) -> Iterator[_Owed]:
        """Yield what is to be handed out, in order; drop what must not be handed out any more."""
        while self._returned:
            seq = self._returned[0]
            item = self._unsettled.get(seq)
            if seq in self.losses.losing:
                self.losses.withhold(heapq.heappop(self._returned))
                continue
            envelope = item.envelope if item is not None and item.session is None else None
            if item is not None and item.session is None and envelope is None:
                return  # it must be read first, and goes before what is new
            heapq.heappop(self._returned)
            if item is None or envelope is None:
                continue  # settled, dropped or handed out since it was put here
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
            # It may have been handed out since it was read: as a reply that was waited for, or as a dead letter.
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
        """Put back a message that is in flight; `gone` is the client that failed it by vanishing, and may return.

        Its text stays in memory where it is `wanted`: where a session has credit for it, which this may have freed.
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
        """Remove an unsettled message, so that it is not delivered again when its turn comes, or comes again.

        It comes again where its channel was left and asked for from the past while it was in flight.
        """
        if seq > self.position:
            if self.level and not self.intake:  # nothing waits below it: it is its turn after all
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
