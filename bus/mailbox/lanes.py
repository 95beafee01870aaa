"""The prioritized direct messages of a mailbox, which are not delivered with the others.

Owns a *lane* for each priority of which something waits. Its rules (docs/design.md):

- A lane has its own place in the log, `through`, up to which its messages were delivered, whatever the mailbox's
  position is. Its messages come into memory as the others do, by an intake of its own.
- A lane that is not there has the place of the other direct messages, and nothing waits in it. So one in which
  nothing waits is dropped when that place has passed its own, and a mailbox without prioritized messages has none.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set

import msgspec

from ..model.priorities import priority_of_source, source_of
from ..model.repository import MailboxState
from ..settings import Limits
from .intake import Intake
from .parcel import Parcel

__all__ = ["Lane", "Lanes"]

_SHARE = 4
"""A lane may have a part in so many of what a mailbox may have in memory, in addition to that."""


class Lane:
    """The messages of one priority. Up to `through` they were delivered, and `last_seq` is the last one's."""

    __slots__ = ("intake", "last_seq", "priority", "source", "through")

    def __init__(self, priority: int, through: int, limits: Limits) -> None:
        self.priority = priority
        self.source = source_of(None, priority) or ""
        self.through = self.last_seq = through
        self.intake = Intake(through, limits)

    def __repr__(self) -> str:
        return f"<Lane {self.source} through={self.through} last_seq={self.last_seq} {self.intake}>"

    @property
    def waits(self) -> bool:
        """Whether a message waits for its first delivery, in memory or in the store."""
        return self.last_seq > self.through and (self.behind or len(self.intake) > 0)

    @property
    def behind(self) -> bool:
        """Whether a message is only in the store."""
        return not self.intake.level and self.last_seq > self.intake.loaded_seq

    def advance(self, seq: int) -> None:
        """Note that everything up to a seq was delivered in order."""
        self.through = max(self.through, seq)

    def catch_up(self) -> None:
        """Advance to the end if nothing waits: what came last may have left the log, or have been erased."""
        if not self.waits:
            self.advance(self.last_seq)


class Lanes:
    """See the module. In a boolean context, whether there is a lane."""

    def __init__(self, state: MailboxState, limits: Limits) -> None:
        self._limits = msgspec.structs.replace(
            limits,
            ready_messages_max=max(2, limits.ready_messages_max // _SHARE),
            ready_bytes_max=max(1, limits.ready_bytes_max // _SHARE),
        )
        self._lanes: dict[int, Lane] = {}
        for source, through in state.floors.items():
            priority = priority_of_source(source)
            if priority:
                self._lanes[priority] = Lane(priority, through, self._limits)
        self.early = set(state.ahead).union(
            item.seq
            for item in state.unsettled
            if item.seq > state.position and item.priority and item.priority not in self._lanes
        )
        """What was delivered before its turn in a lane, or without one; after a restart, what was so at all."""
        self.delivered = {
            item.seq
            for item in state.unsettled
            if item.seq > state.position and item.priority in self._lanes and item.seq not in self.early
        }
        """What lanes have delivered above the mailbox's position: their places say so."""

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        """Yield the lanes, the highest priority first."""
        return iter([self._lanes[priority] for priority in sorted(self._lanes, reverse=True)])

    def __repr__(self) -> str:
        return f"<Lanes {list(self)}>"

    def get(self, priority: int) -> Lane | None:
        """Return the lane of a priority."""
        return self._lanes.get(priority)

    def of(self, source: str | None) -> Lane | None:
        """Return the lane that is a source."""
        priority = priority_of_source(source or "")
        return self._lanes.get(priority) if priority else None

    def restore(self, priority: int, last_seq: int, direct: int) -> None:
        """Note after a restart the last message of a priority.

        `direct` is the place of a lane that is not there.
        """
        lane = self._lanes.get(priority)
        if last_seq > (direct if lane is None else lane.through):
            self._open(priority, direct).last_seq = last_seq

    def _open(self, priority: int, through: int) -> Lane:
        if priority not in self._lanes:
            self._lanes[priority] = Lane(priority, through, self._limits)
        return self._lanes[priority]

    def arrive(self, parcel: Parcel, *, connected: bool) -> bool:
        """Add newly committed messages of one priority; return True if some may be handed out, or read."""
        lane = self._open(parcel.envelope.priority, parcel.seqs[0] - 1)
        if connected and lane.intake.reading is None and not lane.behind:
            lane.intake.level = True  # there is nothing to be read
        lane.last_seq = parcel.seqs[-1]
        if lane.intake.listening:
            lane.intake.arrive(parcel)
        return connected

    def put_early(self, priority: int, seqs: Collection[int]) -> None:
        """Note messages that are delivered before their turn in a lane, if there is one."""
        if priority in self._lanes:
            self.early.update(seqs)

    @property
    def reading(self) -> Lane | None:
        """The lane of which a page is being read."""
        return next((lane for lane in self._lanes.values() if lane.intake.reading is not None), None)

    def unload(self) -> None:
        """Drop what is in memory: the mailbox has no session any more."""
        for lane in self._lanes.values():
            lane.catch_up()
            lane.intake.unload(lane.through)

    def drop(self, seqs: Collection[int]) -> None:
        """Drop messages that have left the log, or that a client holds."""
        for lane in self._lanes.values():
            lane.intake.drop(seqs)
            lane.catch_up()

    def forget_texts(self, seqs: Set[int]) -> bool:
        """Fall behind where these messages are in memory; return False if none is."""
        return sum(lane.intake.forget_texts(seqs, lane.through) for lane in self._lanes.values()) > 0

    def purge(self, through: int) -> None:
        """Pass over everything up to a seq."""
        for lane in self._lanes.values():
            lane.advance(through)
            lane.intake.reload(lane.through)

    def saved(self, position: int, direct: int, purging: int) -> dict[str, int]:
        """Return the places of the lanes, by their sources, and drop those that are of no use.

        `position` is the mailbox's, `direct` the place of the other direct messages, and `purging` what a purge on
        its way to the disk passes over.
        """
        for lane in list(self._lanes.values()):
            lane.catch_up()
            if not lane.waits and lane.through <= direct and lane.intake.reading is None:
                del self._lanes[lane.priority]
        start = min((lane.through for lane in self._lanes.values()), default=direct)
        self.early = {seq for seq in self.early if seq > start} if self._lanes else set()
        self.delivered = {seq for seq in self.delivered if seq > position}
        return {lane.source: max(lane.through, purging) for lane in self._lanes.values()}
