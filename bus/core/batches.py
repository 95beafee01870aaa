"""What waits for the disk: jobs are collected, and taken as one transaction at a time.

Owns the order in which changes reach the log, and which job gets which answer. Messages of neighbouring jobs become
one change, because a row in a batch costs a fraction of a row alone. Jobs of one sender become neighbours, because
then their messages may be one lot.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ..mailbox.mailbox import Mailbox
from ..model.records import Channel
from ..model.repository import (
    AddChannel,
    AddDeadLetters,
    AddFirstMessages,
    AddMessages,
    Change,
    CommitWork,
    DeadLetter,
    Lot,
    Outcome,
    RecoverRuns,
    ReleaseDue,
    StartScheduled,
    joined,
    outcomes_of,
)
from ..settings import Limits
from ..wire.frames import Code

__all__ = ["Answered", "Batch", "Batches", "Job", "Meet"]

_Answer = TypeVar("_Answer")


class Job(Generic[_Answer]):
    """What one request (or the worker itself) writes to disk, and what follows.

    The state of `mailboxes` is saved in the same transaction. `size_bytes` is the size of the changes; that of the
    messages is added, and they are counted, when the job is put into a batch. A job has messages or changes, never
    both: messages are merged with their neighbours', changes are not.
    """

    __slots__ = ("alone", "changes", "channels", "lots", "mailboxes", "messages", "size_bytes")

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
        self.messages = 0
        self.size_bytes = size_bytes
        self.alone = False
        """Whether no other job may be in its batch."""

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


TellDeadLetters = Callable[[Sequence[tuple[Mailbox, Sequence[DeadLetter]]], str], Iterable[Job[Any]]]


Meet = Callable[[Iterable[Channel]], Iterable[Job[Any]]]


class Answered(NamedTuple):
    """Jobs whose changes were neighbours, each with its part of the log's answers; and what became of messages."""

    jobs: Iterable[tuple[Job[Any], Sequence[Any]]]
    lots: Iterable[tuple[Lot, Outcome]] = ()


class Batch:
    """One transaction: its changes, and which answers belong to which job."""

    __slots__ = ("_buried", "_parts", "changes", "channels", "jobs", "mailboxes", "timestamp")

    def __init__(
        self,
        jobs: list[Job[Any]],
        mailboxes: Sequence[Mailbox],
        timestamp: str,
        *,
        tell: TellDeadLetters,
        meet: Meet,
    ) -> None:
        for job in jobs:
            job.begin()
        jobs = [*_met(jobs, meet), *jobs]
        self.timestamp = timestamp
        touched = dict.fromkeys([*mailboxes, *(box for job in jobs for box in job.mailboxes)])
        self.mailboxes = [mailbox for mailbox in touched if not mailbox.removed]
        self._buried = [
            (box, box.dead_letters.take_unsaved()) for box in self.mailboxes if box.dead_letters.unsaved
        ]
        told = list(tell(self._buried, timestamp)) if self._buried else []
        self.jobs = [*_met(told, meet), *jobs, *told] if told else jobs
        self.channels = {channel.name: channel for job in self.jobs for channel in job.channels}
        self.changes: list[Change] = [AddChannel(channel) for channel in self.channels.values()]
        # Before the jobs: one of them may retry such a dead letter.
        self.changes.extend(AddDeadLetters(tuple(dead_letters)) for _, dead_letters in self._buried)
        self._parts: list[tuple[list[Job[Any]], int, int]] = []
        """Jobs whose messages are one change, or a job with changes, with the changes' start and end."""
        publishing: list[Job[Any]] = []
        for job in self.jobs:
            if job.lots:
                publishing.append(job)
                continue
            if job.changes:
                self._add_messages(publishing)
                publishing = []
            self._add([job], [_at(change, timestamp) for change in job.changes])
        self._add_messages(publishing)
        self.changes.extend(mailbox.save() for mailbox in self.mailboxes)

    def _add_messages(self, jobs: list[Job[Any]]) -> None:
        if jobs:
            jobs.sort(key=_sender)
            lots = joined(lot for job in jobs for lot in job.lots)
            self._add(jobs, [AddMessages(lots, self.timestamp)])

    def _add(self, jobs: list[Job[Any]], changes: Sequence[Change]) -> None:
        start = len(self.changes)
        self.changes.extend(changes)
        self._parts.append((jobs, start, len(self.changes)))

    def refused(self) -> None:
        """Mark the mailboxes' state and dead letters as unsaved again."""
        buried = dict(self._buried)
        for mailbox in self.mailboxes:
            mailbox.dead_letters.not_saved(buried.get(mailbox, ()))
            mailbox.not_saved()

    def answered(self, answers: Sequence[Any]) -> Iterator[Answered]:
        """Yield the jobs in the order of their changes, with the log's answers to these: all of it is on disk."""
        for mailbox, _ in self._buried:
            mailbox.dead_letters.stored()
        for jobs, start, end in self._parts:
            if not jobs[0].lots:
                yield Answered([(jobs[0], answers[start:end])])
                continue
            change, outcomes = self.changes[start], answers[start]
            assert isinstance(change, AddMessages)
            theirs = outcomes_of((lot for job in jobs for lot in job.lots), change.lots, outcomes)
            yield Answered(
                [(job, list(islice(theirs, len(job.lots)))) for job in jobs],
                zip(change.lots, outcomes, strict=True),
            )


class Batches:
    """Collects jobs, and returns them in batches of bounded messages and bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.tell: TellDeadLetters = lambda buried, timestamp: ()
        """Returns the jobs that tell of the dead letters that a batch stores."""
        self.meet: Meet = lambda channels: ()
        """Returns the jobs that come before all others in a batch that creates channels."""
        self._postponed: list[Job[Any]] = []
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
        for lot in job.lots:
            job.messages += len(lot.ids)
            job.size_bytes += lot.size_bytes
        self._jobs.append(job)
        self._messages += job.messages
        self._bytes += job.size_bytes

    def postpone(self, job: Job[Any]) -> None:
        """Put a job that was refused into the next batch, which is not written for its sake."""
        self._postponed.append(job)

    def take(self, mailboxes: Sequence[Mailbox], timestamp: str, also: Iterable[Job[Any]] = ()) -> Batch:
        """Return the next batch: as many jobs as its limits allow, these mailboxes, and the jobs `also`."""
        jobs: list[Job[Any]] = []
        messages, size_bytes = 0, 0
        while self._jobs and len(jobs) < self._limits.batch_messages_max:
            job = self._jobs[0]
            messages += job.messages
            size_bytes += job.size_bytes
            if jobs and (messages > self._limits.batch_messages_max or size_bytes > self._limits.batch_bytes_max):
                break
            if jobs and (job.alone or jobs[0].alone):
                break
            jobs.append(self._jobs.popleft())
            self._messages -= job.messages
            self._bytes -= job.size_bytes
        first, self._postponed = self._postponed, []
        return Batch([*first, *jobs, *also], mailboxes, timestamp, tell=self.tell, meet=self.meet)


def _met(jobs: Sequence[Job[Any]], meet: Meet) -> list[Job[Any]]:
    """Return the jobs that come before these, because of the channels that they create."""
    met = list(meet([channel for job in jobs for channel in job.channels]))
    for job in met:
        job.begin()
    return met


def _sender(job: Job[Any]) -> str:
    return job.lots[0].sender_bot_id


def _at(change: Change, timestamp: str) -> Change:
    """Set the batch's time on changes that add messages to the log: timestamps never go back."""
    if isinstance(change, AddFirstMessages | ReleaseDue | CommitWork | RecoverRuns | StartScheduled):
        return msgspec.structs.replace(change, timestamp=timestamp)
    return change
