"""The record of security events: who came and went, what was refused, and who changed what.

Owns which notes are recorded, and how often. Its rules:

- The same event of the same bot, key or address is one row for a minute; later ones only raise its `times`. Of what
  was done, and not refused, the same is what was done to the same object.
- Of each event, so many rows are open at once. Beyond it, events are counted in a row that names nobody. So no
  number of bots, keys or addresses makes rows without end.
- A row is written with the next batch, or makes a batch of its own, at most so many a second. What it counts later
  is written every few seconds, and at shutdown: a crash can lose that much of a count, and no event.
- If a row cannot be written, it stays open, and is written with a later batch.
- The oldest rows are removed, by age and by number. The last one stays, because the next id follows it.

Never recorded: bodies, headers, secrets. Pure.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ..mailbox.sessions import Sessions
from ..model.records import later
from ..model.security import AddSecurityEvents, RemoveSecurityEvents, SecurityEvent, SecuritySpan
from ..settings import RetentionSettings
from ..wire.codes import LIMITS, Code
from .batches import Batches, Job
from .directory import Directory
from .effects import Moment, Note

__all__ = ["SecurityRecord"]

_ROW_SECONDS = 60.0
"""How long the same event is counted in the same row."""

_ROWS_OF_BOTS_MAX = 1000
"""Open rows of one event that name a bot: what a thousand bots that come at once need."""

_ROWS_OF_STRANGERS_MAX = 100
"""The same of those that name none, which anybody can cause who can connect."""

_ALONE_SECONDS = 0.2
"""How often events alone make a batch: an event is on disk after about this time."""

_COUNT_SECONDS = 5.0
"""How often the `times` of open rows are written."""

_TEXT_CHARACTERS_MAX = 200
"""Of what somebody else wrote, such as the name of a client."""


class _Kind(NamedTuple):
    """Which fields of a note are the object and the detail of its event, and which names the bot whose it is.

    Each object, and each detail, of a `deed` has a row of its own: the first would hide the others.
    """

    object: str | None = None
    detail: str | None = None
    bot: str = "bot"
    deed: bool = False


_KINDS: Mapping[str, _Kind] = {
    "serving": _Kind(detail="mode"),
    "configuration_refused": _Kind(detail="error"),
    "configuration_reloaded": _Kind(detail="changed", deed=True),
    "connection_refused": _Kind(detail="reason"),
    "session_opened": _Kind(detail="client"),
    "session_refused": _Kind(object="bot", detail="code", bot="by"),
    "session_ended": _Kind(),
    "session_vanished": _Kind(),
    "session_taken": _Kind(object="bot", bot="by"),
    "session_revoked": _Kind(detail="reason"),
    "key_added": _Kind(object="purpose", detail="by"),
    "key_revoked": _Kind(detail="by"),
    "refused": _Kind(object="object", detail="code"),
    "console_opened": _Kind(detail="client"),
    "contents_erased": _Kind(object="removal", detail="messages", deed=True),
    "contents_scrubbed": _Kind(deed=True),
    "dead_letters_retried": _Kind(object="mailbox", detail="messages", deed=True),
    "definition_deleted": _Kind(object="object", deed=True),
    "removed": _Kind(object="removal", detail="kind", deed=True),
    "run_deleted": _Kind(object="object", deed=True),
    "run_operated": _Kind(object="object", detail="status", deed=True),
    "schedule_changed": _Kind(object="object", detail="status", deed=True),
    "step_decided": _Kind(object="object", detail="status", deed=True),
}
"""The notes that are recorded. The others are about messages, and only logged."""


class _Who(NamedTuple):
    """Whose event it is, as far as it is known."""

    bot_id: str | None = None
    key: str | None = None
    address: str | None = None


_RowKey = tuple[str, str | None, _Who]
"""What one row stands for: the event, the code of a refusal or what was done to what, and whose it is."""


class _Row:
    """An open row. `until` is when a new one begins; `written` is how many times are on disk."""

    __slots__ = ("event", "key", "times", "until", "written")

    def __init__(self, event: SecurityEvent, key: _RowKey, until: float) -> None:
        self.event = event
        self.key = key
        self.times = 1
        self.until = until
        self.written = 0


class SecurityRecord:
    """See the module."""

    def __init__(
        self,
        span: SecuritySpan,
        directory: Directory,
        sessions: Sessions,
        *,
        batches: Batches,
        settings: RetentionSettings,
    ) -> None:
        self._span = span
        self._directory = directory
        self._sessions = sessions
        self._batches = batches
        self._settings = settings
        self._last_id = span.last_id
        self._open: OrderedDict[_RowKey, _Row] = OrderedDict()
        """In the order in which they began."""
        self._rows: Counter[tuple[str, bool]] = Counter()
        """How many of them there are, by event and by whether they name a bot."""
        self._new: list[_Row] = []
        self._counted: dict[_Row, None] = {}
        """Rows on disk that have counted more since."""
        self._taken_at = 0.0
        self._count_at = 0.0
        self._sweep_at = 0.0
        self._sweeping = False

    def __repr__(self) -> str:
        return f"<SecurityRecord last_id={self._last_id} open={len(self._open)} new={len(self._new)}>"

    def note(self, note: Note, moment: Moment) -> None:
        """Record a note, if it is one of those that are recorded."""
        kind = _KINDS.get(note.event)
        if kind is None:
            return
        self._close(moment.now)
        code = _text(note.fields.get("code"))
        event, what = _event(note.event, code), code
        if kind.deed:
            what = msgspec.json.encode(_told(note, kind)).decode()
        key = (event, what, self._who(note.fields, kind))
        row = self._open.get(key)
        if row is None and self._is_full(key):
            key = (key[0], code, _Who())
            row = self._open.get(key)
        if row is None:
            self._begin(key, note, kind, moment)
            return
        row.times += 1
        if row.written:
            self._counted[row] = None

    def _who(self, fields: Mapping[str, Any], kind: _Kind) -> _Who:
        """Return whose a note is: an address is that of a session, or where a connection came from."""
        address, name, key = fields.get("address"), fields.get(kind.bot), _text(fields.get("key"))
        if isinstance(address, bytes):
            session = self._sessions.get(address)
            if session is None:
                return _Who(None, key)
            return _Who(session.bot_id, session.public_key)
        bot = None if name is None else self._directory.names.get(name)
        return _Who(None if bot is None else bot.id, key, _text(address))

    def _is_full(self, key: _RowKey) -> bool:
        """Return True if as many rows of this event are open as may be."""
        is_bots = key[2].bot_id is not None
        return self._rows[key[0], is_bots] >= (_ROWS_OF_BOTS_MAX if is_bots else _ROWS_OF_STRANGERS_MAX)

    def _begin(self, key: _RowKey, note: Note, kind: _Kind, moment: Moment) -> None:
        self._last_id += 1
        about, detail = _told(note, kind)
        event = SecurityEvent(self._last_id, moment.wall, key[0], *key[2], about, detail)
        row = self._open[key] = _Row(event, key, moment.now + _ROW_SECONDS)
        self._rows[key[0], key[2].bot_id is not None] += 1
        self._new.append(row)

    def _close(self, now: float) -> None:
        """Close the rows whose minute is over and that are on disk, the earliest first.

        What they have counted since is written later: a flood would otherwise keep a row open, and all after it.
        """
        while self._open:
            row = next(iter(self._open.values()))
            if row.until > now or not row.written:
                return
            del self._open[row.key]
            self._rows[row.event.event, row.key[2].bot_id is not None] -= 1

    # ── To disk ──────────────────────────────────────────────────────────────────────────────────────────

    def is_due(self, now: float) -> bool:
        """Return True if events should be written even if nothing else is."""
        if self._new:
            return now - self._taken_at >= _ALONE_SECONDS
        return bool(self._counted) and now - self._count_at >= _COUNT_SECONDS

    def take(self, now: float, *, flush: bool) -> list[Job[Any]]:
        """Return what is to be written with the next batch; with `flush`, as at shutdown, everything."""
        rows, self._new = self._new, []
        if rows:
            self._taken_at = now
        if flush or now - self._count_at >= _COUNT_SECONDS:
            self._count_at = now
            rows += self._counted
            self._counted = {}
        return [_WriteEventsJob(self, rows)] if rows else []

    def saved(self, written: Mapping[_Row, int]) -> None:
        """Note what is on disk of these rows."""
        for row, times in written.items():
            row.written = times
            if row.times > times:
                self._counted[row] = None
            if not self._span.first_id:
                self._span = SecuritySpan(row.event.id, row.event.at, row.event.id)

    def not_saved(self, rows: Sequence[_Row]) -> None:
        """Note that these rows are still to be written."""
        self._new = [*(row for row in rows if not row.written), *self._new]
        self._counted.update(dict.fromkeys(row for row in rows if row.written))

    # ── Retention ────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float, wall: str) -> None:
        """Remove the oldest events, if it is time to look and some are too old or too many."""
        if self._sweeping or now < self._sweep_at or self._span.first_id in (0, self._last_id):
            return
        self._sweep_at = now + self._settings.sweep_seconds
        age_seconds, most = self._settings.security_age_seconds, self._settings.security_events_max
        before = later(wall, -age_seconds) if age_seconds else ""
        through_id = self._last_id - most if most else 0
        if self._span.first_id <= through_id or self._span.first_at < before:
            self._sweeping = True
            change = RemoveSecurityEvents(through_id, before, self._settings.portion_messages_max)
            self._batches.add(_RemoveEventsJob(self, change))

    def removed(self, left: SecuritySpan) -> None:
        """Note what is left. If something was removed, look again at once: more may be too old."""
        if left.first_id != self._span.first_id:
            self._sweep_at = 0.0
        self._span = left
        self._sweeping = False

    def not_removed(self) -> None:
        """Note that nothing was removed."""
        self._sweeping = False


class _WriteEventsJob(Job[None]):
    """Rows to write, with what they have counted until then."""

    def __init__(self, record: SecurityRecord, rows: Sequence[_Row]) -> None:
        super().__init__()
        self._record = record
        self._written = {row: row.times for row in rows}

    def begin(self) -> None:
        """Count what happened until now."""
        self._written = {row: row.times for row in self._written}
        events = [_counting(row.event, times) for row, times in self._written.items()]
        self.changes = [AddSecurityEvents(tuple(events))]

    def done(self, answers: Sequence[None], at: str) -> None:
        """Note that they are on disk."""
        self._record.saved(self._written)

    def failed(self, code: Code, message: str) -> None:
        """Keep them for a later batch."""
        self._record.not_saved(list(self._written))


class _RemoveEventsJob(Job[SecuritySpan]):
    """A removal of the oldest events."""

    def __init__(self, record: SecurityRecord, change: RemoveSecurityEvents) -> None:
        super().__init__(changes=[change])
        self._record = record

    def done(self, answers: Sequence[SecuritySpan], at: str) -> None:
        """Note what is left."""
        self._record.removed(answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Try again later."""
        self._record.not_removed()


def _event(event: str, code: str | None) -> str:
    """Return the name under which a note is recorded: refusals are told apart."""
    if event != "refused":
        return event
    return "forbidden" if code == Code.FORBIDDEN else "limit_reached" if code in LIMITS else event


def _told(note: Note, kind: _Kind) -> tuple[str | None, str | None]:
    """Return the object and the detail of an event."""
    about, detail = (_text(note.fields.get(name)) if name else None for name in (kind.object, kind.detail))
    return about, detail


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text[:_TEXT_CHARACTERS_MAX]


def _counting(event: SecurityEvent, times: int) -> SecurityEvent:
    return event if times == 1 else msgspec.structs.replace(event, times=times)
