"""What a mailbox reads from the log, and what becomes of the pages.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model.priorities import NORMAL
from ..model.repository import PageRequest
from .lanes import Lane
from .parcel import Parcel
from .parts import Parts
from .sessions import Session

__all__ = ["Reading"]

_AHEAD_MAX = 256
"""Messages settled before their turn that are kept in mind before a page is read to let their turn come."""

_RECALLED_MAX = 32
"""Messages that are read again by one page, beside what follows: together no more than the page's own bytes."""


class Reading:
    """Reads for one mailbox, with whose parts it works."""

    def __init__(self, mailbox_id: str, parts: Parts) -> None:
        self._mailbox_id = mailbox_id
        self._parts = parts

    def __repr__(self) -> str:
        return f"<Reading {self._mailbox_id}>"

    def next_read(self, sessions: Sequence[Session], last_seq: int) -> PageRequest | None:
        """Return the page to read now; None while one is being read, or if nobody could take it."""
        if self._parts.is_reading or not sessions:
            return None
        missing = self._parts.outstanding.missing(_RECALLED_MAX)
        # A bot that never takes anything, but has its replies early, would keep them all in mind.
        eager = len(self._parts.sources.ahead) > _AHEAD_MAX or any(session.free > 0 for session in sessions)
        lane = self._next_lane() if eager and self._parts.sources.lanes else None
        intake = self._parts.intake if lane is None else lane.intake
        if not missing and not (intake.hungry and eager):
            return None
        sources = () if intake.level else self.remaining() if lane is None else _rest(lane)
        return intake.read(PageRequest(self._mailbox_id, tuple(missing), sources, last_seq, *intake.page_max))

    def _next_lane(self) -> Lane | None:
        """Return the lane to be read next; None if none is behind, or what is not prioritized comes first."""
        for lane in self._parts.sources.lanes:
            if lane.behind and lane.intake.hungry and (lane.priority > 0 or self._parts.intake.idle):
                return lane
        return None

    @property
    def request(self) -> PageRequest | None:
        """The page that is being read."""
        lane = self._parts.sources.lanes.reading
        return (self._parts.intake if lane is None else lane.intake).reading

    @property
    def behind(self) -> bool:
        """Whether messages are only in the store."""
        return not self._parts.intake.level or any(lane.behind for lane in self._parts.sources.lanes)

    def remaining(self) -> tuple[tuple[str, int, bool], ...]:
        """Return what is not loaded, as `PageRequest.sources`, but for lanes."""
        return self._parts.sources.after(self._parts.intake.loaded_seq)

    def loaded(self) -> int:
        """Return how many messages are unsettled and in memory; `unread` is the rest.

        One that was given up counts until it can be found among the dead letters, so that it is always somewhere.
        """
        ready = len(self._parts.intake) + sum(len(lane.intake) for lane in self._parts.sources.lanes)
        return len(self._parts.outstanding) + ready + self._parts.dead_letters.unstored

    def unread(self, last_seq: int) -> PageRequest:
        """Return what is unsettled and not in memory, to be counted."""
        others = () if self._parts.intake.level else self.remaining()
        lanes = (source for lane in self._parts.sources.lanes if lane.behind for source in _rest(lane))
        sources = (*others, *lanes)
        early = self._parts.early(min((after for _, after, _ in sources), default=last_seq))
        return PageRequest(self._mailbox_id, early, sources, last_seq, 1, 1)

    def page_read(
        self,
        recalled: Iterable[Parcel],
        messages: Sequence[Parcel],
        *,
        complete: bool,
        damaged: Sequence[int],
        away: bool,
    ) -> tuple[int, ...]:
        """Add the page that `next_read` asked for; return the seqs that were lost by damage or removal.

        `away` says that the mailbox has no session any more: then nothing is kept in memory.
        """
        sources, lane = self._parts.sources, self._parts.sources.lanes.reading
        intake = self._parts.intake if lane is None else lane.intake
        request = intake.end_reading()
        if intake.stale:
            intake.take_aside()
            self._parts.losses.gone.clear()
            return ()
        lost = self._recall(request.seqs, recalled, away=away)
        # Where only single messages were asked for, nothing follows. Where the mailbox was rewound, left or given
        # another channel in the meantime, what was read no longer follows what is there.
        remaining = self.remaining() if lane is None else _rest(lane)
        if request.sources and not away and _alike(request.sources, remaining):
            ahead = sources.ahead if lane is None else sources.lanes.early
            skipped = [seq for seq in damaged if seq not in request.seqs]
            lost.update(seq for seq in skipped if seq not in self._parts.outstanding and seq not in ahead)
            seen = [*(parcel.seqs[-1] for parcel in messages), *skipped]
            through_seq = request.through_seq if complete else max(seen, default=intake.loaded_seq)
            known = (self._parts.outstanding.seqs, ahead, self._parts.losses.gone)
            wanted = (sources.wanted(parcel) if lane is None else parcel for parcel in messages)
            intake.take((parcel.without(*known) for parcel in wanted), through_seq=through_seq, complete=complete)
        intake.take_aside()
        self._parts.losses.gone.clear()
        if lane is not None:
            lane.catch_up()
        elif intake.idle:
            sources.advance(intake.loaded_seq)
        return tuple(sorted(lost))

    def _recall(self, seqs: Iterable[int], parcels: Iterable[Parcel], *, away: bool) -> set[int]:
        """Load what is to be redelivered and was read again; return what was not found: it is lost."""
        found = {
            seq: (parcel.envelope, wire)
            for parcel in parcels
            for seq, wire in zip(parcel.seqs, parcel.wires, strict=True)
        }
        lost: set[int] = set()
        unwanted: set[int] = set()
        for seq in seqs:
            item = self._parts.outstanding.get(seq)
            if item is None or item.session is not None or self._parts.outstanding.is_suspended(seq):
                continue
            envelope, wire = found.get(seq, (None, b""))
            if envelope is None:
                lost.add(seq)
            elif not (item.retried or self._parts.sources.still_wants(seq, envelope.channel)):
                unwanted.add(seq)
            else:
                self._parts.outstanding.load(seq, envelope, wire)
                if away:
                    self._parts.outstanding.unload(seq)
        self._parts.outstanding.discard(lost | unwanted)
        return lost


_PageSources = tuple[tuple[str, int, bool], ...]


def _rest(lane: Lane) -> _PageSources:
    """Return what is not loaded of a lane, as `PageRequest.sources`."""
    return ((lane.source, lane.intake.loaded_seq, False),)


def _alike(one: _PageSources, other: _PageSources) -> bool:
    """Return True if both begin at the same places. Whether there are lanes beside them may have changed."""
    return one == other or [(source or NORMAL, *rest) for source, *rest in one] == [
        (source or NORMAL, *rest) for source, *rest in other
    ]
