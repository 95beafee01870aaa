"""From the log to the sessions: add new messages to mailboxes, and deliver what credit allows.

Owns which mailboxes have work to do: to deliver, to read, to wait, to save. What happens in one mailbox is in
`mailbox`.

Pure.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from ..mailbox.mailbox import Mailbox
from ..mailbox.parcel import Parcel, parcel_of
from ..mailbox.sessions import Session
from ..mailbox.turns import HandedOut
from ..mailbox.unsettled import Abandoned
from ..model.repository import (
    Change,
    DeadLetter,
    Page,
    PageRequest,
    SeenBot,
    StoredLot,
)
from ..settings import Settings
from ..wire.codec import deliver_frame
from ..wire.frames import Code, Gap, Nak, Term
from .batches import Batches, Job
from .counters import Counters
from .directory import Directory
from .effects import Count, Read, Send, Turn
from .filling import Filling
from .tapping import Tapping

__all__ = ["Dispatch"]


class Dispatch:
    """See the module. `last_seq` is the last seq that reached the mailboxes."""

    def __init__(
        self, directory: Directory, batches: Batches, turn: Turn, settings: Settings, last_seq: int
    ) -> None:
        self.last_seq = last_seq
        self.tapping = Tapping(directory, turn, settings)
        self._filling = Filling(directory, turn, settings.limits.backlog_messages_max)
        self.counters = Counters()
        self._directory = directory
        self._batches = batches
        self._turn = turn
        self._settings = settings
        self._arrivals: list[StoredLot] = []
        """Messages on disk that are not in the mailboxes yet."""
        self._touched: dict[Mailbox, None] = {}
        self._changed: dict[Mailbox, None] = {}
        """Mailboxes of which something was settled, and that wait for their turn like others."""
        self._credited: dict[Session, None] = {}
        """Sessions that may have credit again."""
        self._dirty: dict[Mailbox, None] = {}
        self._timed = {mailbox: None for mailbox in directory.mailboxes.values() if mailbox.timed}
        self.groups_awaiting = {mailbox: None for mailbox in directory.mailboxes.values() if _awaits(mailbox)}
        """Groups with messages that were failed by clients now away."""
        self._gap_sent_at: dict[Mailbox, float] = {}
        """When sessions were notified of a mailbox's gap."""
        self._unwritten: list[_WriteJob] = []
        self._seen: dict[str, str] = {}
        """When bots were last heard, if that is not saved yet."""

    def __repr__(self) -> str:
        return f"<Dispatch last_seq={self.last_seq} dirty={len(self._dirty)} timed={len(self._timed)}>"

    # ── Out ──────────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, *stored: StoredLot) -> None:
        """Accept messages that are now on disk: `arrive` adds them to the mailboxes, after the answers."""
        self._arrivals += stored

    def arrive(self) -> None:
        """Add what was entered to the mailboxes that want it, in seq order, and copy it to the tap."""
        arrivals, self._arrivals = self._arrivals, []
        express: dict[Session, HandedOut] = {}
        for stored in arrivals:
            lot, seqs = stored.lot, stored.seqs
            assert seqs[0] > self.last_seq, "the log grows at its end"
            self.last_seq = seqs[-1]
            self.counters.published += len(seqs)
            parcel = parcel_of(stored)
            if lot.recipient_channel is None:
                mailbox = self._directory.mailboxes.get(lot.recipient_bot_id or "")
                if mailbox is None:
                    continue  # the bot that held a run was removed: nobody is told that it crashed
                if lot.reply_tos is not None and not parcel.envelope.is_expired(self._turn.moment.wall):
                    parcel = self._express(mailbox, parcel, lot.reply_tos, express)
                if parcel.seqs and mailbox.arrive(parcel):
                    self.touch(mailbox)
                continue
            entry = self._directory.channels[lot.recipient_channel]
            prev_seq, entry.head_seq = entry.head_seq, self.last_seq
            for mailbox in entry.mailboxes.values():
                if mailbox.arrive(parcel):
                    self.touch(mailbox)
            self.tapping.copy(lot.recipient_channel, parcel, prev_seq)
        for handed in express.values():
            self._deliver(handed)

    def _express(
        self, mailbox: Mailbox, parcel: Parcel, reply_tos: Sequence[str], express: dict[Session, HandedOut]
    ) -> Parcel:
        """Put awaited replies in flight for the sessions that await them; return what takes its turn."""
        awaited: dict[Session, list[int]] = {}
        for at, reply_to in enumerate(reply_tos):
            for session in mailbox.sessions:
                asked = session.expecting.get(reply_to)
                if asked is not None and self._directory.was_asked(parcel.envelope.sender_bot_id, asked):
                    del session.expecting[reply_to]
                    awaited.setdefault(session, []).append(at)
                    break
        left = parcel
        for session, indexes in awaited.items():
            replies = parcel.select(indexes)
            handed = express.setdefault(session, HandedOut(session, [], []))
            handed.deliveries.append(mailbox.express(replies, session, self._turn.moment.now))
            handed.seqs.extend(replies.seqs)
            left = left.without(replies.seqs)
            self.touch(mailbox)
        return left

    def page_read(self, request: PageRequest, page: Page) -> None:
        """Add a page to the mailbox that it was read for, and send its sessions the gaps."""
        mailbox = self._directory.mailboxes.get(request.mailbox_id)
        if mailbox is None or mailbox.reading.request != request:
            return  # it was removed, and perhaps there is another one of its name
        lost = mailbox.page_read(
            map(parcel_of, page.recalled),
            list(map(parcel_of, page.messages)),
            complete=page.complete,
            damaged=(*page.damaged, *page.erased),
        )
        if page.erased and (erased := [seq for seq in lost if seq in page.erased]):
            mailbox.leaving.miss(erased)
            self.send_gap(mailbox, mailbox.sessions)
            lost = tuple(seq for seq in lost if seq not in page.erased)
        for seq in lost:
            reason = "damaged" if seq in page.damaged else "retention"
            for session in mailbox.sessions:
                self._turn.send(session.address, Gap(from_seq=seq, to_seq=seq, reason=reason))
        self.touch(mailbox)

    def counted(self, count: Count, waiting: Mapping[str, int]) -> None:
        """Apply the number of messages that wait in a mailbox, by their senders, unless it was removed."""
        mailbox = self._directory.mailboxes.get(count.request.mailbox_id)
        if mailbox is not None:
            mailbox.backlog.counted(waiting, number=count.number)

    def touch(self, mailbox: Mailbox) -> None:
        """Note that a mailbox may have something to deliver, to read or to save."""
        self._touched[mailbox] = None

    def forget(self, mailbox: Mailbox) -> None:
        """Do nothing more for a mailbox that is removed."""
        mailbox.removed = True
        notes = self._touched, self._changed, self._dirty, self._timed, self.groups_awaiting
        for noted in (*notes, self._gap_sent_at):
            noted.pop(mailbox, None)

    def touch_session(self, session: Session) -> None:
        """Note that a session may have credit again, for what waits in its mailboxes."""
        self._credited[session] = None

    def _freed(self, session: Session, mailboxes: Iterable[Mailbox]) -> None:
        """Note that messages of these mailboxes are no longer in flight for a session.

        If it has others, the freed credit is for the one whose turn it is.
        """
        if len(session.mailbox_ids) > 1:
            self._changed.update(dict.fromkeys(mailboxes))
            self.touch_session(session)
        else:
            self._touched.update(dict.fromkeys(mailboxes))

    def _touch_sharers(self, mailbox: Mailbox) -> None:
        """Touch a mailbox that got messages back, and those that share the freed credit."""
        self.touch(mailbox)
        for session in mailbox.sessions:
            if len(session.mailbox_ids) > 1:
                self.touch_session(session)

    def reserve(self, bot_id: str, sender_bot_id: str, count: int, *, of_one_max: int) -> int:
        """Reserve room in a bot's mailbox for so many of a sender's messages, or fewer; return how many.

        While it is not known how many wait there, there is room for all, and the store is asked.
        """
        mailbox = self._directory.mailboxes[bot_id]
        most = self._settings.limits.backlog_messages_max
        if not mailbox.backlog.known and mailbox.is_count_needed(
            self.last_seq, min(self._filling.limit, of_one_max)
        ):
            self._turn.add(Count(*mailbox.count(self.last_seq)))
        reserved = mailbox.backlog.room(sender_bot_id, count, most, of_one_max=of_one_max)
        mailbox.backlog.expect(sender_bot_id, reserved)
        if mailbox.backlog.waiting > self._filling.limit:
            self._filling.look(mailbox)
        return reserved

    def expect_no_more(self, bot_id: str, sender_bot_id: str, count: int) -> None:
        """Release the room of messages whose outcome is known."""
        self._directory.mailboxes[bot_id].backlog.expect_no_more(sender_bot_id, count)

    def run(self) -> None:
        """Deliver and read what the touched mailboxes can, and then what new credit allows."""
        touched, self._touched = self._touched, {}
        for mailbox in touched:
            self._serve(mailbox)
        credited, self._credited = self._credited, {}
        for session in credited:
            self._use_credit(session)
        changed, self._changed = self._changed, {}
        for mailbox in changed:
            self._note(mailbox)

    def _use_credit(self, session: Session) -> None:
        """Serve the mailboxes that wait for a session's credit, in turn and at most once each."""
        for _ in range(len(session.waiting)):
            if session.free <= 0:
                return
            mailbox_id, _ = session.waiting.popitem(last=False)
            self._serve(self._directory.mailboxes[mailbox_id])

    def _serve(self, mailbox: Mailbox) -> None:
        for handed in mailbox.hand_out(*self._turn.moment):
            self._deliver(handed)
            handed.session.waiting.pop(mailbox.id, None)  # it goes behind the others
        self._bury(mailbox, mailbox.take_expired())
        request = mailbox.next_read(self.last_seq)
        if request is not None:
            self._turn.add(Read(request))
        self._note(mailbox)

    def _note(self, mailbox: Mailbox) -> None:
        """Note what a mailbox waits for: credit, the disk, or time."""
        waits = mailbox.waits
        for session in mailbox.sessions:
            if waits:
                session.waiting[mailbox.id] = None
            else:
                session.waiting.pop(mailbox.id, None)
        if mailbox.dirty:
            self._dirty[mailbox] = None
        if _awaits(mailbox):
            self.groups_awaiting[mailbox] = None
        elif self.groups_awaiting:
            self.groups_awaiting.pop(mailbox, None)
        if mailbox.timed:
            self._timed[mailbox] = None
        else:
            self._timed.pop(mailbox, None)

    def _deliver(self, handed: HandedOut) -> None:
        """Send deliveries, in as few frames as their limits allow."""
        self.counters.delivered += len(handed.seqs)
        for deliveries, seqs in handed.frames(self._settings.limits.frame_bytes_max):
            self._turn.add(Send(handed.session.address, deliver_frame(deliveries), tuple(seqs)))

    # ── Back ─────────────────────────────────────────────────────────────────────────────────────────────

    def attach(self, session: Session) -> None:
        """Let a session receive from all its bot's mailboxes."""
        for mailbox in self._directory.mailboxes_of(session.bot_id):
            self.join(session, mailbox)

    def join(self, session: Session, mailbox: Mailbox) -> None:
        """Let a session receive from a mailbox, and send it the mailbox's gap."""
        session.mailbox_ids[mailbox.id] = None
        mailbox.attach(session)
        self.send_gap(mailbox, [session])
        self.touch(mailbox)

    def detach(self, session: Session, *, vanished: bool, unsent: Container[int] = ()) -> None:
        """Return what a session had in flight to its mailboxes, for other sessions to receive."""
        self._turn.note(
            "session_vanished" if vanished else "session_ended",
            bot=session.bot_name,
            session=session.id,
            in_flight=len(session.in_flight),
            silent_seconds=round(self._turn.moment.now - session.last_heard, 3),
            key=session.public_key,
        )
        for mailbox in self._directory.mailboxes_lent_to(session):
            self.leave(session, mailbox, vanished=vanished, unsent=unsent)

    def leave(self, session: Session, mailbox: Mailbox, *, vanished: bool, unsent: Container[int] = ()) -> None:
        """Return what a session had in flight from one mailbox."""
        del session.mailbox_ids[mailbox.id]
        session.waiting.pop(mailbox.id, None)
        self._bury(mailbox, mailbox.detach(session, self._turn.moment.now, vanished=vanished, unsent=unsent))
        self._touch_sharers(mailbox)

    def send_gap(self, mailbox: Mailbox, sessions: Iterable[Session]) -> None:
        """Send sessions the gap that retention left in their mailbox; it is cleared when one is heard again."""
        if mailbox.losses.gap is None:
            return
        first, last = mailbox.losses.gap
        for session in sessions:
            self._turn.send(session.address, Gap(from_seq=first, to_seq=last, reason="retention"))
            self._gap_sent_at[mailbox] = self._turn.moment.now

    def _clear_seen_gaps(self) -> None:
        for mailbox, sent_at in list(self._gap_sent_at.items()):
            if any(session.last_heard > sent_at for session in mailbox.sessions):
                del self._gap_sent_at[mailbox]
                mailbox.forget_gap()
                self.touch(mailbox)

    def hand_over(self, seq: int, earlier: Session, session: Session) -> None:
        """Send a reply again to the session that replaces the one it was sent to."""
        mailbox = self._directory.mailboxes[earlier.in_flight[seq]]
        delivery = mailbox.hand_over(seq, session, *self._turn.moment)
        if delivery is not None:
            self.counters.delivered += 1
            self._turn.add(Send(session.address, deliver_frame([delivery]), (seq,)))

    def settle(self, session: Session, seqs: Iterable[int]) -> list[Mailbox]:
        """Settle messages, and return the mailboxes that changed."""
        theirs: dict[str, list[int]] = {}
        for seq in dict.fromkeys(seqs):
            if (mailbox_id := session.in_flight.get(seq)) is not None:
                theirs.setdefault(mailbox_id, []).append(seq)
        mailboxes = [self._directory.mailboxes[mailbox_id] for mailbox_id in theirs]
        for mailbox, settled in zip(mailboxes, theirs.values(), strict=True):
            mailbox.settle(session, settled)
            self.counters.settled += len(settled)
        self._freed(session, mailboxes)
        return mailboxes

    def settle_committed(self, mailbox: Mailbox, number: int) -> None:
        """Settle the messages of a commit that is now on disk."""
        self.counters.settled += mailbox.settle_committed(number)
        self._touch_sharers(mailbox)

    def give_up(self, session: Session, request: Nak | Term) -> list[Mailbox]:
        """Carry out a nak or a term, and return the mailboxes of its messages."""
        mailboxes: dict[Mailbox, None] = {}
        for seq in request.seqs:
            mailbox = self._directory.mailbox_in_flight(session, seq)
            if mailbox is None:
                continue
            if isinstance(request, Nak):
                now, wall = self._turn.moment
                abandoned = mailbox.fail(seq, now, wall=wall, delay=request.delay, release=request.release)
            else:
                abandoned = mailbox.terminate(seq, request.reason or "term")
            if abandoned is not None:
                self._bury(mailbox, [abandoned])
            mailboxes[mailbox] = None
        self._freed(session, mailboxes)
        return list(mailboxes)

    def extend(self, session: Session, seqs: Sequence[int], *, progress: bool = False) -> None:
        """Restart the ack_wait of messages that are being worked on; with progress, forget their failures."""
        for seq in seqs:
            mailbox = self._directory.mailbox_in_flight(session, seq)
            if mailbox is not None:
                if mailbox.outstanding.extend(seq, self._turn.moment.now):
                    self.touch(mailbox)
                if progress and mailbox.outstanding.note_progress(seq):
                    self.save_again([mailbox])

    def progressed(self, session: Session, run_id: str) -> None:
        """Forget the failures of the message that began a run, if this session has it: a step was recorded."""
        if not session.retries:
            return
        for seq, mailbox_id in session.in_flight.items():
            mailbox = self._directory.mailboxes[mailbox_id]
            _, id = mailbox.outstanding.identity(seq) or ("", "")
            if id == run_id and mailbox.outstanding.note_progress(seq):
                self.save_again([mailbox])

    def park(self, session: Session, seqs: Sequence[int]) -> None:
        """Let messages in flight wait outside the credit, as many as one session may park."""
        mailboxes: dict[Mailbox, None] = {}
        for seq in dict.fromkeys(seqs):
            mailbox = self._directory.mailbox_in_flight(session, seq)
            room = len(session.parked) < self._settings.limits.parked_max
            if mailbox is not None and room and seq not in session.parked:
                mailbox.outstanding.park(seq)
                mailboxes[mailbox] = None
        self._freed(session, mailboxes)

    def wait_anew(self, sessions: Iterable[Session]) -> None:
        """Restart all waits for clients: the worker stood still, and could not hear them."""
        for session in sessions:
            self.extend(session, [seq for seq in session.in_flight if seq not in session.parked])
        for mailbox in self._timed:
            mailbox.outstanding.wait_anew()

    def expire(self) -> None:
        """Expire what was not settled in time, and touch the mailboxes in which something is due."""
        self._clear_seen_gaps()
        self._filling.tick()
        sharing: dict[Session, None] = {}
        for mailbox in list(self._timed):
            self._bury(mailbox, mailbox.expire(self._turn.moment.now))
            self.touch(mailbox)
            sharing.update(dict.fromkeys(session for session in mailbox.sessions if len(session.mailbox_ids) > 1))
        for session in sharing:  # once each, even if several of its mailboxes have deadlines
            self.touch_session(session)

    def _bury(self, mailbox: Mailbox, abandoned: Iterable[Abandoned]) -> None:
        wall = self._turn.moment.wall
        dead: list[int] = []
        for given_up in abandoned:
            mailbox.dead_letters.bury(
                DeadLetter(mailbox.id, given_up.seq, given_up.reason, given_up.attempts, wall, given_up.channel)
            )
            self.counters.dead += 1
            dead.append(given_up.seq)
        if dead:
            name = self._directory.name_of(mailbox)
            self._turn.note("dead_letters", bot=name, messages=len(dead), first_seq=dead[0])

    # ── To disk ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def unsaved(self) -> bool:
        """Whether there is something for the next flush."""
        return bool(self._dirty or self._unwritten or self._seen)

    def see(self, bot_id: str) -> None:
        """Note that a bot was heard now."""
        self._seen[bot_id] = self._turn.moment.wall
        self._directory.seen(bot_id, self._turn.moment.wall)

    def write(self, changes: Sequence[Change], mailboxes: Sequence[Mailbox] = ()) -> None:
        """Write changes that no request waits for; after a failure, retry with the next flush."""
        self._batches.add(_WriteJob(self._unwritten, changes=changes, mailboxes=mailboxes))

    def save_again(self, mailboxes: Iterable[Mailbox]) -> None:
        """Note that the state of these mailboxes was not saved."""
        self._dirty.update(dict.fromkeys(mailboxes))

    def flush(self) -> list[Mailbox]:
        """Return the mailboxes to save now, and retry the writes that failed."""
        mailboxes = [mailbox for mailbox in self._dirty if mailbox.dirty and not mailbox.removed]
        self._dirty.clear()
        unwritten = list(self._unwritten)
        self._unwritten.clear()
        for job in unwritten:
            self.write(job.changes, job.mailboxes)
        if self._seen:
            self.write([SeenBot(bot_id, at) for bot_id, at in self._seen.items()])
            self._seen = {}
        return mailboxes


class _WriteJob(Job[Any]):
    """A write that no request waits for; after a failure it is added to `unwritten`."""

    def __init__(
        self, unwritten: list[_WriteJob], *, changes: Sequence[Change], mailboxes: Sequence[Mailbox]
    ) -> None:
        super().__init__(changes=changes, mailboxes=mailboxes)
        self._unwritten = unwritten

    def done(self, answers: Sequence[Any], at: str) -> None:
        """Do nothing: no request waits for it."""

    def failed(self, code: Code, message: str) -> None:
        """Retry with the next flush."""
        self._unwritten.append(self)


def _awaits(mailbox: Mailbox) -> bool:
    return mailbox.group is not None and mailbox.outstanding.awaits_clients
