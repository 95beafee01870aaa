"""What a mailbox reads from the log, and what becomes of the pages.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model.repository import PageRequest
from ..settings import Limits
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

    def __init__(self, mailbox_id: str, parts: Parts, limits: Limits) -> None:
        self._mailbox_id = mailbox_id
        self._parts = parts
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Reading {self._mailbox_id}>"

    def next_read(self, sessions: Sequence[Session], last_seq: int) -> PageRequest | None:
        """Return the page to read now; None while one is being read, or if nobody could take it."""
        if self._parts.intake.reading is not None or not sessions:
            return None
        missing = self._parts.outstanding.missing()
        # A bot that never takes anything, but has its replies early, would keep them all in mind.
        eager = len(self._parts.sources.ahead) > _AHEAD_MAX or any(session.free > 0 for session in sessions)
        if not missing and not (self._parts.intake.hungry and eager):
            return None
        return self._parts.intake.read(
            PageRequest(
                mailbox_id=self._mailbox_id,
                seqs=tuple(missing[:_RECALLED_MAX]),
                sources=() if self._parts.intake.level else self.remaining(),
                through_seq=last_seq,
                messages_max=max(1, self._limits.ready_messages_max // 2),
                bytes_max=self._limits.ready_bytes_max // 2,
            )
        )

    def remaining(self) -> tuple[tuple[str, int, bool], ...]:
        """Return what is not loaded, as `PageRequest.sources`."""
        return self._parts.sources.after(self._parts.intake.loaded_seq)

    def loaded(self) -> int:
        """Return how many messages are unsettled and in memory; `unread` is the rest.

        One that was given up counts until it can be found among the dead letters, so that it is always somewhere.
        """
        return len(self._parts.outstanding) + len(self._parts.intake) + self._parts.dead_letters.unstored

    def unread(self, last_seq: int) -> PageRequest:
        """Return what is unsettled and not in memory, to be counted."""
        early = self._parts.early(self._parts.intake.loaded_seq)
        return PageRequest(self._mailbox_id, early, self.remaining(), last_seq, 1, 1)

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
        request = self._parts.intake.end_reading()
        if self._parts.intake.stale:
            self._parts.intake.take_aside()
            self._parts.losses.gone.clear()
            return ()
        lost = self._recall(request.seqs, recalled, away=away)
        # Where only single messages were asked for, nothing follows. Where the mailbox was rewound, left or given
        # another channel in the meantime, what was read no longer follows what is there.
        if request.sources and not away and request.sources == self.remaining():
            skipped = [seq for seq in damaged if seq not in request.seqs]
            lost.update(
                seq
                for seq in skipped
                if seq not in self._parts.outstanding and seq not in self._parts.sources.ahead
            )
            seen = [*(parcel.seqs[-1] for parcel in messages), *skipped]
            through_seq = request.through_seq if complete else max(seen, default=self._parts.intake.loaded_seq)
            known = (self._parts.outstanding.seqs, self._parts.sources.ahead, self._parts.losses.gone)
            wanted = (self._parts.sources.wanted(parcel).without(*known) for parcel in messages)
            self._parts.intake.take(wanted, through_seq=through_seq, complete=complete)
        self._parts.intake.take_aside()
        self._parts.losses.gone.clear()
        if self._parts.intake.idle:
            self._parts.sources.advance(self._parts.intake.loaded_seq)
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
