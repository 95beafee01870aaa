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
from collections.abc import Callable, Collection, Iterable, Set

from ..model.repository import PageRequest
from ..settings import Limits
from .parcel import Parcel

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
        self._ready = _Queue()
        self._aside = _Queue()
        self._overflowed = False
        self.stale = False
        """Whether the page that is being read may have what is not to be delivered any more."""

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
        return self.level and not len(self._ready)

    @property
    def hungry(self) -> bool:
        """Whether a page is worth reading: there is more in the store, and room for it here."""
        return not self.level and len(self) < self._limits.ready_messages_max // 2

    @property
    def page_max(self) -> tuple[int, int]:
        """How many messages a page may have that is read for it, and how many bytes: half of what may wait here."""
        return max(1, self._limits.ready_messages_max // 2), max(1, self._limits.ready_bytes_max // 2)

    def arrive(self, parcel: Parcel) -> bool:
        """Add newly committed messages, in seq order; return False if all are left for the next page.

        The last one that is added may exceed the limit in bytes.
        """
        room = self._limits.ready_messages_max - len(self._ready) - len(self._aside)
        room_bytes = self._limits.ready_bytes_max - self._ready.size_bytes - self._aside.size_bytes
        room = min(room, parcel.fitting(room_bytes)) if room_bytes > 0 else 0
        if room > 0:
            (self._ready if self.level else self._aside).append(parcel.part(0, room))
        if room < len(parcel):
            if self.level:
                self.loaded_seq = parcel.seqs[max(room, 0)] - 1
            self.level, self._overflowed = False, True
            self._aside.clear()
        return room > 0

    def read(self, request: PageRequest) -> PageRequest:
        """Note that a page is being read."""
        self.reading, self._overflowed, self.stale = request, False, False
        return request

    def end_reading(self) -> PageRequest:
        """Return the request of the page that has arrived. Call `take` if the page is of use."""
        request, self.reading = self.reading, None
        assert request is not None
        return request

    def take(self, parcels: Iterable[Parcel], *, through_seq: int, complete: bool) -> None:
        """Add the wanted messages of a page; it ends at `through_seq`, and nothing follows if `complete`."""
        for parcel in parcels:
            self._ready.append(parcel)
        self.level = complete and not self._overflowed
        self.loaded_seq = through_seq

    def take_aside(self) -> None:
        """Append what arrived while a page was read, or drop it if still behind: another page finds it."""
        if self.level:
            self._ready.extend(self._aside)
        self._aside.clear()

    def next(self, messages_max: int, bytes_max: int) -> Parcel | None:
        """Return the next messages to deliver, within these limits; the last one may exceed that in bytes."""
        return self._ready.next(messages_max, bytes_max)

    def drop_channel(self, channel: str) -> None:
        """Drop the messages of a channel that are no longer wanted."""
        self._drop(lambda parcel: parcel.part(0, 0) if parcel.envelope.channel == channel else parcel)

    def drop(self, seqs: Collection[int]) -> None:
        """Drop messages that have left the log."""
        if seqs:
            self._drop(lambda parcel: parcel.without(seqs))

    def _drop(self, keep: Callable[[Parcel], Parcel]) -> None:
        for queue in (self._ready, self._aside):
            queue.change(keep)

    def forget_texts(self, seqs: Set[int], position: int) -> bool:
        """Fall behind if one of these messages is in memory, or may be in the page that is being read.

        Return False if none is.
        """
        self.stale = self.reading is not None
        if not self.stale and all(seqs.isdisjoint(parcel.seqs) for parcel in self._ready.parcels()):
            return False
        self.unload(position)
        return True

    def reload(self, position: int) -> None:
        """Fall behind, and make no use of the page that is being read: some of it is not wanted any more."""
        self.stale = self.reading is not None
        self.unload(position)

    def unload(self, position: int) -> None:
        """Fall behind: drop what is in memory; the next page begins after the position."""
        self._ready.clear()
        self._aside.clear()
        self._overflowed = True
        self.level = False
        self.loaded_seq = position


class _Queue:
    """Parcels in seq order; its length is that of all their messages."""

    def __init__(self) -> None:
        self._parcels: deque[Parcel] = deque()
        self._taken = 0
        """How many messages of the first parcel were taken."""
        self._count = 0
        self.size_bytes = 0
        """The size of the wires, without the closing braces."""

    def __len__(self) -> int:
        return self._count

    def parcels(self) -> list[Parcel]:
        """Return what there is."""
        parcels = list(self._parcels)
        if self._taken:
            parcels[0] = parcels[0].part(self._taken, len(parcels[0]))
        return parcels

    def append(self, parcel: Parcel) -> None:
        """Append messages."""
        if len(parcel):
            self._parcels.append(parcel)
            self._count += len(parcel)
            self.size_bytes += parcel.size_bytes

    def extend(self, other: _Queue) -> None:
        """Append the messages of another queue."""
        for parcel in other.parcels():
            self.append(parcel)

    def next(self, messages_max: int, bytes_max: int) -> Parcel | None:
        """Remove the first messages, all of one parcel, within these limits; the last one may exceed the bytes."""
        if not self._parcels:
            return None
        first, start = self._parcels[0], self._taken
        parcel = first.part(start, start + messages_max)
        parcel = parcel.part(0, parcel.fitting(bytes_max))
        self._taken += len(parcel)
        if self._taken * 2 > len(first):  # keep no more than twice what is counted
            self._parcels.popleft()
            if self._taken < len(first):
                self._parcels.appendleft(first.part(self._taken, len(first)))
            self._taken = 0
        self._count -= len(parcel)
        self.size_bytes -= parcel.size_bytes
        return parcel

    def change(self, change: Callable[[Parcel], Parcel]) -> None:
        """Replace each parcel by what `change` makes of it."""
        parcels = self.parcels()
        self.clear()
        for parcel in parcels:
            self.append(change(parcel))

    def clear(self) -> None:
        """Remove everything."""
        self._parcels.clear()
        self._taken = self._count = self.size_bytes = 0
