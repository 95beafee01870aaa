"""The frames that leave in this turn of the event loop, but for messages (`unsent`): acks, and then the others.

Owns their order, and that one which has not left yet can be withdrawn.
"""

from __future__ import annotations

from ..wire.codec import ack_frame

__all__ = ["Outbox"]


class Outbox:
    """See the module. Frames have numbers, by which they are withdrawn."""

    def __init__(self) -> None:
        self._frames: dict[int, bytes] = {}
        self._acks: list[int] = []

    def __repr__(self) -> str:
        return f"<Outbox of {len(self)}>"

    def __len__(self) -> int:
        return len(self._frames) + len(self._acks)

    def add(self, number: int, frame: bytes) -> None:
        """Queue a frame."""
        self._frames[number] = frame

    def ack(self, seq: int) -> None:
        """Queue the ack of a message, in one frame with the others of this turn."""
        self._acks.append(seq)

    def withdraw(self, number: int) -> bool:
        """Withdraw a frame. Return False if it has left, or was never here."""
        return self._frames.pop(number, None) is not None

    def take(self) -> list[bytes]:
        """Remove and return all that is to leave."""
        frames = [*([ack_frame(self._acks)] if self._acks else ()), *self._frames.values()]
        self._frames, self._acks = {}, []
        return frames
