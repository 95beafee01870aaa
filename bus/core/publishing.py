"""Publishing: publish frames in, and the answer to each.

Owns what a frame's sender is told about each message. `admission` decides which messages are accepted. Whether an
id was used before, which only the log knows, is answered after the transaction.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..mailbox.sessions import Session
from ..model.repository import Added, NewMessage
from ..settings import Limits
from ..wire.frames import Code, ItemError, Publish, Published, Refusal
from .admission import Admission
from .batches import Batches, Job
from .dispatch import Dispatch
from .effects import Turn

__all__ = ["Publishing"]


class Publishing:
    """Handles publish frames."""

    def __init__(
        self, admission: Admission, batches: Batches, dispatch: Dispatch, turn: Turn, limits: Limits
    ) -> None:
        self._admission = admission
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Publishing {self._batches}>"

    def request(self, session: Session, publish: Publish) -> None:
        """Add a frame's messages to the next batch; refused messages do not affect the others."""
        count, most = len(publish.messages), self._limits.messages_per_publish_max
        if not 1 <= count <= most:
            raise Refusal(Code.BAD_REQUEST, f"a publish frame must have 1 to {most} messages, not {count}")
        job = _PublishJob(session, publish, admission=self._admission, dispatch=self._dispatch, turn=self._turn)
        for index, publication in enumerate(publish.messages):
            try:
                message = self._admission.admit(session, publication)
            except Refusal as error:
                job.errors.append(ItemError(index, error.code, error.message, error.retry_after))
            else:
                job.taken[index] = self._make_room(job, index, message)
        self._admission.expect(session, [publish.messages[index] for index in job.taken])
        if not job.taken:
            job.done((), "")
            return
        job.messages = list(job.taken.values())
        new = [message for message in job.messages if not message.known_only]
        job.channels = self._admission.new_channels(session, new)
        self._batches.add(job)

    def _make_room(self, job: _PublishJob, index: int, message: NewMessage) -> NewMessage:
        """Return the message. If there is no room, it is only looked up, because it may be a repeat."""
        lack = self._admission.reserve(message)
        if lack is None:
            return message
        job.full[index] = ItemError(index, lack.code, lack.message, lack.retry_after)
        return msgspec.structs.replace(message, known_only=True)


class _PublishJob(Job[Added]):
    """One publish frame on its way to the disk: its accepted messages, and the refused ones."""

    __slots__ = ("_admission", "_dispatch", "_turn", "address", "count", "errors", "full", "request", "taken")

    def __init__(
        self, session: Session, publish: Publish, *, admission: Admission, dispatch: Dispatch, turn: Turn
    ) -> None:
        super().__init__()
        self._admission = admission
        self._dispatch = dispatch
        self._turn = turn
        self.address = session.address
        self.request = publish.request
        self.count = len(publish.messages)
        self.taken: dict[int, NewMessage] = {}
        self.errors: list[ItemError] = []
        self.full: dict[int, ItemError] = {}
        """Errors of messages that are only looked up, by index; they apply if the message is not known."""

    def done(self, answers: Sequence[Added], at: str) -> None:
        """Enter the messages, and send the outcome of each to the sender."""
        self._leave_room()
        seqs: list[int | None] = [None] * self.count
        duplicates: list[int] = []
        scheduled: list[int] = []
        for (index, message), added in zip(self.taken.items(), answers, strict=True):
            seqs[index] = added.seq
            if added.scheduled:
                scheduled.append(index)
            if added.duplicate:
                duplicates.append(index)
            elif added.conflict:
                text = f"message id {message.id} belongs to another bot's message"
                self.errors.append(ItemError(index, Code.ID_CONFLICT, text))
            elif index in self.full:
                self.errors.append(self.full[index])
                self._admission.refused(self.full[index].code)
            self._admission.enter(message, added, at)
        self._dispatch.counters.refused += len(self.errors)
        self.errors.sort(key=lambda error: error.index)
        self._turn.send(
            self.address,
            Published(
                request=self.request, seqs=seqs, duplicates=duplicates, errors=self.errors, scheduled=scheduled
            ),
        )

    def failed(self, code: Code, message: str) -> None:
        """Refuse the messages: nothing was stored."""
        self._leave_room()
        self._turn.refuse(self.address, code, message, self.request)

    def _leave_room(self) -> None:
        for index, message in self.taken.items():
            if index not in self.full:
                self._admission.leave(message)
