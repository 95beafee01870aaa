"""What a mailbox wants from the log: direct messages and channels, each from a seq on.

Owns the position and the floors. Its rules (docs/design.md):

- `position` is the highest seq delivered in order; nothing above it was delivered in order.
- If a subscription starts in the past, the position goes back to that start. A *floor* for each other source then
  prevents its messages from being delivered twice.
- The state saved with such a subscription goes back to its start before memory does, so that its messages are found
  after a crash in between.
- `ahead` has the seqs above the position that were settled ahead of their turn: they are not delivered again.
- A *purge* passes over everything up to a seq, by a floor for each source. The state saved with it has these floors
  before memory does.
- Prioritized direct messages are in `lanes`, which have places of their own. These are saved among the floors, too.
- A channel can be *paused*: nothing of it is delivered, and when it goes on, it does so where it was. Its place is
  saved among the floors, under a name that no source has.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..model.priorities import DIRECT, NORMAL, PRIORITIZED
from ..model.repository import MailboxState
from ..settings import Limits
from .lanes import Lane, Lanes
from .parcel import Parcel

__all__ = ["DIRECT", "Interest", "Sources"]

_PAUSED = "!"
"""Precedes the name of a paused channel in the saved floors. No channel's name begins with it."""


class Interest(msgspec.Struct, frozen=True):
    """What a subscription means for delivery."""

    start_seq: int
    echo: bool


class _Pause(NamedTuple):
    """A channel that is not delivered, and the seq up to which it was."""

    interest: Interest
    through: int


class Sources:
    """The sources of one mailbox. A group's has one channel and no direct messages."""

    def __init__(self, state: MailboxState, limits: Limits, *, direct: bool) -> None:
        self.position = state.position
        self.interests: dict[str, Interest] = {}
        self.ahead = set(state.ahead).difference(item.seq for item in state.unsettled)
        self.dirty = False
        """Whether the stored state is an earlier one."""
        self._owner_id = state.mailbox_id
        self._direct = direct
        self._floors = {
            source: seq
            for source, seq in state.floors.items()
            if not source.startswith(_PAUSED) and source not in PRIORITIZED
        }
        self.lanes = Lanes(state, limits)
        self._paused: dict[str, _Pause] = {}
        self._places = {
            source.removeprefix(_PAUSED): seq for source, seq in state.floors.items() if source.startswith(_PAUSED)
        }
        """Where paused channels were when the state was saved, until `restore` adds them."""
        self._starting: dict[str, int] = {}
        self._purging: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Sources position={self.position} channels={len(self.interests)} floors={len(self._floors)}>"

    def advance(self, seq: int) -> None:
        """Note that everything up to a seq was delivered in order. The position never goes back by this."""
        if seq > self.position:
            self.position = seq
            self.dirty = True

    def hand_out(self, lane: Lane, seqs: Sequence[int]) -> None:
        """Note that a lane's next messages were delivered, in order."""
        lane.advance(seqs[-1])
        lane.catch_up()
        self.lanes.delivered.update(seqs)
        self.dirty = True

    def settle_ahead(self, seq: int) -> None:
        """Note that a message above the position is settled, or dead."""
        self.ahead.add(seq)
        self.dirty = True

    def wanted(self, parcel: Parcel) -> Parcel:
        """Return the messages that belong here, not in a lane, and lie above their source's floor."""
        if parcel.envelope.priority:
            return parcel.part(0, 0)
        channel = parcel.envelope.channel
        floor = self._floors.get(channel or DIRECT, 0) if self._floors else 0
        if channel is not None:
            interest = self.interests.get(channel)
            if interest is None or (not interest.echo and parcel.envelope.sender_bot_id == self._owner_id):
                return parcel.part(0, 0)
            floor = max(floor, interest.start_seq)
        return parcel.after(floor)

    def wants(self, seq: int, sender_bot_id: str, source: str | None) -> bool:
        """Return True if a message belongs here and lies above its source's floor, or place."""
        if source is None or source in PRIORITIZED:
            lane = self.lanes.of(source)
            return seq > (self._floors.get(DIRECT, 0) if lane is None else lane.through)
        interest = self.interest(source)
        if interest is None or seq <= interest.start_seq or seq <= self._floors.get(source, 0):
            return False
        return interest.echo or sender_bot_id != self._owner_id

    def still_wants(self, seq: int, source: str | None) -> bool:
        """Return True if a delivered message is still wanted: its channel may have been left since."""
        if source is None or source in PRIORITIZED:
            return True
        interest = self.interest(source)
        return interest is not None and seq > interest.start_seq

    def interest(self, channel: str) -> Interest | None:
        """Return what is wanted of a channel, paused or not; None if it is not subscribed to."""
        paused = self._paused.get(channel) if self._paused else None
        return self.interests.get(channel) if paused is None else paused.interest

    def has_interest(self, seq: int, sender_bot_id: str, channel: str) -> bool:
        """Return True if a channel's message belongs here, whether it was delivered or not."""
        interest = self.interest(channel)
        if interest is None or seq <= interest.start_seq:
            return False
        return interest.echo or sender_bot_id != self._owner_id

    def is_paused(self, channel: str | None) -> bool:
        """Return True if nothing of a channel is to be delivered for now."""
        return bool(self._paused) and channel in self._paused

    def handed_out(self, source: str | None) -> int:
        """Return the seq up to which a source was delivered."""
        if source is not None:
            if self._paused and source in self._paused:
                return self._paused[source].through
            if source in PRIORITIZED:
                lane = self.lanes.of(source)
                return self.handed_out(None) if lane is None else lane.through
        return max(self.position, self._floors.get(source or DIRECT, 0))

    def has_delivered(self, seq: int, source: str | None) -> bool:
        """Return True if a message's turn in a source has passed, or if it was settled before its turn."""
        if seq <= self.handed_out(source):
            return True
        return seq in (self.lanes.early if self.lanes.of(source) else self.ahead)

    @property
    def through(self) -> int:
        """The seq up to which every source was delivered."""
        sources = [None, *self.interests, *self._paused] if self._direct else list(self.interests)
        places = [self.handed_out(source) for source in sources]
        return min(places + [lane.through for lane in self.lanes], default=self.position)

    @property
    def purging(self) -> bool:
        """Whether a purge is on its way to the disk."""
        return bool(self._purging)

    def prepare_to_purge(self, through: int) -> None:
        """Prepare to pass over everything up to a seq, in all sources; in memory nothing changes before `purge`."""
        direct = [DIRECT] if self._direct else []
        self._purging = dict.fromkeys([*direct, *self.interests, *self._paused], through)
        self.dirty = True

    def purge(self) -> None:
        """Pass over what `prepare_to_purge` said, except in channels that were left in the meantime."""
        purging, self._purging = self._purging, {}
        for source, through in purging.items():
            if source in self._paused:
                paused = self._paused[source]
                self._paused[source] = paused._replace(through=max(paused.through, through))
            elif source == DIRECT or source in self.interests:
                self._floors[source] = max(self.handed_out(source), through)
                if source == DIRECT:
                    self.lanes.purge(through)
        self.dirty = True

    def keep(self) -> None:
        """Undo `prepare_to_purge`: it was not stored."""
        self._purging = {}

    @property
    def paused(self) -> list[str]:
        """The channels that are paused."""
        return list(self._paused)

    def restore(self, channel: str, interest: Interest) -> None:
        """Add a channel after a restart: the saved state has its progress, and whether it was paused."""
        if channel in self._places:
            self._paused[channel] = _Pause(interest, self._places.pop(channel))
        else:
            self.interests[channel] = interest

    def pause(self, channel: str) -> bool:
        """Deliver nothing more of a channel; return True if something was to be delivered."""
        interest = self.interests.get(channel)
        if interest is None:
            return False
        self._paused[channel] = _Pause(interest, self.handed_out(channel))
        del self.interests[channel]
        self._floors.pop(channel, None)
        self.dirty = True
        return True

    def resume(self, channel: str) -> int | None:
        """Deliver a paused channel again, after the seq that is returned; None if it was not paused.

        The position goes back to it, as for a subscription that starts there.
        """
        paused = self._paused.pop(channel, None)
        if paused is None:
            return None
        if paused.through < self.position:
            self._floors = self._raised_floors()
            self.position = paused.through
        elif paused.through > self.position:
            self._floors[channel] = paused.through
        self.interests[channel] = paused.interest
        self.dirty = True
        return paused.through

    def prepare(self, channel: str, start_seq: int) -> None:
        """Prepare for a subscription that starts in the past and is on its way to the disk.

        The state that is stored with it has gone back to that start already, so that after a crash its messages are
        found. In memory nothing changes before `add`.
        """
        self._starting[channel] = start_seq
        self.dirty = True

    def dismiss(self, channel: str) -> None:
        """Cancel a prepared subscription, which was not stored or existed already."""
        self._starting.pop(channel, None)

    def add(self, channel: str, interest: Interest) -> None:
        """Add a channel. The position goes back if the channel starts below it."""
        self._starting.pop(channel, None)
        self._floors.pop(channel, None)
        if interest.start_seq < self.position:
            self._floors = self._raised_floors()
            self.position = interest.start_seq
            self.dirty = True
        self.interests[channel] = interest

    def remove(self, channel: str) -> bool:
        """Remove a channel; return True if it was wanted."""
        self._floors.pop(channel, None)
        paused = self._paused.pop(channel, None) is not None
        self.dirty |= paused
        return self.interests.pop(channel, None) is not None or paused

    def after(self, seq: int) -> tuple[tuple[str, int, bool], ...]:
        """Return each source with the seq to read after (at least `seq`) and whether to skip the bot's own.

        Lanes are none of them.
        """
        direct = NORMAL if self.lanes else DIRECT
        return tuple(
            (source or direct, max(start, seq), source != DIRECT and not self.interests[source].echo)
            for source, start in self._starts()
        )

    def unread(self) -> tuple[tuple[str, int, bool], ...]:
        """Return each source, paused or not, as `after` does, with the seq up to which it was delivered."""
        paused = (
            (channel, max(place.through, place.interest.start_seq), not place.interest.echo)
            for channel, place in self._paused.items()
        )
        lanes = ((lane.source, lane.through, False) for lane in self.lanes)
        return (*self.after(self.position), *lanes, *paused)

    @property
    def directs(self) -> tuple[tuple[str, int, bool], ...]:
        """The sources of direct messages, as `after` returns them, with the seq up to which each was delivered."""
        others = (NORMAL if self.lanes else DIRECT, self.handed_out(None), False)
        return (others, *((lane.source, lane.through, False) for lane in self.lanes))

    def of_priority(self, priority: int, seq: int) -> tuple[tuple[str, int, bool], ...]:
        """Return what was not delivered of a priority, as `after`; that of a channel's message is normal."""
        if not priority:
            return self.after(max(self.position, seq))
        lane = self.lanes.get(priority)
        return () if lane is None else ((lane.source, max(lane.through, seq), False),)

    def saved(self) -> tuple[int, dict[str, int], tuple[int, ...]]:
        """Return the position, floors and `ahead` to save, which include subscriptions on their way to the disk."""
        self.ahead = {seq for seq in self.ahead if seq > self.position}
        position = min([self.position, *self._starting.values()])
        floors = self._floors if position == self.position else self._raised_floors()
        floors = floors | {source: max(self.handed_out(source), seq) for source, seq in self._purging.items()}
        sources = {DIRECT, *self.interests}
        floors = {source: seq for source, seq in floors.items() if seq > position and source in sources}
        floors |= {
            _PAUSED + channel: max(paused.through, self._purging.get(channel, 0))
            for channel, paused in self._paused.items()
        }
        floors |= self.lanes.saved(self.position, self.handed_out(None), self._purging.get(DIRECT, 0))
        return position, floors, tuple(sorted(self.ahead | self.lanes.early))

    def _raised_floors(self) -> dict[str, int]:
        # A subscription's start is not used as a floor: it may lie beyond the end of the log, and a floor never
        # does.
        sources = [DIRECT, *self.interests] if self._direct else list(self.interests)
        return {source: self.handed_out(source) for source in sources}

    def _starts(self) -> list[tuple[str, int]]:
        direct = [(DIRECT, self._floors.get(DIRECT, 0))] if self._direct else []
        return direct + [
            (channel, max(self._floors.get(channel, 0), interest.start_seq))
            for channel, interest in self.interests.items()
        ]
