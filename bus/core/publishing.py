"""Publishing: publish frames in, and the answer to each.

Owns what a frame's sender is told about each message. `admission` decides which messages are accepted. Whether an
id was used before, which only the log knows, is answered after the transaction.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from ..mailbox.sessions import Session
from ..model.arriving import founding
from ..model.budgeting import spent
from ..model.records import Channel
from ..model.repository import AddFirstMessages, AddSubscription, Appended, Lot, Outcome, each
from ..settings import Limits
from ..wire.frames import Code, ItemError, Publish, Published, Refusal
from .admission import Admission
from .batches import Batches, Job, Meet
from .dispatch import Dispatch
from .effects import Turn, denied

__all__ = ["Publishing"]

_expects_reply = attrgetter("expects_reply")


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
        checked = self._admission.check(session, publish.messages)
        job = _PublishJob(session, publish, admission=self._admission, dispatch=self._dispatch, turn=self._turn)
        job.errors += [_error(index, refusal) for index, refusal in checked.refused.items()]
        lots = zip(checked.lots, checked.indexes, checked.forbidden, checked.if_tainted, strict=True)
        for lot, indexes, forbidden, if_tainted in lots:
            if forbidden is not None:
                job.add(lot, indexes, forbidden, if_tainted)
                continue
            start = 0
            for part, lack in self._admission.reserve(session, lot):
                end = start + len(part.ids)
                job.add(part, indexes[start:end], lack, if_tainted)
                start = end
        if any(map(_expects_reply, publish.messages)):
            accepted = [publish.messages[index] for indexes in checked.indexes for index in indexes]
            self._admission.expect(session, accepted)
        if not job.lots:
            job.done((), "")
            return
        channels = self._admission.new_channels(session, job.lots)
        self._batches.add(_FoundingJob(job, channels, self._admission, self._batches.meet) if channels else job)


class _PublishJob(Job[Outcome]):
    """One publish frame on its way to the disk: its accepted messages, and the refused ones."""

    __slots__ = (
        "_admission",
        "_dispatch",
        "_if_tainted",
        "_indexes",
        "_lacks",
        "_turn",
        "address",
        "count",
        "errors",
        "request",
    )

    lots: list[Lot]

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
        self.lots = []
        self._indexes: list[Sequence[int]] = []
        self._lacks: list[Refusal | None] = []
        self._if_tainted: list[Refusal | None] = []
        self.errors: list[ItemError] = []

    def add(self, lot: Lot, indexes: Sequence[int], lack: Refusal | None, if_tainted: Refusal | None) -> None:
        """Add messages, with their indexes in the frame; with a lack they are only looked up.

        Those that turn out to be tainted are refused with `if_tainted`, if it is not None.
        """
        self.lots.append(lot)
        self._indexes.append(indexes)
        self._lacks.append(lack)
        self._if_tainted.append(if_tainted)

    def done(self, answers: Sequence[Outcome], at: str) -> None:
        """Send the outcome of each message to the sender; `Admission.enter` follows."""
        self._leave_room()
        seqs: list[int | None] = [None] * self.count
        duplicates: list[int] = []
        scheduled: list[int] = []
        parts = zip(self.lots, self._indexes, self._lacks, self._if_tainted, answers, strict=True)
        for lot, indexes, lack, if_tainted, outcome in parts:
            if isinstance(outcome, Appended) and isinstance(indexes, range):
                seqs[indexes.start : indexes.stop] = range(outcome.first_seq, outcome.first_seq + len(lot))
            else:
                for index, added, reply_to in zip(indexes, each(lot, outcome), lot.replies(), strict=True):
                    seqs[index] = added.seq
                    if added.scheduled:
                        scheduled.append(index)
                    if added.duplicate:
                        duplicates.append(index)
                    elif lack is None and added.forbidden and if_tainted is not None:
                        self.errors.append(_error(index, if_tainted))
                    elif lack is None and (error := spent(added, reply_to)) is not None:
                        self.errors.append(
                            _error(index, Refusal(Code.BUDGET_SPENT, error.message, details=error.details))
                        )
                        self._admission.ended(lot.sender_bot_name, error)
                    elif lack is not None:
                        self.errors.append(_error(index, lack))
                        self._admission.refused(lack.code)
        if self.errors:
            self._note_errors()
        self._turn.send(
            self.address,
            Published(
                request=self.request, seqs=seqs, duplicates=duplicates, errors=self.errors, scheduled=scheduled
            ),
        )

    def _note_errors(self) -> None:
        self._dispatch.counters.refused += len(self.errors)
        for code, error in {error.code: error for error in reversed(self.errors)}.items():
            self._turn.note("refused", address=self.address, code=code, **denied(error.details))
        self.errors.sort(key=lambda error: error.index)

    def failed(self, code: Code, message: str) -> None:
        """Refuse the messages: nothing was stored."""
        self._leave_room()
        self._turn.refuse(self.address, code, message, self.request)

    def _leave_room(self) -> None:
        for lot, lack in zip(self.lots, self._lacks, strict=True):
            if lack is None:
                self._admission.leave(lot)


class _FoundingJob(Job[Sequence[Outcome]]):
    """A publish frame that names new channels. Each is created only if a message on it is stored.

    The log may refuse messages, so that is decided in the transaction. `meet` says which subscriptions come with a
    channel.
    """

    __slots__ = ("_admission", "_channels", "_joining", "_meet", "_publish")

    def __init__(self, publish: _PublishJob, channels: Sequence[Channel], admission: Admission, meet: Meet) -> None:
        super().__init__(size_bytes=sum(lot.size_bytes for lot in publish.lots))
        self.messages = sum(map(len, publish.lots))
        self._publish = publish
        self._channels = channels
        self._admission = admission
        self._meet = meet
        self._joining: dict[str, list[Job[Any]]] = {}

    def begin(self) -> None:
        """Subscribe those to the channels whose patterns match."""
        self._joining = {channel.name: list(self._meet([channel])) for channel in self._channels}
        changes = [change for jobs in self._joining.values() for job in jobs for change in job.changes]
        brought = [change for change in changes if isinstance(change, AddSubscription)]
        self.changes = [AddFirstMessages(self._publish.lots, "", self._channels, brought)]

    def done(self, answers: Sequence[Sequence[Outcome]], at: str) -> None:
        """Enter the channels that were created, and then the messages; answer as for any frame."""
        [change], [outcomes] = self.changes, answers
        assert isinstance(change, AddFirstMessages)
        created = founding(change, outcomes).channels
        self._admission.add_channels(created)
        self._admission.founded(self._channels)
        for channel in created:
            for job in self._joining[channel.name]:
                job.done((), at)
        self._publish.done(outcomes, at)
        for lot, outcome in zip(change.lots, outcomes, strict=True):
            self._admission.enter(lot, outcome, at)

    def failed(self, code: Code, message: str) -> None:
        """Refuse the messages: nothing was stored, and no channel was created."""
        self._admission.founded(self._channels)
        self._publish.failed(code, message)


def _error(index: int, refusal: Refusal) -> ItemError:
    return ItemError(index, refusal.code, refusal.message, refusal.retry_after, refusal.details)
