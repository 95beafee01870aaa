"""What waits for the disk: jobs are collected, and taken as one transaction at a time.

Owns the order in which changes reach the log, and which job gets which answer. Messages of neighbouring jobs become
one change, because a row in a batch costs a fraction of a row alone.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from ..mailbox.mailbox import Mailbox
from ..model.records import Channel
from ..model.repository import (
    AddChannel,
    AddDeadLetters,
    AddMessages,
    Change,
    CommitWork,
    Lot,
    RecoverRuns,
    ReleaseDue,
)
from ..settings import Limits
from ..wire.frames import Code

__all__ = ["Batch", "Batches", "Job"]

_Answer = TypeVar("_Answer")


class Job(Generic[_Answer]):
    """What one request (or the worker itself) writes to disk, and what follows.

    The state of `mailboxes` is saved in the same transaction. `size_bytes` is the size of the changes; that of
    messages is added when the job is put into a batch. A job has messages or changes, never both: messages are
    merged with their neighbours', changes are not.
    """

    __slots__ = ("changes", "channels", "lots", "mailboxes", "size_bytes")

    def __init__(
        self,
        *,
        changes: Sequence[Change] = (),
        channels: Sequence[Channel] = (),
        mailboxes: Sequence[Mailbox] = (),
        size_bytes: int = 0,
    ) -> None:
        self.lots: Sequence[Lot] = ()
        self.changes = changes
        self.channels = channels
        self.mailboxes = mailboxes
        self.size_bytes = size_bytes

    @property
    def messages(self) -> int:
        """How many messages it has."""
        return sum(map(len, self.lots))

    def begin(self) -> None:
        """Prepare for writing: the job is in a batch now, and may still set its changes and mailboxes."""

    def done(self, answers: Sequence[_Answer], at: str) -> None:
        """Do what follows once everything is on disk.

        There is one answer per lot if the job has messages, otherwise one per change. `at` is the time of the
        batch, which is the timestamp of its messages.
        """
        raise NotImplementedError

    def failed(self, code: Code, message: str) -> None:
        """Do what follows if nothing was stored."""
        raise NotImplementedError


class Batch:
    """One transaction: its changes, and which answers belong to which job."""

    __slots__ = ("_answers_at", "_buried", "changes", "channels", "jobs", "mailboxes", "timestamp")

    def __init__(self, jobs: list[Job[Any]], mailboxes: Sequence[Mailbox], timestamp: str) -> None:
        for job in jobs:
            job.begin()
        self.jobs = jobs
        self.timestamp = timestamp
        self.mailboxes = list(dict.fromkeys([*mailboxes, *(box for job in jobs for box in job.mailboxes)]))
        self.channels = {channel.name: channel for job in jobs for channel in job.channels}
        self.changes: list[Change] = [AddChannel(channel) for channel in self.channels.values()]
        # Before the jobs: one of them may retry such a dead letter.
        self._buried = [
            (box, box.dead_letters.take_unsaved()) for box in self.mailboxes if box.dead_letters.unsaved
        ]
        self.changes.extend(AddDeadLetters(tuple(dead_letters)) for _, dead_letters in self._buried)
        self._answers_at: list[tuple[int, int, int]] = []
        lots: list[Lot] = []
        for job in jobs:
            if job.lots:
                if not lots:
                    self.changes.append(AddMessages(lots, timestamp))
                self._answers_at.append((len(self.changes) - 1, len(lots), len(job.lots)))
                lots.extend(job.lots)
            else:
                lots = [] if job.changes else lots
                self._answers_at.append((len(self.changes), -1, len(job.changes)))
                self.changes.extend(_at(change, timestamp) for change in job.changes)
        self.changes.extend(mailbox.save() for mailbox in self.mailboxes)

    def refused(self) -> None:
        """Mark the mailboxes' state and dead letters as unsaved again."""
        buried = dict(self._buried)
        for mailbox in self.mailboxes:
            mailbox.dead_letters.not_saved(buried.get(mailbox, ()))
            mailbox.not_saved()

    def answers(self, outcome: Sequence[Any]) -> list[tuple[Job[Any], Sequence[Any]]]:
        """Return each job, in order, with its part of the log's answers."""
        return [
            (job, outcome[change : change + count] if start < 0 else outcome[change][start : start + count])
            for job, (change, start, count) in zip(self.jobs, self._answers_at, strict=True)
        ]


class Batches:
    """Collects jobs, and returns them in batches of bounded messages and bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: deque[Job[Any]] = deque()
        self._messages = 0
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Batches jobs={len(self._jobs)} messages={self._messages} bytes={self._bytes}>"

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def full(self) -> bool:
        """Whether the next batch is full; requests should then wait in the socket."""
        return (
            self._messages >= self._limits.batch_messages_max
            or self._bytes >= self._limits.batch_bytes_max
            or len(self._jobs) >= self._limits.batch_messages_max
        )

    def add(self, job: Job[Any]) -> None:
        """Put a job into the next batch."""
        job.size_bytes += sum(lot.size_bytes for lot in job.lots)
        self._jobs.append(job)
        self._messages += job.messages
        self._bytes += job.size_bytes

    def take(self, mailboxes: Sequence[Mailbox], timestamp: str) -> Batch:
        """Return the next batch: as many jobs as its limits allow, and the state of these mailboxes."""
        jobs: list[Job[Any]] = []
        messages, size_bytes = 0, 0
        while self._jobs and len(jobs) < self._limits.batch_messages_max:
            job = self._jobs[0]
            messages += job.messages
            size_bytes += job.size_bytes
            if jobs and (messages > self._limits.batch_messages_max or size_bytes > self._limits.batch_bytes_max):
                break
            jobs.append(self._jobs.popleft())
            self._messages -= job.messages
            self._bytes -= job.size_bytes
        return Batch(jobs, mailboxes, timestamp)


def _at(change: Change, timestamp: str) -> Change:
    """Set the batch's time on changes that add messages to the log: timestamps never go back."""
    if isinstance(change, ReleaseDue | CommitWork | RecoverRuns):
        return msgspec.structs.replace(change, timestamp=timestamp)
    return change
