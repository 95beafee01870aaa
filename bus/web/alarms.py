"""What a person should look at: what the worker's events tell, and what is so now.

Owns how long an event counts, and what ends it. An event says that something happened, not that it is still so:
whatever can be asked is, and then the event only says since when.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from ..model.event_words import COMES_AND_GOES, event_in_words
from ..model.events import (
    DeadLettersAdded,
    MailboxDrained,
    MailboxFilling,
    RunsCrashed,
    SessionOpened,
    SessionVanished,
    StorageDrained,
    StorageFilled,
    StorageFilling,
    WorkerEvent,
    read_event,
)
from ..model.records import WORKER_ID, WorkflowStepLog, parse_timestamp
from ..model.room import RoomLevel
from ..wire.answers import WorkerStatus
from ..wire.frames import StoredMessage
from . import shown

__all__ = ["KEPT", "Alarm", "Box", "HeardEvents", "Present", "alarms"]

KEPT = timedelta(days=1)
"""For so long an event is told of, unless something ends it before."""

_SUBJECTS_MAX = 200
"""Events of one kind that are kept, each about another subject: the newest."""

_LATELY_MAX = 30
"""What happened that is shown."""

_FULL_PART, _ROOM_PART = 0.8, 0.5
"""As the worker says it: a mailbox is nearly full from the first part on, until it has only the second."""

_BACKLOG = 1000
"""Messages that wait in one mailbox, from which on it is told of."""

_REASON_CHARACTERS = 60
"""So much of the reason of a dead letter is told at once."""

_NAMED_MAX = 10
"""Alarms of one kind, each of which names what it is about; the others are counted."""


class Alarm(NamedTuple):
    """What a person should look at, where, and since when, if that is known."""

    text: str
    to: str
    at: str | None = None


class Box(NamedTuple):
    """A mailbox: of a bot, or of a group as `channel/group`. What may not be read, or is not known, is None."""

    name: str
    waiting: int
    in_flight: int | None
    dead: int | None
    sessions: int | None
    is_group: bool


class Present(NamedTuple):
    """How things are, as far as the worker was asked."""

    status: WorkerStatus
    boxes: Mapping[str, Box]
    approvals: Sequence[WorkflowStepLog]
    approvals_max: int
    """How many were asked for."""
    runs: Mapping[str, int]
    """How many there are of each status."""


class _Told(NamedTuple):
    """The last event about a subject."""

    at: str
    event: WorkerEvent


class HeardEvents:
    """The events of the last day that may need a person, by what they are about."""

    def __init__(self) -> None:
        self.vanished: dict[str, _Told] = {}
        self.filling: dict[str, _Told] = {}
        self.dead: dict[str, _Told] = {}
        self.crashed: dict[str, _Told] = {}
        self.full: dict[str, _Told] = {}
        self.low: dict[str, _Told] = {}
        self.lately: dict[str, str] = {}
        """What happened, in words, and when: the latest last."""
        self.last_seq = 0

    def __repr__(self) -> str:
        return f"<HeardEvents up to {self.last_seq}>"

    def hear(self, message: StoredMessage) -> None:
        """Take the next message of the events' channel; one that is not the worker's, or not known, is left out."""
        self.last_seq = message.seq
        if message.sender_bot_id == WORKER_ID:
            self.take(message.message_type, message.body, message.timestamp)

    def take(self, message_type: str, body: Any, at: str) -> None:
        """Note what happened next, in the order of time."""
        try:
            event = read_event(message_type, body)
        except msgspec.ValidationError:  # a later version's
            return
        told = None if event is None else _Told(getattr(event, "at", at), event)
        if told is not None and message_type not in COMES_AND_GOES:
            self._remember(told)
        match event:
            case SessionVanished(bot=bot):
                _put(self.vanished, bot, told)
            case SessionOpened(bot=str(bot)):
                self.vanished.pop(bot, None)
            case MailboxFilling(bot=bot):
                _put(self.filling, bot, told)
            case MailboxDrained(bot=str(bot)):
                self.filling.pop(bot, None)
            case DeadLettersAdded(mailbox=mailbox):
                _put(self.dead, mailbox, told)
            case RunsCrashed():
                _put(self.crashed, None, told)
            case StorageFilled():
                _put(self.full, None, told)
            case StorageFilling():
                _put(self.low, None, told)
            case StorageDrained(storage=RoomLevel.ENOUGH):
                self.low.clear()

    def _remember(self, told: _Told) -> None:
        """Keep what happened for people, once if it is the same that happened before."""
        text = event_in_words(told.event)
        self.lately.pop(text, None)
        self.lately[text] = told.at
        if len(self.lately) > _LATELY_MAX:
            del self.lately[next(iter(self.lately))]

    def forget(self, now: datetime) -> None:
        """Forget what is too long ago."""
        for kind in (self.vanished, self.filling, self.dead, self.crashed, self.full, self.low):
            for subject, told in list(kind.items()):
                if now - parse_timestamp(told.at) > KEPT:
                    del kind[subject]


def _put(kind: dict[str, _Told], subject: str | None, told: _Told | None) -> None:
    """Keep an event as the last one about its subject; an event that sums up many has the subject ''."""
    assert told is not None
    kind.pop(subject or "", None)
    kind[subject or ""] = told
    if len(kind) > _SUBJECTS_MAX:
        del kind[next(iter(kind))]


def alarms(heard: HeardEvents, present: Present) -> list[Alarm]:
    """Return what a person should look at, the most urgent kinds first, the newest of each kind first."""
    return [
        *_of_storage(heard, present),
        *_of_vanished(heard, present),
        *_of_dead_letters(heard, present),
        *_of_mailboxes(heard, present),
        *_of_runs(heard, present),
        *_of_senders(present),
    ]


def _of_storage(heard: HeardEvents, present: Present) -> list[Alarm]:
    found: list[Alarm] = []
    if present.status.fault is not None:
        found.append(Alarm(f"The worker stores nothing now: {present.status.fault}", "/settings"))
    for told in heard.full.values():
        assert isinstance(told.event, StorageFilled)
        since = shown.clock(told.event.since)
        found.append(Alarm(f"Storage was full from {since} on, and messages were refused", "/settings", told.at))
    if present.status.storage is not RoomLevel.ENOUGH:
        at = None if (told_low := heard.low.get("")) is None else told_low.at
        found.append(Alarm(_of_room(present.status), "/settings", at))
    if present.status.counters.get("damaged"):
        found.append(Alarm("Messages with a wrong checksum are not delivered: run posthouse check", "/settings"))
    if present.status.log_ahead_seconds:
        behind = shown.span(present.status.log_ahead_seconds)
        found.append(Alarm(f"The worker's clock is {behind} behind the log", "/settings"))
    return found


def _of_room(status: WorkerStatus) -> str:
    text = f"Room is {status.storage.in_words}: the database has {shown.size(status.sizes['database_bytes'])}"
    free = status.sizes.get("free_bytes")
    return text if free is None else f"{text}, and its disk {shown.size(free)} free"


def _of_vanished(heard: HeardEvents, present: Present) -> list[Alarm]:
    found: list[Alarm] = []
    for bot, told in heard.vanished.items():
        box = present.boxes.get(bot)
        if not bot:
            found.append(Alarm("Sessions of many bots vanished", "/bots", told.at))
        elif box is not None and not box.sessions:
            found.append(Alarm(f"{bot} vanished: its connection broke, or was silent", _to("/bot", bot), told.at))
    return _few(found, "bots vanished", "/bots")


def _of_dead_letters(heard: HeardEvents, present: Present) -> list[Alarm]:
    found: list[Alarm] = []
    for box in present.boxes.values():
        if box.dead:
            told = heard.dead.get(box.name)
            text = f"{_count(box.dead, 'dead letter')} in {box.name}"
            if told is not None and isinstance(told.event, DeadLettersAdded) and told.event.listed:
                text += f": {shown.one_line(told.event.listed[0].reason, _REASON_CHARACTERS)}"
            to = shown.link("/dead-letters", mailbox=box.name)
            found.append(Alarm(text, to, None if told is None else told.at))
    return _few(found, "mailboxes have dead letters", "/dead-letters")


def _of_mailboxes(heard: HeardEvents, present: Present) -> list[Alarm]:
    found: list[Alarm] = []
    most = present.status.backlog_messages_max
    if "" in heard.filling and not most:
        found.append(Alarm("Many mailboxes are nearly full", "/mailboxes", heard.filling[""].at))
    for box in sorted(present.boxes.values(), key=lambda box: -box.waiting):
        told = heard.filling.get(box.name)
        if told is not None and isinstance(told.event, MailboxFilling):
            most = most or told.event.messages_max
        if not box.is_group and most and box.waiting > most * (_FULL_PART if told is None else _ROOM_PART):
            of = f"{shown.amount(box.waiting)} messages wait, of {shown.amount(most)}"
            text = f"The mailbox of {box.name} is nearly full: {of}"
            found.append(Alarm(text, _to("/mailbox", box.name), None if told is None else told.at))
        elif box.waiting >= _BACKLOG:
            text = f"{_count(box.waiting, 'message')} in the mailbox of {box.name}"
            found.append(Alarm(text, _to("/mailbox", box.name)))
    return _few(found, "mailboxes are full of messages", "/mailboxes")


def _of_runs(heard: HeardEvents, present: Present) -> list[Alarm]:
    found: list[Alarm] = []
    if present.approvals:
        count = len(present.approvals)
        many = f"{count} or more approvals wait" if count == present.approvals_max else None
        text = many or ("1 approval waits" if count == 1 else f"{count} approvals wait")
        found.append(Alarm(f"{text} for a person", "/approvals", present.approvals[0].started_at))
    for state in ("crashed", "failed"):
        if number := present.runs.get(state, 0):
            told = heard.crashed.get("") if state == "crashed" else None
            to = shown.link("/runs", status=state)
            if number == 1 and told is not None and isinstance(told.event, RunsCrashed) and told.event.runs == 1:
                to = shown.link("/run", id=told.event.listed[0].run_id)
            found.append(Alarm(f"{_count(number, 'run')} {state}", to, None if told is None else told.at))
    return found


def _of_senders(present: Present) -> list[Alarm]:
    found: list[Alarm] = []
    for each in present.status.rate_limited:
        text = f"{_count(each.times, 'message')} of {each.sender} refused: sent too fast"
        found.append(Alarm(text, _to("/bot", each.sender), each.last_at))
    return _few(found, "senders were too fast", "/bots")


def _few(found: list[Alarm], others: str, to: str) -> list[Alarm]:
    """Return the newest of these, and how many others there are."""
    found = sorted(found, key=lambda alarm: alarm.at or "", reverse=True)
    if len(found) <= _NAMED_MAX + 1:
        return found
    return [*found[:_NAMED_MAX], Alarm(f"{shown.amount(len(found) - _NAMED_MAX)} more {others}", to)]


def _to(path: str, name: str) -> str:
    return shown.link(path, name=name)


def _count(number: int, noun: str) -> str:
    return f"{shown.amount(number)} {noun}{'' if number == 1 else 's'}"
