"""The messages that a mailbox has in memory and has not delivered yet: arrived ones and read ones.

Owns the moves between *level* and *behind* (docs/design.md):

- *Level*: every committed message that was not delivered is here, and new ones are added as they arrive.
- *Behind*: some are only in the store, and are read by page, after `loaded_seq`.
- While a page is being read, arriving messages are kept aside, after the page. If that overflows, the next page
  reads them from the store. So the moves neither lose nor repeat a message.

The mailbox decides which messages are wanted. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ..model.repository import PageRequest
from ..settings import Limits
from .envelope import Envelope

__all__ = ["Intake"]


class Intake:
    """See the module. It starts behind, at the mailbox's position."""

    def __init__(self, position: int, limits: Limits) -> None:
        self.level = False
        self.loaded_seq = position
        """All wanted messages up to here were delivered or are in memory."""
        self.reading: PageRequest | None = None
        """The page that is being read."""
        self._limits = limits
        self._ready: deque[Envelope] = deque()
        self._aside: deque[Envelope] = deque()
        self._size_bytes = 0
        """Size of `_ready` and `_aside`, without the closing braces."""
        self._overflowed = False

    def __repr__(self) -> str:
        return f"<Intake {'level' if self.level else 'behind'} ready={len(self)} aside={self.aside}>"

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def aside(self) -> int:
        """How many messages arrived while a page is being read."""
        return len(self._aside)

    @property
    def overflowed(self) -> bool:
        """Whether messages were dropped while a page is being read: then that page does not end the log."""
        return self._overflowed

    @property
    def listening(self) -> bool:
        """Whether new messages go to `arrive`; otherwise the next page finds them."""
        return self.level or (self.reading is not None and not self._overflowed)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for its first delivery, here or in the store."""
        return self.level and not self._ready

    @property
    def hungry(self) -> bool:
        """Whether a page is worth reading: there is more in the store, and room for it here."""
        return not self.level and len(self) < self._limits.ready_messages_max // 2

    def arrive(self, envelope: Envelope) -> bool:
        """Add a newly committed message, in seq order; return False if it is left for the next page."""
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
        """Return the request of the page that has arrived. Call `take` if the page is of use."""
        request, self.reading = self.reading, None
        assert request is not None
        return request

    def take(self, envelopes: Sequence[Envelope], *, through_seq: int, complete: bool) -> None:
        """Add the wanted messages of a page; it ends at `through_seq`, and nothing follows if `complete`."""
        self._ready.extend(envelopes)
        self._size_bytes += _size_of(envelopes)
        self.level = complete and not self._overflowed
        self.loaded_seq = through_seq

    def take_aside(self) -> None:
        """Append what arrived while a page was read, or drop it if still behind: another page finds it."""
        if self.level:
            self._ready.extend(self._aside)
            self._aside.clear()
        self._drop_aside()

    def next(self) -> Envelope | None:
        """Return the next message to deliver."""
        if not self._ready:
            return None
        envelope = self._ready.popleft()
        self._size_bytes -= len(envelope.wire)
        return envelope

    def drop(self, unwanted: Callable[[Envelope], bool]) -> None:
        """Drop messages that are no longer wanted."""
        self._ready = deque(envelope for envelope in self._ready if not unwanted(envelope))
        self._aside = deque(envelope for envelope in self._aside if not unwanted(envelope))
        self._size_bytes = _size_of(self._ready) + _size_of(self._aside)

    def unload(self, position: int) -> None:
        """Fall behind: drop what is in memory; the next page begins after the position."""
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
