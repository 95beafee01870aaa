"""What a simulated world expects of the keyed store: that it is linearizable, and that a watch misses nothing.

Owns a model of its own: what each key has, and since when, whatever rows a store keeps for it. Each write is judged
when it is carried out, and each answer by what may have been true since it was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bus.errors import RevisionConflict, StoreError
from bus.model.keyed import REPEAT_SECONDS, KeyedWrite, StoredValue
from bus.model.records import later
from bus.model.repository import Change, CloseChannel, Erase, Remove
from bus.model.retaining import RETAINED
from bus.model.wills import WILLS

from .fake_log import FakeLog
from .promises import Violation

__all__ = ["KEYS", "RETAINED_MARK", "Asked", "KeyedPromises", "View"]

KEYS = [(store, key) for store in ("s", "t") for key in ("a", "a/1", "b")]

RETAINED_MARK = b'"kept '
"""How the body of a message begins that is to be the last value of its channel."""

Key = tuple[str, str]


class _Written(NamedTuple):
    """What was written under a key: `value` is None for a deletion."""

    key: Key
    value: str | None
    expires_at: str | None


class Asked(NamedTuple):
    """When something was asked for."""

    step: int
    wall: str
    floors: dict[Key, int]


class KeyedPromises:
    """See the module. Every method raises Violation where a promise is broken."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self._keyed = log.keyed
        self._keyed.note = self._note_written
        self.step = 0
        self.answered = 0
        self._last = 0
        self._written: dict[int, _Written] = {}
        self._current: dict[Key, int] = {}
        self._ended: dict[int, int] = {}
        """The step in which a write was followed by another one of its key."""
        self._absent: dict[Key, int] = dict.fromkeys(KEYS, 0)
        """The last step in which a key did not exist."""
        self._floors: dict[Key, int] = {}
        """The highest revision of each key that anybody was told."""
        self._ids: dict[tuple[str | None, str], tuple[KeyedWrite, int, str]] = {}
        self._last_values: dict[str, list[tuple[int, int, int | None]]] = {}
        """What a channel retained: the seq of a message, or None; first, between which ends of the log it began."""
        self._looked = 0

    # ── Writes, as they are carried out ──────────────────────────────────────────────────────────────────

    def _live(self, key: Key) -> int:
        """Return the revision of a key's value, or 0."""
        revision = self._current.get(key, 0)
        if revision == 0 or self._written[revision].value is None:
            return 0
        expires_at = self._written[revision].expires_at
        return revision if expires_at is None or expires_at > self._keyed.clock() else 0

    def live(self, store: str) -> dict[str, int]:
        """Return the revisions of the values of a store."""
        return {key[1]: revision for key in KEYS if key[0] == store and (revision := self._live(key))}

    def look(self) -> None:
        """Note which keys do not exist."""
        for key in KEYS:
            if not self._live(key):
                self._absent[key] = self.step

    def _note_written(self, write: KeyedWrite, outcome: int | StoreError) -> None:
        if write.store in (RETAINED, WILLS):
            self._last = max(self._last, outcome if isinstance(outcome, int) else 0)
            return
        if self._is_repeated(write, outcome):
            return
        key = (write.store, write.key)
        found = self._live(key)
        if not found:
            self._absent[key] = self.step
        if write.expected is not None and write.expected != found:
            if not isinstance(outcome, RevisionConflict) or outcome.revision != found:
                raise Violation(
                    f"{key} had revision {found}, not {write.expected}, and the outcome was {outcome!r}"
                )
            return
        if isinstance(outcome, StoreError):
            raise Violation(f"a write of {key}, which had revision {found}, was refused: {outcome!r}")
        if not found and write.value is None:
            if outcome:
                raise Violation(f"{key} did not exist, and was deleted with revision {outcome}")
            return
        if outcome <= self._last:
            raise Violation(f"revision {outcome} of {key} came after {self._last}")
        now = self._keyed.clock()
        expires_at = None if write.ttl_seconds is None else later(now, write.ttl_seconds)
        self._last = outcome
        self._ended[self._current.get(key, 0)] = self.step
        self._current[key] = outcome
        self._written[outcome] = _Written(key, write.value, expires_at)
        if write.id is not None:
            self._ids[write.bot_id, write.id] = write, outcome, now

    def _is_repeated(self, write: KeyedWrite, outcome: int | StoreError) -> bool:
        known = None if write.id is None else self._ids.get((write.bot_id, write.id))
        if known is None:
            return False
        _, revision, at = known
        if outcome == revision:
            return True
        if self._keyed.clock() < later(at, REPEAT_SECONDS):
            raise Violation(f"a repeat of the write with revision {revision} had the outcome {outcome!r}")
        return False

    # ── Answers ──────────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> Asked:
        """Note that something is asked for."""
        self.look()
        return Asked(self.step, self._keyed.clock(), dict(self._floors))

    def note_acknowledged(self, id: str, revision: int) -> None:
        """A bot was told that its write was carried out."""
        known = [revision for (_, each), (_, revision, _) in self._ids.items() if each == id]
        if revision and revision not in known:  # another one is of a bot of this name that was removed
            raise Violation(f"the write {id} was acknowledged with revision {revision}, and had {known}")
        if revision:
            self._told(revision)

    def _told(self, revision: int) -> None:
        self.answered += 1
        key = self._written[revision].key
        self._floors[key] = max(revision, self._floors.get(key, 0))

    def check_read(self, key: Key, asked: Asked, found: StoredValue | None) -> None:
        """A bot was answered what a key has."""
        self.look()
        if found is None:
            if self._absent[key] < asked.step:
                raise Violation(f"{key} was not found, and existed all the time")
            return
        self._check_content(key, found)
        written = self._written[found.revision]
        if found.revision < asked.floors.get(key, 0):
            raise Violation(f"{key} was read at {found.revision}, after {asked.floors[key]} had been told")
        if self._ended.get(found.revision, math.inf) < asked.step:
            raise Violation(f"{key} was read at {found.revision}, which had been replaced before")
        if written.value is None or (written.expires_at is not None and written.expires_at <= asked.wall):
            raise Violation(f"{key} was read at {found.revision}, which had ended before")
        self._told(found.revision)

    def _check_content(self, key: Key, found: StoredValue) -> None:
        written = self._written.get(found.revision)
        if written is None or (written.key, written.value) != (key, bytes(found.value).decode()):
            raise Violation(f"{key} was read at {found.revision} as {found!r}, which is {written}")

    def check_view(self, view: View) -> None:
        """Everything has arrived: who watches knows all values."""
        if view.seen != self.live(view.store):
            raise Violation(f"who watches {view.store!r} saw {view.seen}, and there is {self.live(view.store)}")

    def check_change(self, view: View, change: StoredValue) -> None:
        """Who watches was told of a change."""
        if change.revision <= view.after:
            raise Violation(f"revision {change.revision} was told after {view.after}")
        if change.state.has_value:
            self._check_content((view.store, change.key), change)

    # ── Last values of channels ──────────────────────────────────────────────────────────────────────────

    def note_changes(self, changes: Sequence[Change], answers: Sequence[Any]) -> None:
        """The log carried out a transaction."""
        begin, end = self._looked, self._log.last_seq
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(change, Erase):
                for channel, values in self._last_values.items():
                    if values[-1][2] in self._log.erased:
                        self._retain(channel, begin, end, None)
            elif isinstance(change, Remove) and isinstance(change.what, CloseChannel) and answer.done:
                self._retain(change.what.channel, begin, end, None)
        for seq in range(begin + 1, end + 1):
            message = self._log.messages.get(seq)
            if message is not None and message.recipient_channel is not None:
                is_cleared = message.body == b"null"
                if is_cleared or message.body.startswith(RETAINED_MARK):
                    self._retain(message.recipient_channel, seq, seq, None if is_cleared else seq)
        self._looked = end
        for channel, values in self._last_values.items():
            found, expected = self._log.keyed.retained(channel), values[-1][2]
            if (None if found is None else found.seq) == expected:
                continue
            if found is not None or not self._may_have_ended_since(expected, changes):
                raise Violation(f"{channel} has {found} as its last value, and should have {expected}")
            self._retain(channel, begin, end, None)
        self.look()

    def _may_have_ended_since(self, seq: int | None, changes: Sequence[Change]) -> bool:
        """Return True if a message that came with these changes may have ended with its channel since."""
        closes = any(isinstance(change, Remove) and isinstance(change.what, CloseChannel) for change in changes)
        return closes or seq in self._log.erased

    def _retain(self, channel: str, after: int, until: int, seq: int | None) -> None:
        self._last_values.setdefault(channel, [(0, 0, None)]).append((after, until, seq))

    def check_subscribed(self, channel: str, start_seq: int, retained: int | None) -> None:
        """A bot that subscribed at the end of the log was told the last value of the channel."""
        at_that_time: list[int | None] = []
        for after, until, seq in self._last_values.get(channel, [(0, 0, None)]):
            if until < start_seq or after == until <= start_seq:
                at_that_time = [seq]
            elif after <= start_seq:
                at_that_time.append(seq)
        if retained not in at_that_time:
            raise Violation(f"{channel} had one of {at_that_time} at {start_seq}, and {retained} was told")


class View:
    """What one who watches a store knows."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.after = 0
        self.seen: dict[str, int] = {}
        self.listing = True
        self.key: str | None = None
        self.round = 0
        """Which of its questions is the last one: answers to others come too late."""
        self.woken = False
        self.is_waiting = False
