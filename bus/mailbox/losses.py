"""Messages that a mailbox loses to retention, to a purge or because they were erased, and the gap that they leave.

Owns the messages that are being removed from the log although the mailbox still needs them, and the gap. The gap is
sent to the mailbox's sessions, and cleared when one of them is heard after that.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["Losses"]


class Losses:
    """See the module. `gap` is the range in which messages were lost, until a session has been notified."""

    def __init__(self, gap: tuple[int, int] | None) -> None:
        self.gap = gap
        self.losing: dict[int, str | None] = {}
        """The messages being removed: seq to source, None for a direct message that is not prioritized."""
        self.purging: tuple[int, int] | None = None
        """The range in which messages are being purged."""
        self.gone: set[int] = set()
        """Messages removed while a page is being read that may still contain them."""

    def __repr__(self) -> str:
        return f"<Losses gap={self.gap} losing={len(self.losing)}>"

    def prepare(self, sources: Mapping[int, str | None]) -> None:
        """Note that messages are being removed."""
        self.losing = dict(sources)

    def keep(self) -> None:
        """Note that nothing was removed."""
        self.losing = {}

    def take(self, missed: Iterable[int], *, reading: bool) -> dict[int, str | None]:
        """Return what was removed, and extend the gap by `missed`. `reading`: a page is being read."""
        lost, self.losing = self.losing, {}
        self.gap = self._with(missed)
        if reading:
            self.gone.update(lost)
        return lost

    def miss(self, seqs: Iterable[int]) -> None:
        """Extend the gap by messages that are lost."""
        self.gap = self._with(seqs)

    def saved(self) -> tuple[int, int] | None:
        """Return the gap to save, including what is removed in the same transaction."""
        return self._with([*self.losing, *(self.purging or ())])

    def _with(self, lost: Iterable[int]) -> tuple[int, int] | None:
        seqs = [*(self.gap or ()), *lost]
        return (min(seqs), max(seqs)) if seqs else None
