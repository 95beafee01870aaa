"""Clients that vanished with messages in flight, and the failures that this counted.

Owns, for one mailbox, the failures that are undone when a client returns. Its rules:

- Vanishing counts as a failure of every message that the client had; returning undoes it.
- A message is not given up before the clients that failed it by vanishing had time to return.

Pure: time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from .unsettled import Unsettled

__all__ = ["Absent"]

_SPARE = 1_000
"""Notes about settled messages that are always kept: fewer are not worth clearing."""

_CLIENTS_MAX = 8
"""How many clients a message remembers: the last ones that vanished with it."""


class _Suspended(msgspec.Struct):
    failure: str
    until: float | None


class Absent:
    """See the module."""

    __slots__ = ("_count", "_count_max", "_failed", "_suspended")

    def __init__(self, unsettled: Mapping[int, Unsettled], *, failures_max: int) -> None:
        self._suspended: dict[int, _Suspended] = {
            seq: _Suspended("its session vanished", None)
            for seq, item in unsettled.items()
            if item.vanished and item.failures >= failures_max
        }
        self._failed: dict[str, list[int]] = {}
        self._count = self._count_max = 0
        self._index(unsettled)

    def __bool__(self) -> bool:
        return bool(self._suspended)

    def __repr__(self) -> str:
        return f"<Absent clients={len(self._failed)} suspended={len(self._suspended)}>"

    @property
    def clients(self) -> int:
        """How many clients are away, at most."""
        return len(self._failed)

    def __contains__(self, seq: int) -> bool:
        """Return True if a message waits for clients to return before it is given up."""
        return seq in self._suspended

    def note(self, client: str, seq: int, unsettled: Mapping[int, Unsettled]) -> None:
        """Note that a client vanished with a message in flight."""
        item = unsettled[seq]
        item.vanished = (*item.vanished, client)[-_CLIENTS_MAX:]
        self._failed.setdefault(client, []).append(seq)
        self._count += 1
        if self._count > self._count_max:
            self._index(unsettled)

    def suspend(self, seq: int, failure: str, until: float) -> None:
        """Postpone giving up on a message until a moment."""
        self._suspended[seq] = _Suspended(failure, until)

    def resume(self, seq: int) -> bool:
        """Stop a message's wait; return whether it waited."""
        return self._suspended.pop(seq, None) is not None

    def take(self, client: str, unsettled: Mapping[int, Unsettled]) -> Iterator[int]:
        """Undo the failures of a client that is back, and yield their seqs."""
        for seq in self._failed.pop(client, ()):
            self._count -= 1
            item = unsettled.get(seq)
            if item is not None and client in item.vanished:
                item.failures -= item.vanished.count(client)
                item.vanished = tuple(other for other in item.vanished if other != client)
                yield seq

    def confirm(self, client: str, unsettled: Mapping[int, Unsettled]) -> None:
        """Keep the failures of a client that did not vanish; give up on what waited only for its return."""
        for seq in self._failed.pop(client, ()):
            self._count -= 1
            item = unsettled.get(seq)
            if item is not None and client in item.vanished:
                item.vanished = tuple(other for other in item.vanished if other != client)
                if seq in self._suspended and not item.vanished:
                    self._suspended[seq].until = -math.inf

    def postpone(self, client: str) -> None:
        """Restart the wait for one client, which is on its way back."""
        for seq in self._failed.get(client, ()):
            if seq in self._suspended and self._suspended[seq].until != -math.inf:
                self._suspended[seq].until = None

    def wait_anew(self) -> None:
        """Restart all waits."""
        for suspended in self._suspended.values():
            if suspended.until != -math.inf:
                suspended.until = None

    def due(self, now: float, wait_seconds: float) -> Iterator[tuple[int, str]]:
        """Remove what has waited long enough, and yield seqs and failures. Start the waits that have no end yet."""
        for seq, suspended in list(self._suspended.items()):
            if suspended.until is None:
                suspended.until = now + wait_seconds
            elif suspended.until <= now:
                del self._suspended[seq]
                yield seq, suspended.failure

    def _index(self, unsettled: Mapping[int, Unsettled]) -> None:
        self._failed, self._count = {}, 0
        for seq, item in unsettled.items():
            for client in item.vanished:
                self._failed.setdefault(client, []).append(seq)
                self._count += 1
        self._count_max = 2 * self._count + _SPARE
