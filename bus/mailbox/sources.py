"""What a mailbox wants of the log: direct messages and channels, each from a seq on.

Owns the position and the floors. Its rules (docs/design.md):

- `position` is the highest seq handed out in order; what lies above it was not handed out.
- Where a subscription starts in the past, the position goes back to that start, and a *floor* for each other source
  keeps what that one had handed out from being handed out again.
- Such a start stands in the state that is saved with the subscription, before memory knows it: after a crash in
  between, its messages are found.
- `ahead` has what lies above the position and was settled before its turn: it is not handed out then.

Pure.
"""

from __future__ import annotations

import msgspec

from ..model.repository import MailboxState

__all__ = ["DIRECT", "Interest", "Sources"]

DIRECT = ""
"""The source that is no channel: what is sent to the bot itself."""


class Interest(msgspec.Struct, frozen=True):
    """What a subscription means for delivery."""

    start_seq: int
    echo: bool


class Sources:
    """The sources of one mailbox. A group's has its one channel, and no direct messages."""

    def __init__(self, state: MailboxState, *, direct: bool) -> None:
        self.position = state.position
        self.interests: dict[str, Interest] = {}
        self.ahead = set(state.ahead)
        self._owner_id = state.mailbox_id
        self._direct = direct
        self._floors = dict(state.floors)
        self._starting: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Sources position={self.position} channels={len(self.interests)} floors={len(self._floors)}>"

    def advance(self, seq: int) -> None:
        """Note that everything up to a seq was handed out in order; the position never goes back by this."""
        if seq > self.position:
            self.position = seq

    def wants(self, seq: int, sender_bot_id: str, channel: str | None) -> bool:
        """Return True if a message belongs here and lies above its source's floor."""
        if channel is None:
            return not self._floors or seq > self._floors.get(DIRECT, 0)
        interest = self.interests.get(channel)
        if interest is None or seq <= interest.start_seq or seq <= self._floors.get(channel, 0):
            return False
        return interest.echo or sender_bot_id != self._owner_id

    def still_wants(self, seq: int, channel: str | None) -> bool:
        """Return True if a message that was delivered is still wanted: its channel may have been left since."""
        if channel is None:
            return True
        interest = self.interests.get(channel)
        return interest is not None and seq > interest.start_seq

    def handed_out(self, channel: str | None) -> int:
        """Return the seq up to which a source was delivered."""
        return max(self.position, self._floors.get(channel or DIRECT, 0))

    @property
    def through(self) -> int:
        """The seq up to which every source was handed out."""
        sources = [None, *self.interests] if self._direct else list(self.interests)
        return min((self.handed_out(source) for source in sources), default=self.position)

    def restore(self, channel: str, interest: Interest) -> None:
        """Add a channel as before a restart: the saved state knows how far it was handed out."""
        self.interests[channel] = interest

    def prepare(self, channel: str, start_seq: int) -> None:
        """Note that a subscription which starts in the past is on its way to the disk."""
        self._starting[channel] = start_seq

    def dismiss(self, channel: str) -> None:
        """Note that the subscription was not stored, or stood already."""
        self._starting.pop(channel, None)

    def add(self, channel: str, interest: Interest) -> bool:
        """Begin to want a channel; return True if the position went back for it."""
        self._starting.pop(channel, None)
        self._floors.pop(channel, None)
        back = interest.start_seq < self.position
        if back:
            self._floors = self._raised_floors()
            self.position = interest.start_seq
        self.interests[channel] = interest
        return back

    def remove(self, channel: str) -> bool:
        """Stop wanting a channel; return True if it was wanted."""
        self._floors.pop(channel, None)
        return self.interests.pop(channel, None) is not None

    def after(self, seq: int) -> tuple[tuple[str, int, bool], ...]:
        """Return each source with the seq after which it counts beyond `seq`, and whether to skip the bot's own."""
        return tuple(
            (source, max(start, seq), source != DIRECT and not self.interests[source].echo)
            for source, start in self._starts()
        )

    def saved(self) -> tuple[int, dict[str, int], tuple[int, ...]]:
        """Return position, floors and what is ahead for the disk: gone back for what is on its way there."""
        self.ahead = {seq for seq in self.ahead if seq > self.position}
        position = min([self.position, *self._starting.values()])
        floors = self._floors if position == self.position else self._raised_floors()
        sources = {DIRECT, *self.interests}
        floors = {source: seq for source, seq in floors.items() if seq > position and source in sources}
        return position, floors, tuple(sorted(self.ahead))

    def _raised_floors(self) -> dict[str, int]:
        # Where a subscription starts is no floor: it may lie beyond the end of the log, and a floor never does.
        sources = [DIRECT, *self.interests] if self._direct else list(self.interests)
        return {source: self.handed_out(source) for source in sources}

    def _starts(self) -> list[tuple[str, int]]:
        direct = [(DIRECT, self._floors.get(DIRECT, 0))] if self._direct else []
        return direct + [
            (channel, max(self._floors.get(channel, 0), interest.start_seq))
            for channel, interest in self.interests.items()
        ]
