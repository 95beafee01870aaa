"""Events of the worker, for those who listen: who came and went, what was given up, and what runs full.

Owns what is told, and how often. Most of it is noticed where operators are told of it (`Turn.note`). Its rules:

- Nothing is written while nobody wants it (`audience`). The last ones are kept in memory in any case (`recent`).
- An event enters the log with the next batch, or makes a batch of its own, at most so many a second.
- What happens to one subject is told at once, and again after a while: what happened meanwhile is one event, which
  counts it. Of too many subjects, what happens is summed up in one event a kind.
- If events cannot be written, they wait, and are told later. A crash loses them.
- Who is there is told on a channel of its own: of several changes of a bot, the last one.
- Dead letters are told in the transaction that stores them, one event for each mailbox.
- What happens to events is not told: a dead letter or a removed message of their channel.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    PresenceConnected,
    PresenceEnded,
    PresenceVanished,
    SessionEnded,
    SessionOpened,
    SessionVanished,
    StorageDrained,
    StorageFilled,
    StorageFilling,
    ThreadEnded,
    WillDropped,
    WillSent,
    WorkerServing,
    event_lot,
)
from ..model.records import EVENTS_CHANNEL, PRESENCE_CHANNEL, WORKER_ID, Channel
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

_AT_ONCE_MAX = 100
"""Events in one batch, and dead letters' mailboxes: what a thousand bots that come at once take two seconds for."""

_SUBJECTS_MAX = 1000
"""Subjects of events that wait to be told; further ones are summed up."""

_Key = tuple[str, str | None]
"""The topic and the subject of an event."""

_PRESENCE: Mapping[str, type[Noticed]] = {
    "session_opened": PresenceConnected,
    "session_ended": PresenceEnded,
    "session_vanished": PresenceVanished,
}
"""What operators are told that changes who is there."""


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
        self._turn, self._recent = turn, turn.recent
        self._new_id = new_id
        self._ready: dict[_Key, Noticed] = {}
        """Events to be told with the next batch."""
        self._later: dict[_Key, Noticed] = {}
        """Events of subjects that rest."""
        self._resting: defaultdict[float, OrderedDict[_Key, float]] = defaultdict(OrderedDict)
        """Until when the same is not told again, the earliest first, by how long that rests."""
        self._due = 0.0

    def __repr__(self) -> str:
        return f"<Events ready={len(self._ready)} later={len(self._later)}>"

    # ── What happened ────────────────────────────────────────────────────────────────────────────────────

    def _note(self, note: Note, moment: Moment) -> None:
        """Keep what operators are told, if it is an event, and publish it if somebody listens."""
        if (event := self._event(note, moment.wall)) is not None:
            self._happened(event, moment)
        if self._audience.wants(PRESENCE_CHANNEL) and (kind := _PRESENCE.get(note.event)) is not None:
            fields = {"session": note.fields.get("session"), **self._session(note.fields["bot"])}
            if kind is PresenceConnected:
                fields["client"] = note.fields["client"]
            self._add(kind(at=moment.wall, **fields))

    def refused(self, code: Code, moment: Moment) -> None:
        """Note that a batch was refused, and tell of it if that was because storage is full."""
        self._due = moment.now + _RETRY_SECONDS
        if code == Code.STORAGE_FULL:
            self._happened(StorageFilled(at=moment.wall, since=moment.wall), moment)

    def _happened(self, event: Noticed, moment: Moment) -> None:
        self._recent.keep(event, event.subject, at=event.at, now=moment.now)
        if self._audience.wants(event.channel):
            self._add(event)

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
            case "storage_filling":
                return StorageFilling(at=at, **fields)
            case "storage_drained":
                return StorageDrained(at=at, **fields)
            case "thread_ended":
                return ThreadEnded(at=at, **fields)
            case "will_sent":
                return WillSent(at=at, **fields)
            case "will_dropped":
                return WillDropped(at=at, **fields)
            case "serving":
                return WorkerServing(at=at, command=fields["command"], version=fields["posthouse"])
        return None

    def _session(self, bot: str) -> dict[str, Any]:
        """Return what each event of a session tells."""
        record = self._directory.names.get(bot)
        return {"bot": bot, "sessions": 0 if record is None else len(self._sessions.there(record.id))}

    def _add(self, event: Noticed) -> None:
        waiting = self._later if _key(event) in self._resting[event.rest_seconds] else self._ready
        if _key(event) not in waiting and len(self._ready) + len(self._later) >= _SUBJECTS_MAX:
            event, waiting = event.summed_up(), self._ready
        _put(waiting, event)

    # ── To disk ──────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        """Let what happened to subjects that have rested be told."""
        for resting in self._resting.values():
            while resting and (first := next(iter(resting.items())))[1] <= now:
                del resting[first[0]]
                if (event := self._later.pop(first[0], None)) is not None:
                    _put(self._ready, event)

    def is_due(self, now: float) -> bool:
        """Return True if events should be written even if nothing else is."""
        return bool(self._ready) and now >= self._due

    def take(self, moment: Moment, *, flush: bool) -> list[Job[Any]]:
        """Return what is to be written with the next batch; with `flush`, as at shutdown, everything."""
        for waiting in (self._ready, self._later):
            for key in [key for key, event in waiting.items() if not self._audience.wants(event.channel)]:
                del waiting[key]
        if flush:
            for event in self._later.values():
                _put(self._ready, event)
            self._later = {}
        if not self._ready:
            return []
        count = len(self._ready) if flush else _AT_ONCE_MAX
        events = list(islice(self._ready.values(), count))
        for event in events:
            key, resting = _key(event), self._resting[event.rest_seconds]
            del self._ready[key]
            resting[key] = moment.now + event.rest_seconds
            resting.move_to_end(key)
        self._due = moment.now + _ALONE_SECONDS
        return [_TellJob(self, events, self._lots(events), self._channels(events, moment.wall))]

    def not_written(self, events: Iterable[Noticed]) -> None:
        """Keep events for a later batch."""
        for event in events:
            self._resting[event.rest_seconds].pop(_key(event), None)
            later = [waiting.pop(_key(event)) for waiting in (self._ready, self._later) if _key(event) in waiting]
            for each in (event, *later):
                _put(self._ready, each)

    def _of_dead_letters(
        self, buried: Sequence[tuple[Mailbox, Sequence[DeadLetter]]], timestamp: str
    ) -> list[Job[Any]]:
        """Return what tells of dead letters, for the batch that stores them."""
        told = [
            (mailbox, theirs)
            for mailbox, letters in buried
            if (theirs := [letter for letter in letters if letter.channel != EVENTS_CHANNEL])
        ]
        events = [self._of_mailbox(mailbox, letters) for mailbox, letters in told[:_AT_ONCE_MAX]]
        if others := sum(len(letters) for _, letters in told[_AT_ONCE_MAX:]):
            events.append(DeadLettersAdded(mailbox=None, dead_letters=others))
        if not events:
            return []
        published = events if self._audience.wants(EVENTS_CHANNEL) else ()
        return [_DeadLettersJob(self, events, self._lots(published), self._channels(published, timestamp))]

    def buried(self, events: Iterable[DeadLettersAdded]) -> None:
        """Keep what was told of dead letters, which are on disk."""
        now, at = self._turn.moment
        for event in events:
            self._recent.keep(event, event.mailbox, at=at, now=now)

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

    def _channels(self, events: Iterable[EventBody], at: str) -> list[Channel]:
        new = {event.channel for event in events} - self._directory.channels.keys()
        return [self._directory.new_channel(channel, at, WORKER_ID) for channel in sorted(new)]


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
        self._events.not_written(self._kept)


class _DeadLettersJob(Job[Outcome]):
    """Dead letters on their way into the log; `lots` tell those of them who listen."""

    def __init__(
        self,
        events: Events,
        told: Sequence[DeadLettersAdded],
        lots: Sequence[Lot],
        channels: Sequence[Channel],
    ) -> None:
        super().__init__(channels=channels)
        self.lots = lots
        self._events = events
        self._told = told

    def done(self, answers: Sequence[Outcome], at: str) -> None:
        """Remember them."""
        self._events.buried(self._told)

    def failed(self, code: Code, message: str) -> None:
        """Do nothing: they are told with the batch that stores them."""


def _key(event: Noticed) -> _Key:
    return event.topic, event.subject


def _put(waiting: dict[_Key, Noticed], event: Noticed) -> None:
    """Add an event to others, after an earlier one of its subject."""
    earlier = waiting.get(_key(event))
    waiting[_key(event)] = event if earlier is None else event.after(earlier)
