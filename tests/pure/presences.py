"""What a simulated world expects of presence: each change of a bot is told once, in order, and the last one always.

Owns a model of its own: which sessions each bot has, and how that changed since the worker was started.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from bus.core.core import Core
from bus.core.effects import Moment, Note
from bus.model.events import read_event
from bus.model.records import PRESENCE_CHANNEL, WORKER_ID
from bus.model.repository import LogMessage

from .fake_log import FakeLog
from .promises import Violation

__all__ = ["TELLING_BEATS", "Presences"]

TELLING_BEATS = 16
"""So many half seconds that all is told: after a batch that was refused, events wait for five seconds."""

_KINDS = {
    "session_opened": "presence.connected",
    "session_ended": "presence.ended",
    "session_vanished": "presence.vanished",
}


class _Change(NamedTuple):
    """What happened to a bot, and how many sessions it has since."""

    kind: str
    session: str
    sessions: int
    at: str


class Presences:
    """See the module."""

    def __init__(self, log: FakeLog, written: Mapping[int, LogMessage]) -> None:
        self.told = 0
        self._log = log
        self._written = written
        self._looked = 0
        self._there: defaultdict[str, set[str]] = defaultdict(set)
        self._changes: defaultdict[str, list[_Change]] = defaultdict(list)
        self._last_told: dict[str, int] = {}
        """How many changes of a bot were told, those among them that a later one stood for."""
        self._unheard: set[str] = set()
        """Bots of whose changes some happened while nobody listened, since one was told."""
        self._wanted = False

    def restart(self) -> None:
        """The worker was killed: all sessions are over, and nobody is told of it."""
        self._there.clear()
        self._changes.clear()
        self._last_told.clear()
        self._unheard.clear()
        self._wanted = False

    def note(self, note: Note, moment: Moment) -> None:
        """Operators are told of a session."""
        kind = _KINDS.get(note.event)
        if kind is None:
            return
        bot, session = note.fields["bot"], note.fields["session"]
        if kind == "presence.connected":
            self._there[bot].add(session)
        else:
            self._there[bot].discard(session)
        self._changes[bot].append(_Change(kind, session, len(self._there[bot]), moment.wall))

    def check(self, core: Core, *, all_told: bool = False) -> None:
        """Check what came of an event, or that everything was told. Raise Violation."""
        for fault in (*self._faults(core), *(self._missing(core) if all_told else ())):
            raise Violation(fault)

    def _faults(self, core: Core) -> Iterator[str]:
        there = {(session.bot_name, session.id) for session in core.sessions if not session.opening}
        noted = {(bot, session) for bot, sessions in self._there.items() for session in sessions}
        if there != noted:
            yield f"operators were told that {noted} are there, and there are {there}"
        was_wanted, self._wanted = self._wanted, core.audience.wants(PRESENCE_CHANNEL)
        if not (was_wanted and self._wanted):
            self._unheard.update(self._changes)
        for seq in range(self._looked + 1, self._log.last_seq + 1):
            message = self._written[seq]
            if message.recipient_channel == PRESENCE_CHANNEL:
                if message.sender_bot_id != WORKER_ID:
                    yield f"{message.sender_bot_name} publishes on {PRESENCE_CHANNEL}"
                yield from self._told(read_event(message.message_type, msgspec.json.decode(message.body)))
        self._looked = self._log.last_seq

    def _told(self, event: Any) -> Iterator[str]:
        self.told += 1
        bot = event.bot
        found = _Change(event.message_type, event.session, event.sessions, event.at)
        if found not in self._changes[bot]:
            yield f"{event} was told, and of {bot} there is {self._changes[bot]}"
            return
        place = self._changes[bot].index(found) + 1
        passed = place - self._last_told.get(bot, 0)
        if passed <= 0:
            yield f"{event} was told after {self._changes[bot][self._last_told[bot] - 1]}"
        if event.times > passed or (event.times < passed and bot not in self._unheard):
            yield f"{event} stands for {passed} changes"
        self._last_told[bot] = place
        self._unheard.discard(bot)

    def _missing(self, core: Core) -> Iterator[str]:
        """Yield whose last change was not told, though somebody listens and there was time."""
        if core.audience.wants(PRESENCE_CHANNEL):
            for bot, changes in self._changes.items():
                if bot not in self._unheard and self._last_told.get(bot) != len(changes):
                    yield f"{changes[-1]} of {bot} was not told"
