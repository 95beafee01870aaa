"""Commits on their way to the disk, whoever asked for them: what they create, and what follows then.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from ..mailbox.mailbox import Mailbox
from ..model.records import Channel
from ..model.repository import Committed, CommitWork, NotCommitted, Outcome
from .admission import Admission
from .batches import Job

__all__ = ["WorkJob"]


class WorkJob(Job[Committed | NotCommitted | None]):
    """A commit. `meet` says which subscriptions come with the channels that it creates."""

    def __init__(
        self,
        work: CommitWork,
        admission: Admission,
        meet: Callable[[Iterable[Channel]], Iterable[Job[Any]]],
        *,
        mailboxes: Sequence[Mailbox] = (),
        size_bytes: int = 0,
    ) -> None:
        super().__init__(changes=[work], mailboxes=mailboxes, size_bytes=size_bytes)
        self.work = work
        self.admission = admission
        self._meet = meet
        self._joining: list[Job[Any]] = []

    def begin(self) -> None:
        """Subscribe those to the channels that it creates whose patterns match."""
        self._joining = list(self._meet(self.work.channels))
        subscriptions = [change for job in self._joining for change in job.changes]
        if subscriptions:
            self.work = msgspec.structs.replace(self.work, subscriptions=subscriptions)
            self.changes = [self.work]

    def enter(self, added: Sequence[Outcome], at: str) -> None:
        """Enter what was carried out now."""
        self.admission.add_channels(self.work.channels)
        for job in self._joining:
            job.done((), at)
        for lot, outcome in zip(self.work.lots, added, strict=True):
            self.admission.enter(lot, outcome, at)

    def leave_room(self) -> None:
        """Release the room reserved for its messages, whose outcome is known."""
        for lot in self.work.lots:
            self.admission.leave(lot)
