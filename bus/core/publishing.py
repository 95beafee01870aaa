"""Publishing: publish frames in, and the answer to each.

Owns what a frame's sender is told of each message. Which messages may be taken is decided in `admission`; what the
log alone can know, that an id was used before, is answered after the transaction.

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


class _Frame:
    """One publish frame on its way: what was taken of it, and what was refused."""

    def __init__(self, session: Session, publish: Publish) -> None:
        self.address = session.address
        self.request = publish.request
        self.count = len(publish.messages)
        self.messages: dict[int, NewMessage] = {}
        self.errors: list[ItemError] = []
        self.full: dict[int, ItemError] = {}
        """What to say of those that are only looked up, for want of room or by a rate, where they are not known."""


class Publishing:
    """Handles publish frames. `timestamp` is that of the batch whose answers are being entered."""

    def __init__(
        self, admission: Admission, batches: Batches, dispatch: Dispatch, turn: Turn, limits: Limits
    ) -> None:
        self.timestamp = ""
        self._admission = admission
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Publishing {self._batches}>"

    def request(self, session: Session, publish: Publish) -> None:
        """Put a frame's messages into the next batch; those that are refused hold up none of the others."""
        count, most = len(publish.messages), self._limits.messages_per_publish_max
        if not 1 <= count <= most:
            raise Refusal(Code.BAD_REQUEST, f"a publish frame has 1 to {most} messages, not {count}")
        frame = _Frame(session, publish)
        for index, publication in enumerate(publish.messages):
            try:
                message = self._admission.admit(session, publication)
            except Refusal as error:
                frame.errors.append(ItemError(index, error.code, error.message, error.retry_after))
            else:
                frame.messages[index] = self._make_room(frame, index, message)
        self._admission.expect(session, [publish.messages[index] for index in frame.messages])
        if not frame.messages:
            self._done(frame, ())
            return
        admitted = list(frame.messages.values())
        self._batches.add(
            Job(
                lambda added: self._done(frame, added),
                lambda code, message: self._failed(frame, code, message),
                messages=admitted,
                channels=self._admission.new_channels(
                    session, [message for message in admitted if not message.known_only]
                ),
            )
        )

    def _make_room(self, frame: _Frame, index: int, message: NewMessage) -> NewMessage:
        """Return the message. If there is no room, it is only looked up: it may repeat one that is stored."""
        lack = self._admission.reserve(message)
        if lack is None:
            return message
        frame.full[index] = ItemError(index, lack.code, lack.message, lack.retry_after)
        return msgspec.structs.replace(message, known_only=True)

    def _leave_room(self, frame: _Frame) -> None:
        for index, message in frame.messages.items():
            if index not in frame.full:
                self._admission.leave(message)

    def _done(self, frame: _Frame, added: Sequence[Added]) -> None:
        self._leave_room(frame)
        seqs: list[int | None] = [None] * frame.count
        duplicates: list[int] = []
        scheduled: list[int] = []
        for (index, message), outcome in zip(frame.messages.items(), added, strict=True):
            seqs[index] = outcome.seq
            if outcome.scheduled:
                scheduled.append(index)
            if outcome.duplicate:
                duplicates.append(index)
            elif outcome.conflict:
                text = f"message id {message.id} belongs to another bot's message"
                frame.errors.append(ItemError(index, Code.ID_CONFLICT, text))
            elif index in frame.full:
                frame.errors.append(frame.full[index])
                self._admission.refused(frame.full[index].code)
            self._admission.enter(message, outcome, self.timestamp)
        self._dispatch.counters["refused"] += len(frame.errors)
        frame.errors.sort(key=lambda error: error.index)
        self._turn.send(
            frame.address,
            Published(
                request=frame.request, seqs=seqs, duplicates=duplicates, errors=frame.errors, scheduled=scheduled
            ),
        )

    def _failed(self, frame: _Frame, code: Code, message: str) -> None:
        self._leave_room(frame)
        self._turn.refuse(frame.address, code, message, frame.request)
