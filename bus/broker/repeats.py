"""Suppression of repeated log entries, so that a fault a thousand times a second does not fill the disk.

The first entry of a kind is written at once. Repeats are counted, and the count is written at the end of each
window in which there were any. Entries that differ only in counts are of one kind.

Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Repeats"]

_WINDOW_SECONDS = 10.0
"""How long entries of a kind are counted before the count is written: soon enough for somebody who watches."""

_KINDS_MAX = 1000
_KINDS_OF_EVENT_MAX = 100
"""Kinds that are counted at once, in all and of one event; beyond it, entries are distinguished by level and event
alone. So bots that come and go do not hide what else happens.
"""

_COUNTS = frozenset({"changes", "exc_info", "first_seq", "in_flight", "messages", "silent_seconds"})
"""Fields that do not distinguish kinds: how much it was, and a traceback, which stands for its error."""

_TEXT_CHARACTERS_MAX = 200
"""How much of a field's text is compared."""


class _Kind:
    """One kind of entry in its window."""

    def __init__(self, entry: dict[str, Any], until: float) -> None:
        self.entry = entry
        self.until = until
        self.repeats = 0


class Repeats:
    """Counts the entries that repeat earlier ones."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._of_event: dict[tuple[str, str], int] = {}
        """How many kinds of each level and event there are."""

    def __repr__(self) -> str:
        return f"<Repeats kinds={len(self._kinds)}>"

    def admit(self, level: str, entry: Mapping[str, Any], now: float, error: BaseException | None = None) -> bool:
        """Return True if an entry is to be written; otherwise count it."""
        event = str(entry.get("event"))
        fields = {name: value for name, value in entry.items() if name not in _COUNTS}
        key = (
            level,
            event,
            *(f"{name}={value!r}"[:_TEXT_CHARACTERS_MAX] for name, value in sorted(fields.items())),
        )
        if error is not None:
            key = (*key, type(error).__name__, str(error)[:_TEXT_CHARACTERS_MAX])
        of_event = self._of_event.get((level, event), 0)
        full = of_event >= _KINDS_OF_EVENT_MAX or len(self._kinds) >= _KINDS_MAX
        if key not in self._kinds and full:
            key, fields = (level, event), {"event": entry.get("event")}
        kind = self._kinds.get(key)
        if kind is None:
            self._of_event[level, event] = self._of_event.get((level, event), 0) + 1
            self._kinds[key] = _Kind(fields | {"level": level}, now + _WINDOW_SECONDS)
            return True
        kind.repeats += 1
        return False

    def take_due(self, now: float, *, at_end: bool = False) -> list[dict[str, Any]]:
        """Return the counts whose window is over, as entries with `repeats`; at the end, all of them."""
        counted = []
        for key, kind in list(self._kinds.items()):
            if now < kind.until and not at_end:
                continue
            if kind.repeats:
                counted.append(kind.entry | {"repeats": kind.repeats})
                kind.repeats, kind.until = 0, now + _WINDOW_SECONDS
            else:
                del self._kinds[key]
                level, event = key[:2]
                self._of_event[level, event] -= 1
                if not self._of_event[level, event]:
                    del self._of_event[level, event]
        return counted
