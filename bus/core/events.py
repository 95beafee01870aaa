"""Events of the worker, for those who listen: who came and went, what was given up, and what runs full.

Owns what is told, and how often. Most of it is noticed where operators are told of it (`Turn.note`). Its rules:

- Nothing is kept while nobody wants it (`audience`).
- An event enters the log with the next batch, or makes a batch of its own, at most so many a second.
- What happens to one subject is told at once, and again after a while: what happened meanwhile is one event, which
  counts it. Of too many subjects, what happens is summed up in one event a kind.
- If events cannot be written, they wait, and are told later. A crash loses them.
- Dead letters are told in the transaction that stores them, one event for each mailbox.
- What happens to events is not told: a dead letter or a removed message of their channel.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Sessions
from ..model.events import (
    LISTED_MAX,
    DeadLettersAdded,
    DeadMessage,
    EventBody,
    MailboxDrained,
    MailboxFilling,
    MessagesRemoved,
    Noticed,
    SessionEnded,
    SessionOpened,
    SessionVanished,
    StorageFilled,
    WorkerServing,
    event_lot,
)
from ..model.records import EVENTS_CHANNEL, WORKER_ID, Channel
from ..model.repository import DeadLetter, Lot, Outcome
from ..wire.codes import Code
from .audience import Audience
from .batches import Batches, Job
from .effects import Moment, Note, Turn

__all__ = ["Events"]

_ALONE_SECONDS = 0.2
"""How often events alone make a batch: an event is in the log after about this time."""

_RETRY_SECONDS = 5.0
"""How long they wait for another batch after one was refused: the disk may be full, and each attempt is logged."""

_REST_SECONDS = 10.0
"""How often the same kind of event of the same subject is told."""

_AT_ONCE_MAX = 100
"""Events in one batch, and dead letters' mailboxes: what a thousand bots that come at once take two seconds for."""

_SUBJECTS_MAX = 1000
"""Subjects of events that wait to be told; further ones are summed up."""

_Key = tuple[str, str | None]
"""The kind and the subject of an event."""


class Events:
    """See the module."""

    def __init__(
        self,
        audience: Audience,
        sessions: Sessions,
        batches: Batches,
        *,
        turn: Turn,
        new_id: Callable[[], str],
    ) -> None:
        turn.noted += (self._note,)
        batches.tell = self._of_dead_letters
        self._audience = audience
        self._directory = audience.directory
        self._sessions = sessions
        self._new_id = new_id
        self._ready: dict[_Key, Noticed] = {}
        """Events to be told with the next batch."""
        self._later: dict[_Key, Noticed] = {}
        """Events of subjects that rest."""
        self._resting: OrderedDict[_Key, float] = OrderedDict()
        """Until when the same is not told again, the earliest first."""
        self._due = 0.0

    def __repr__(self) -> str:
        return f"<Events ready={len(self._ready)} later={len(self._later)}>"

    # ── What happened ────────────────────────────────────────────────────────────────────────────────────

    def _note(self, note: Note, moment: Moment) -> None:
        """Publish what operators are told, if somebody listens and it is an event."""
        if self._audience.wants(EVENTS_CHANNEL) and (event := self._event(note, moment.wall)) is not None:
            self._add(event)

    def refused(self, code: Code, moment: Moment) -> None:
        """Note that a batch was refused, and tell of it if that was because storage is full."""
        self._due = moment.now + _RETRY_SECONDS
        if code == Code.STORAGE_FULL and self._audience.wants(EVENTS_CHANNEL):
            self._add(StorageFilled(at=moment.wall, since=moment.wall))

    def _event(self, note: Note, at: str) -> Noticed | None:
        fields = note.fields
        match note.event:
            case "session_opened":
                return SessionOpened(at=at, **self._session(fields["bot"]), client=fields["client"])
            case "session_ended":
                return SessionEnded(at=at, **self._session(fields["bot"]))
            case "session_vanished":
                return SessionVanished(at=at, **self._session(fields["bot"]))
            case "mailbox_filling":
                return MailboxFilling(at=at, **fields)
            case "mailbox_drained":
                return MailboxDrained(at=at, **fields)
            case "messages_removed":
                return MessagesRemoved(at=at, **fields)
            case "serving":
                return WorkerServing(at=at, command=fields["command"], version=fields["posthouse"])
        return None

    def _session(self, bot: str) -> dict[str, Any]:
        """Return what each event of a session tells."""
        record = self._directory.names.get(bot)
        return {"bot": bot, "sessions": 0 if record is None else len(self._sessions.of_bot(record.id))}

    def _add(self, event: Noticed) -> None:
        waiting = self._later if _key(event) in self._resting else self._ready
        if _key(event) not in waiting and len(self._ready) + len(self._later) >= _SUBJECTS_MAX:
            event, waiting = event.summed_up(), self._ready
        _put(waiting, event)

    # ── To disk ──────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        """Let what happened to subjects that have rested be told."""
        while self._resting:
            key, until = next(iter(self._resting.items()))
            if until > now:
                return
            del self._resting[key]
            if (event := self._later.pop(key, None)) is not None:
                _put(self._ready, event)

    def is_due(self, now: float) -> bool:
        """Return True if events should be written even if nothing else is."""
        return bool(self._ready) and now >= self._due

    def take(self, moment: Moment, *, flush: bool) -> list[Job[Any]]:
        """Return what is to be written with the next batch; with `flush`, as at shutdown, everything."""
        if not self._audience.wants(EVENTS_CHANNEL):
            self._ready, self._later = {}, {}
        if flush:
            for event in self._later.values():
                _put(self._ready, event)
            self._later = {}
        if not self._ready:
            return []
        count = len(self._ready) if flush else _AT_ONCE_MAX
        events = list(islice(self._ready.values(), count))
        for key in map(_key, events):
            del self._ready[key]
            self._resting[key] = moment.now + _REST_SECONDS
            self._resting.move_to_end(key)
        self._due = moment.now + _ALONE_SECONDS
        return [_TellJob(self, events, self._lots(events), self._channels(moment.wall))]

    def not_written(self, events: Iterable[Noticed]) -> None:
        """Keep events for a later batch."""
        for event in events:
            self._resting.pop(_key(event), None)
            later = [waiting.pop(_key(event)) for waiting in (self._ready, self._later) if _key(event) in waiting]
            for each in (event, *later):
                _put(self._ready, each)

    def _of_dead_letters(
        self, buried: Sequence[tuple[Mailbox, Sequence[DeadLetter]]], timestamp: str
    ) -> list[Job[Any]]:
        """Return what tells of dead letters, for the batch that stores them."""
        if not self._audience.wants(EVENTS_CHANNEL):
            return []
        told = [
            (mailbox, theirs)
            for mailbox, letters in buried
            if (theirs := [letter for letter in letters if letter.channel != EVENTS_CHANNEL])
        ]
        events = [self._of_mailbox(mailbox, letters) for mailbox, letters in told[:_AT_ONCE_MAX]]
        if others := sum(len(letters) for _, letters in told[_AT_ONCE_MAX:]):
            events.append(DeadLettersAdded(mailbox=None, dead_letters=others))
        return [_TellJob(self, (), self._lots(events), self._channels(timestamp))] if events else []

    def _of_mailbox(self, mailbox: Mailbox, letters: Sequence[DeadLetter]) -> DeadLettersAdded:
        listed = [
            DeadMessage(seq=each.seq, channel=each.channel, reason=each.reason, attempts=each.attempts)
            for each in letters[:LISTED_MAX]
        ]
        name = self._directory.name_of(mailbox)
        return DeadLettersAdded(mailbox=name, dead_letters=len(letters), listed=tuple(listed))

    def _lots(self, events: Iterable[EventBody]) -> list[Lot]:
        kinds = (list(alike) for _, alike in groupby(events, attrgetter("message_type")))
        return [event_lot(alike, [self._new_id() for _ in alike]) for alike in kinds]

    def _channels(self, at: str) -> list[Channel]:
        if EVENTS_CHANNEL in self._directory.channels:
            return []
        return [self._directory.new_channel(EVENTS_CHANNEL, at, WORKER_ID)]


class _TellJob(Job[Outcome]):
    """Events on their way into the log; those that are `kept` are told later if they cannot be written."""

    def __init__(
        self, events: Events, kept: Sequence[Noticed], lots: Sequence[Lot], channels: Sequence[Channel]
    ) -> None:
        super().__init__(channels=channels)
        self.lots = lots
        self._events = events
        self._kept = kept

    def done(self, answers: Sequence[Outcome], at: str) -> None:
        """Do nothing: they are delivered like other messages."""

    def failed(self, code: Code, message: str) -> None:
        """Keep them for a later batch."""
        if self._kept:
            self._events.not_written(self._kept)


def _key(event: Noticed) -> _Key:
    return event.message_type, event.subject


def _put(waiting: dict[_Key, Noticed], event: Noticed) -> None:
    """Add an event to others, after an earlier one of its subject."""
    earlier = waiting.get(_key(event))
    waiting[_key(event)] = event if earlier is None else event.after(earlier)
