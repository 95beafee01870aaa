"""Last wills: messages that bots leave with the worker, which sends them if they vanish and do not return in time.

Owns which will is due when. Its rules:

- A will is a bot's, and there is one. It is on disk before it is answered.
- It is sent when the bot has had no session for as long as the will says, unless the last one said goodbye. Then it
  is deleted, before the goodbye is answered.
- That it is sent, and that it is deleted, is one transaction. So it is sent once, and only if it is still there:
  one that was erased in the same batch is not sent.
- After a start of the worker, and after it stood still, every bot has had no chance to return: it gets one.
- It is sent with the rights that its bot has then. What the bot may not send is dropped, and operators are told. If
  there is no room, it waits.

Pure: time is the turn's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from ..errors import RevisionConflict
from ..mailbox.sessions import Session, Sessions
from ..model.events import DUPLICATE
from ..model.keyed import KeyedWrite
from ..model.repository import Committed, CommitWork, Lot, NewMessage, NotCommitted, Outcome, each
from ..model.wills import StoredWill, Will, will_write
from ..settings import Delivery
from ..wire.codec import encode
from ..wire.frames import Code, Goodbye, Ok, Publication, Refusal, WillFrame
from .committing import Committing
from .due_times import DueTimes
from .keyring import Keyring
from .works import WorkJob

__all__ = ["LeftWill", "Wills"]

_RETRY_SECONDS = 1.0
"""How soon a will is tried again that could not be sent."""

_SENT_AT_ONCE = 500
"""How many wills are sent in one turn of the loop: some milliseconds."""


class LeftWill(NamedTuple):
    """A will that a bot has left: after how long it is sent, and when, if the bot is away now."""

    message: Publication
    delay_seconds: float
    due: float | None


class _Asked(NamedTuple):
    """Who is to be answered when something is on disk."""

    session: Session
    request: WillFrame | Goodbye


_decode = msgspec.json.Decoder(Publication).decode


class Wills:
    """See the module. `keyring` is None for a worker without keys."""

    def __init__(
        self,
        sessions: Sessions,
        committing: Committing,
        keyring: Keyring | None,
        delivery: Delivery,
    ) -> None:
        self._keyring = keyring
        self._sessions = sessions
        self._committing = committing
        self.batches = committing.batches
        self._admission = committing.admission
        self.turn = committing.turn
        self._timeout_seconds = delivery.session_timeout_seconds
        self._wills: dict[str, StoredWill] = {}
        """By the ids of their bots, those on disk."""
        self._due = DueTimes()
        """When the wills of bots that are away are sent."""
        self._changing: Counter[str] = Counter()
        """How many changes of a bot's will are on their way to the disk, its sending among them."""

    def __repr__(self) -> str:
        return f"<Wills {len(self._wills)} {self._due}>"

    def __contains__(self, bot_id: object) -> bool:
        return bot_id in self._wills

    @property
    def bots(self) -> Collection[str]:
        """The ids of all bots that have left one."""
        return self._wills.keys()

    def get(self, bot_id: str) -> LeftWill | None:
        """Return a bot's will; None if it has none."""
        stored = self._wills.get(bot_id)
        if stored is None:
            return None
        return LeftWill(_decode(bytes(stored.will.message)), stored.will.delay_ms / 1000, self._due.get(bot_id))

    def message(self, bot_id: str, id: str) -> NewMessage | None:
        """Return a bot's will as it would be stored now, if it has this id, and the bot may send it."""
        stored = self._wills.get(bot_id)
        if stored is None or id.encode() not in (message := bytes(stored.will.message)):
            return None
        publication = _decode(message)
        if publication.id != id:
            return None
        try:
            [lot] = self._check(self._sender(bot_id), publication)
        except Refusal:
            return None
        return next(lot.messages())

    def load(self, wills: Iterable[StoredWill], now: float) -> None:
        """Enter the wills that are on disk at the start. Nobody is connected yet."""
        self._wills = {stored.will.bot_id: stored for stored in wills}
        self._wait(self._wills, now)

    # ── Bots ─────────────────────────────────────────────────────────────────────────────────────────────

    def request(self, session: Session, frame: WillFrame) -> None:
        """Store a will, or delete it. Raise Refusal if its message could not be sent now."""
        will = None
        if frame.message is not None:
            if frame.message.expects_reply or frame.message.delay is not None:
                text = "a will expects no reply, and waits for the 'delay' of its frame"
                raise Refusal(Code.BAD_REQUEST, text)
            self._check(session, frame.message)
            delay_ms = round(1000 * (self._timeout_seconds if frame.delay is None else frame.delay))
            will = Will(session.bot_id, msgspec.Raw(encode(frame.message)), delay_ms)
        self._change(session.bot_id, will, _Asked(session, frame))

    def _check(self, session: Session, publication: Publication) -> Sequence[Lot]:
        """Return a will's message as it is to be stored. Raise Refusal if its bot may not send it."""
        checked = self._admission.check(session, [publication])
        for refusal in (*checked.refused.values(), *checked.forbidden):
            if refusal is not None:
                raise refusal
        return checked.lots

    def _change(self, bot_id: str, will: Will | None, asked: _Asked | None, *, expected: int | None = None) -> None:
        work = self._work(will_write(bot_id, will, expected))
        self._changing[bot_id] += 1
        self.batches.add(_ChangeJob(self, self._committing, work, will, asked))

    def _work(self, write: KeyedWrite, lots: Sequence[Lot] = (), sender: Session | None = None) -> CommitWork:
        """Return a commit without an id: the worker repeats none, and a will that is left again is the same one."""
        channels = [] if sender is None else self._admission.new_channels(sender, lots)
        return CommitWork(
            None, write.key, "", None, None, (), None, None, None,
            lots, channels, known_only=False, timestamp="", number=0, values=[write],
        )  # fmt: skip

    def came(self, bot_id: str) -> None:
        """Note that a bot has a session."""
        self._due.discard(bot_id)

    def left(self, bot_id: str) -> None:
        """Note that a session has ended without a goodbye."""
        stored = self._wills.get(bot_id)
        if stored is not None and self._due.get(bot_id) is None and not self.is_there(bot_id):
            self._due.set(bot_id, self.turn.moment.now + stored.will.delay_ms / 1000)

    def is_there(self, bot_id: str) -> bool:
        """Return True if a bot has a session."""
        return bool(self._sessions.of_bot(bot_id))

    def goodbye(self, session: Session, request: Goodbye) -> None:
        """Answer a goodbye that has ended a session: if it was the last one, its bot's will is deleted first.

        A session that only asks was none of the bot's.
        """
        bot_id = session.bot_id
        has_will = bot_id in self._wills or bot_id in self._changing
        if has_will and not session.reads_only and not self.is_there(bot_id):
            self._due.discard(bot_id)
            self._change(bot_id, None, _Asked(session, request))
        else:
            self.turn.send(session.address, Ok(request=request.request))

    def changed(self, bot_id: str, stored: StoredWill | None) -> None:
        """Enter what is on disk. Its bot may be gone already."""
        self._end_change(bot_id)
        self._due.discard(bot_id)
        if stored is None:
            self._wills.pop(bot_id, None)
            return
        self._wills[bot_id] = stored
        self.left(bot_id)

    def erased(self, bot_ids: Iterable[str]) -> None:
        """Forget wills that were erased on disk."""
        for bot_id in bot_ids:
            self._wills.pop(bot_id, None)
            self._due.discard(bot_id)

    def not_changed(self, bot_id: str) -> None:
        """Note that what was to be on disk is not."""
        self._end_change(bot_id)
        self.left(bot_id)

    def _end_change(self, bot_id: str) -> None:
        self._changing[bot_id] -= 1
        if not self._changing[bot_id]:
            del self._changing[bot_id]

    # ── Sending ──────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        """Send the wills that are due, some at a time."""
        for bot_id in islice(self._due.take(now), _SENT_AT_ONCE):
            if bot_id in self._changing or self._is_leaving(bot_id):
                self._due.set(bot_id, now + _RETRY_SECONDS)
            else:
                self._send(*self._wills[bot_id])

    def wait_anew(self, now: float) -> None:
        """Let every bot return first: it could not until now."""
        self._wait(self._due, now)

    def _wait(self, bot_ids: Iterable[str], now: float) -> None:
        delays = {bot_id: self._wills[bot_id].will.delay_ms / 1000 for bot_id in bot_ids}
        self._due.replace({bot_id: now + max(self._timeout_seconds, delay) for bot_id, delay in delays.items()})

    def _is_leaving(self, bot_id: str) -> bool:
        """Return True if a bot is being removed; it may stay."""
        bot = self._committing.directory.bots.get(bot_id)
        return bot is not None and bot.name in self._committing.directory.leaving

    def _send(self, will: Will, revision: int) -> None:
        try:
            sender = self._sender(will.bot_id)
            lots = self._check(sender, _decode(bytes(will.message)))
        except Refusal as refusal:
            self.drop(will.bot_id, refusal.code)
            return
        parts = list(chain.from_iterable(self._admission.reserve(sender, lot) for lot in lots))
        if any(lack is not None for _, lack in parts):
            for part, lack in parts:
                if lack is None:
                    self._admission.leave(part)
            self._due.set(will.bot_id, self.turn.moment.now + _RETRY_SECONDS)
            return
        self._changing[will.bot_id] += 1
        work = self._work(will_write(will.bot_id, None, revision), [part for part, _ in parts], sender)
        self.batches.add(_SendJob(self, self._committing, work))

    def _sender(self, bot_id: str) -> Session:
        """Return a session as the bot would have it now. Raise Refusal if it can have none."""
        bot = self._committing.directory.bots.get(bot_id)
        if bot is None:
            raise Refusal(Code.UNKNOWN_BOT, "its bot was removed")
        sender = Session(b"", "", self.turn.moment.now, credit=0, in_flight_bytes_max=1)
        sender.bot_id, sender.bot_name = bot.id, bot.name
        if self._keyring is not None:
            sender.principal = self._keyring.newest(bot.id, self.turn.moment.wall)
            if sender.principal is None:
                raise Refusal(Code.FORBIDDEN, "its bot has no valid key")
        return sender

    def drop(self, bot_id: str, code: str) -> None:
        """Delete a will that its bot may not send, and tell operators."""
        bot = self._committing.directory.bots.get(bot_id)
        self.turn.note("will_dropped", bot=bot_id if bot is None else bot.name, code=code)
        self._due.discard(bot_id)
        self._change(bot_id, None, None, expected=self._wills[bot_id].revision)

    def sent(self, lot: Lot, outcome: Outcome) -> None:
        """Enter that a will is in the log, or was deleted alone: its bot had sent another message with its id."""
        [added] = each(lot, outcome)
        if added.duplicate:
            self.turn.note("will_dropped", bot=lot.sender_bot_name, code=DUPLICATE)
        else:
            self.turn.note("will_sent", bot=lot.sender_bot_name, id=lot.ids[0])
        self.changed(lot.sender_bot_id, None)

    def again(self, bot_id: str) -> None:
        """Try to send a will again soon; if its bot was there meanwhile, after its whole delay, as `left` noted."""
        self._end_change(bot_id)
        if bot_id in self._wills and self._due.get(bot_id) is None and not self.is_there(bot_id):
            self._due.set(bot_id, self.turn.moment.now + _RETRY_SECONDS)


class _ChangeJob(WorkJob):
    """A will on its way to the disk, or its end; nobody `asked` for the end of one that was dropped."""

    def __init__(
        self, wills: Wills, committing: Committing, work: CommitWork, will: Will | None, asked: _Asked | None
    ) -> None:
        size_bytes = 0 if will is None else len(bytes(will.message))
        super().__init__(work, committing.admission, committing.meet, size_bytes=size_bytes)
        self._wills = wills
        self._will = will
        self._asked = asked

    def done(self, answers: Sequence[Committed | NotCommitted | None], at: str) -> None:
        """Enter it, and answer. One that was to be dropped may have been erased or replaced before."""
        bot_id, answer = self.work.bot_id, answers[0]
        if not isinstance(answer, Committed):
            self._wills.not_changed(bot_id)
            return
        self._wills.changed(bot_id, None if self._will is None else StoredWill(self._will, answer.revisions[0]))
        if self._asked is not None:
            self._wills.turn.send(self._asked.session.address, Ok(request=self._asked.request.request))

    def failed(self, code: Code, message: str) -> None:
        """Leave everything as it was. The will of a bot that said goodbye is deleted with another batch."""
        if self._asked is None or isinstance(self._asked.request, Goodbye):
            self._wills.batches.postpone(self)
            return
        self._wills.not_changed(self.work.bot_id)
        self._wills.turn.refuse(self._asked.session.address, code, message, self._asked.request.request)


class _SendJob(WorkJob):
    """A will that is sent, and deleted with that."""

    def __init__(self, wills: Wills, committing: Committing, work: CommitWork) -> None:
        size_bytes = sum(lot.size_bytes for lot in work.lots)
        super().__init__(work, committing.admission, committing.meet, size_bytes=size_bytes)
        self._wills = wills

    def begin(self) -> None:
        """Send nothing if its bot is back."""
        if self._wills.is_there(self.work.bot_id):
            self.changes = []
        else:
            super().begin()

    def done(self, answers: Sequence[Committed | NotCommitted | None], at: str) -> None:
        """Enter its message."""
        self.leave_room()
        match answers:
            case [Committed(_, added)] if added is not None:
                self.enter(added, at)
                self._wills.sent(self.work.lots[0], added[0])
            case [] | [NotCommitted(RevisionConflict())]:
                self._wills.again(self.work.bot_id)
            case [NotCommitted(error)]:
                self._wills.again(self.work.bot_id)
                self._wills.drop(self.work.bot_id, getattr(error, "code", Code.FORBIDDEN))
        self.admission.founded(self.work.channels)

    def failed(self, code: Code, message: str) -> None:
        """Try again."""
        self.leave_room()
        self.admission.founded(self.work.channels)
        self._wills.again(self.work.bot_id)
