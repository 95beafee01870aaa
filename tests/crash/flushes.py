"""When something that nobody confirmed was on disk all the same: by what was answered afterwards.

Owns one inference. A session's frames are carried out in their order, so an answer shows that what the session said
before has been carried out. Mailboxes that changed are written with the first batch that is taken after the flush
interval, and batches are written in their order; so a write that was asked of the same worker later than that, and
is answered, shows that the change is on disk.

Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .history import Event, Publish, Settle
from .subscriptions import Call

__all__ = ["Flushes", "is_written"]

_MARGIN_SECONDS = 0.05


class _Answered:
    """Calls in the order of a key, each with the event of its answer: which answer came first from a key on?"""

    def __init__(self) -> None:
        self._keys: list[float] = []
        self._ends: list[int] = []

    def add(self, key: float, end: int) -> None:
        self._keys.append(key)
        self._ends.append(end)

    def close(self) -> None:
        """Be ready for questions."""
        for position in range(len(self._ends) - 2, -1, -1):
            self._ends[position] = min(self._ends[position], self._ends[position + 1])

    def after(self, key: float) -> int | None:
        position = bisect_right(self._keys, key)
        return self._ends[position] if position < len(self._ends) else None


class Flushes:
    """See the module. `fences` has that of each session's worker, where there are several."""

    def __init__(
        self, history: Sequence[Event], calls: Iterable[Call], flush_seconds: float, fences: Mapping[str, int]
    ) -> None:
        self._history = history
        self._wait_seconds = flush_seconds + _MARGIN_SECONDS
        self._by_session: defaultdict[str, _Answered] = defaultdict(_Answered)
        self._writes: defaultdict[tuple[int, int], _Answered] = defaultdict(_Answered)
        self._fences = fences
        for call in calls:
            if call.ok is not None and call.session:
                self._by_session[call.session].add(call.index, call.ends)
                if is_written(call):
                    self._writes[self._served(call)].add(call.invoke.at, call.ends)
        for answered in (*self._by_session.values(), *self._writes.values()):
            answered.close()

    def on_disk(self, call: Call) -> int | None:
        """Return the event by which a call that was not answered was certainly on disk; None if there is none."""
        if call.session not in self._by_session:
            return None
        carried_out = self._by_session[call.session].after(call.index)
        if carried_out is None or carried_out > call.over:
            return None
        at = self._history[carried_out].at + self._wait_seconds
        return self._writes[self._served(call)].after(at)

    def _served(self, call: Call) -> tuple[int, int]:
        """Return which worker served a call."""
        return call.invoke.incarnation, self._fences.get(call.session, 0)


def is_written(call: Call) -> bool:
    """Return True if the answer to a call came by way of a batch."""
    action, ok = call.invoke.action, call.ok
    if isinstance(action, Publish) and ok is not None:
        return any(seq is not None and place not in ok.duplicates for place, seq in enumerate(ok.seqs))
    return isinstance(action, Settle) and action.confirmed
