"""What a mailbox loses to retention, and who has yet to be told.

Owns the messages that are on their way out of the log although somebody waits for them, and the gap that they
leave. The gap is told by the mailbox's sessions, and forgotten when one of them was heard after that.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["Losses"]


class Losses:
    """See the module. `gap` is the range in which messages were lost, until a session was told."""

    def __init__(self, gap: tuple[int, int] | None) -> None:
        self.gap = gap
        self.losing: dict[int, str | None] = {}
        """What is being removed, by seq, with its channel; None for a direct message."""
        self.gone: set[int] = set()
        """What was removed while a page is being read that may have it still."""

    def __repr__(self) -> str:
        return f"<Losses gap={self.gap} losing={len(self.losing)}>"

    def prepare(self, channels: Mapping[int, str | None]) -> None:
        """Note that messages are being removed."""
        self.losing = dict(channels)

    def keep(self) -> None:
        """Note that nothing was removed."""
        self.losing = {}

    def take(self, missed: Iterable[int], *, reading: bool) -> dict[int, str | None]:
        """Return what was removed; the gap grows by what is missed. `reading` says that a page is being read."""
        lost, self.losing = self.losing, {}
        self.gap = self._with(missed)
        if reading:
            self.gone.update(lost)
        return lost

    def saved(self) -> tuple[int, int] | None:
        """Return the gap for the disk, including what is being removed in the same transaction."""
        return self._with(self.losing)

    def _with(self, lost: Iterable[int]) -> tuple[int, int] | None:
        seqs = [*(self.gap or ()), *lost]
        return (min(seqs), max(seqs)) if seqs else None
