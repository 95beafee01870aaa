"""What a mailbox has in memory and has not handed out yet: what arrived, and what was read.

Owns the moves between *level* and *behind* (docs/design.md):

- *Level*: every committed message above what was handed out is here, and new ones arrive from memory.
- *Behind*: some are only in the store, and are read by page, after `loaded_seq`.
- While a page is being read, what arrives is kept aside, after the page; when that overflows, the next page finds
  it in the store. So the moves lose and repeat nothing.

Which messages are wanted is the mailbox's business. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ..model.repository import PageRequest
from ..settings import Limits
from .envelope import Envelope

__all__ = ["Intake"]


class Intake:
    """See the module. It begins behind, at the mailbox's position."""

    def __init__(self, position: int, limits: Limits) -> None:
        self.level = False
        self.loaded_seq = position
        """All that is wanted up to here was handed out or is in memory."""
        self.reading: PageRequest | None = None
        """The page that is being read."""
        self._limits = limits
        self._ready: deque[Envelope] = deque()
        self._aside: deque[Envelope] = deque()
        self._size_bytes = 0
        """Of both, without the braces."""
        self._overflowed = False

    def __repr__(self) -> str:
        return f"<Intake {'level' if self.level else 'behind'} ready={len(self)} aside={self.aside}>"

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def aside(self) -> int:
        """How many arrived while a page is being read."""
        return len(self._aside)

    @property
    def overflowed(self) -> bool:
        """Whether something arrived that the page being read must not be taken for complete without."""
        return self._overflowed

    @property
    def listening(self) -> bool:
        """Whether new messages are to be given to `arrive`; else the next page finds them."""
        return self.level or (self.reading is not None and not self._overflowed)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, here or in the store, to be handed out for the first time."""
        return self.level and not self._ready

    @property
    def hungry(self) -> bool:
        """Whether a page is worth reading: there is more in the store, and room for it here."""
        return not self.level and len(self) < self._limits.ready_messages_max // 2

    def arrive(self, envelope: Envelope) -> bool:
        """Accept a newly committed message, in seq order; return False if it is left for the next page."""
        limits, count = self._limits, len(self._ready) + len(self._aside)
        if count >= limits.ready_messages_max or self._size_bytes >= limits.ready_bytes_max:
            if self.level:
                self.loaded_seq = envelope.seq - 1
            self.level, self._overflowed = False, True
            self._drop_aside()
            return False
        (self._ready if self.level else self._aside).append(envelope)
        self._size_bytes += len(envelope.wire)
        return True

    def read(self, request: PageRequest) -> PageRequest:
        """Note that a page is being read."""
        self.reading, self._overflowed = request, False
        return request

    def end_reading(self) -> PageRequest:
        """Return the page that was being read: it has arrived. `take` follows if it is of use."""
        request, self.reading = self.reading, None
        assert request is not None
        return request

    def take(self, envelopes: Sequence[Envelope], *, through_seq: int, complete: bool) -> None:
        """Accept the wanted messages of a page; it ends at `through_seq`, and nothing follows if `complete`."""
        self._ready.extend(envelopes)
        self._size_bytes += _size_of(envelopes)
        self.level = complete and not self._overflowed
        self.loaded_seq = through_seq

    def take_aside(self) -> None:
        """End the keeping aside: what arrived while a page was read is next, or else another page finds it."""
        if self.level:
            self._ready.extend(self._aside)
            self._aside.clear()
        self._drop_aside()

    def next(self) -> Envelope | None:
        """Return what is to be delivered next."""
        if not self._ready:
            return None
        envelope = self._ready.popleft()
        self._size_bytes -= len(envelope.wire)
        return envelope

    def drop(self, unwanted: Callable[[Envelope], bool]) -> None:
        """Drop what is not wanted any more."""
        self._ready = deque(envelope for envelope in self._ready if not unwanted(envelope))
        self._aside = deque(envelope for envelope in self._aside if not unwanted(envelope))
        self._size_bytes = _size_of(self._ready) + _size_of(self._aside)

    def unload(self, position: int) -> None:
        """Fall behind: forget what is in memory; the next page begins after the position."""
        self._ready.clear()
        self._aside.clear()
        self._size_bytes = 0
        self._overflowed = True
        self.level = False
        self.loaded_seq = position

    def _drop_aside(self) -> None:
        self._size_bytes -= _size_of(self._aside)
        self._aside.clear()


def _size_of(envelopes: Iterable[Envelope]) -> int:
    return sum(len(envelope.wire) for envelope in envelopes)
