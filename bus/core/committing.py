"""Commits: a run's progress, messages and acks in one transaction.

Owns what a commit frame may ask for, and what follows from the log's answer. A commit is carried out as a whole or
not at all. What only the log knows (the fence, statuses, whether it was carried out before) is answered after the
transaction. Acks are settled in the state that is written with it, and in memory once it has returned.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from ..errors import BudgetSpent, Refused
from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Session
from ..model.records import Channel, RunStatus, StepStatus
from ..model.repository import Committed, CommitWork, Lot, NotCommitted, Outcome
from ..model.rights import Action
from ..model.tracing import TRACED
from ..wire.answers import CommitAnswer
from ..wire.bodies import BODY_DEPTH_MAX, is_suspicious, value_fault
from ..wire.codec import encode
from ..wire.frames import RETRY, Code, Commit, ErrorFrame, Publication, Refusal
from .admission import Admission
from .batches import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn
from .keyed_writing import keyed_write
from .run_rights import RunRights
from .waking import Waking
from .works import WorkJob

__all__ = ["Committing"]

_LATER = ("result", "runs", "signals", "values")
"""Fields that earlier workers did not know. A commit without them has the digest that it had there."""


class Committing:
    """See the module."""

    def __init__(
        self,
        directory: Directory,
        admission: Admission,
        batches: Batches,
        dispatch: Dispatch,
        waking: Waking,
        turn: Turn,
    ) -> None:
        self.directory = directory
        self.admission = admission
        self.batches = batches
        self.dispatch = dispatch
        self.waking = waking
        self.turn = turn
        self._number = 0
        """The number of the last accepted commit, which distinguishes commits with the same id."""

    def __repr__(self) -> str:
        return f"<Committing {self.batches}>"

    def meet(self, channels: Iterable[Channel]) -> Iterable[Job[Any]]:
        """Return the subscriptions that come with new channels, as jobs."""
        return self.batches.meet(channels)

    def request(self, session: Session, commit: Commit) -> None:
        """Add a commit to the next batch. Raises Refusal if a part of it is invalid."""
        _check(commit)
        encoded = _encode(commit)
        checked = self.admission.check(session, commit.messages)
        if checked.refused:
            raise checked.refused[min(checked.refused)]
        lots = checked.lots
        try:
            values = [keyed_write(value, session.bot_id, self.admission.limits) for value in commit.values]
        except Refused as error:
            raise Refusal(Code(error.code), error.message, details=error.details) from error
        forbidden = (*checked.forbidden, *self._forbidden(session, commit))
        refusal = next(filter(None, forbidden), None) or self._refusal(session, commit, lots)
        mailboxes: dict[Mailbox, list[int]] = {}
        self._number += 1
        if refusal is None:
            self.admission.expect(session, commit.messages)
            for seq in commit.acks:
                mailboxes.setdefault(self.directory.mailboxes[session.in_flight[seq]], []).append(seq)
            for mailbox, seqs in mailboxes.items():
                mailbox.outstanding.prepare_to_settle(self._number, seqs, self.turn.moment.now)
        channels = self.admission.new_channels(session, lots) if refusal is None else []
        work = CommitWork(
            commit.id,
            session.bot_id,
            hashlib.sha256(encoded).hexdigest(),
            commit.run_id,
            commit.fence,
            commit.steps,
            commit.status,
            commit.error,
            commit.context,
            lots,
            channels,
            known_only=refusal is not None,
            timestamp="",
            number=self._number,
            as_holder=session.principal is not None,
            result=commit.result,
            runs=commit.runs,
            signals=commit.signals,
            sender=session.bot_name,
            values=values,
            rights=None if session.principal is None else RunRights(self.admission.access, session.principal),
        )
        self.batches.add(
            _CommitJob(
                session,
                commit,
                work,
                mailboxes=list(mailboxes),
                refusal=refusal,
                if_tainted=next(filter(None, checked.if_tainted), None),
                size_bytes=len(encoded),
                by=self,
            )
        )

    def _forbidden(self, session: Session, commit: Commit) -> Iterator[Refusal | None]:
        """Yield, for each keyed store that a commit writes to, why the bot may not."""
        for store in dict.fromkeys(value.store for value in commit.values):
            if session.principal is not None:
                yield self.admission.access.refusal(session.principal, Action.WRITE, store)

    def _refusal(self, session: Session, commit: Commit, lots: Sequence[Lot]) -> Refusal | None:
        """Return why it cannot be carried out now, or None. It is looked up even so: it may be a repeat."""
        missing = [seq for seq in commit.acks if seq not in session.in_flight]
        if missing:
            return Refusal(Code.CONFLICT, f"message {missing[0]} is not in flight for this session: commit refused")
        reserved: list[Lot] = []
        for part, lack in chain.from_iterable(self.admission.reserve(session, lot) for lot in lots):
            if lack is not None:
                for lot in reserved:
                    self.admission.leave(lot)
                return lack
            reserved.append(part)
        return None


class _CommitJob(WorkJob):
    """A commit on its way to the disk; with a `refusal` it is only looked up."""

    def __init__(
        self,
        session: Session,
        commit: Commit,
        work: CommitWork,
        *,
        mailboxes: Sequence[Mailbox],
        refusal: Refusal | None,
        if_tainted: Refusal | None,
        size_bytes: int,
        by: Committing,
    ) -> None:
        super().__init__(work, by.admission, by.meet, mailboxes=mailboxes, size_bytes=size_bytes)
        self._session = session
        self._address = session.address
        self._request = commit.request
        self._settled = mailboxes
        self._refusal = refusal
        self._if_tainted = if_tainted
        self._dispatch = by.dispatch
        self._waking = by.waking
        self._turn = by.turn

    def done(self, answers: Sequence[Committed | NotCommitted | None], at: str) -> None:
        """Enter what was carried out, and answer."""
        self._leave_room()
        match answers[0]:
            case Committed(seqs, added):
                self._enter(added, at)
                self._turn.answer(self._address, self._request, CommitAnswer(seqs))
            case NotCommitted(None):
                assert self._if_tainted is not None, "only a message with a condition is refused for it"
                self._keep_unsettled()
                self._refuse(self._if_tainted)
            case NotCommitted(error):
                self._keep_unsettled()
                if isinstance(error, BudgetSpent):
                    self.admission.ended(self.work.sender, error)
                code, details = (error.code, error.details) if isinstance(error, Refused) else (Code.INTERNAL, None)
                frame = ErrorFrame(
                    code=code, message=str(error), request=self._request, retry=code in RETRY, details=details
                )
                self._turn.send(self._address, frame)
            case None:
                assert self._refusal is not None, "only a refused commit is just looked up"
                self._keep_unsettled()
                self.admission.refused(self._refusal.code)
                self._refuse(self._refusal)
        self.admission.founded(self.work.channels)

    def failed(self, code: Code, message: str) -> None:
        """Undo the preparations, and refuse the request."""
        self._leave_room()
        self._keep_unsettled()
        self.admission.founded(self.work.channels)
        self._turn.refuse(self._address, code, message, self._request)

    def _refuse(self, refusal: Refusal) -> None:
        self._turn.refuse(self._address, refusal.code, refusal.message, self._request, refusal.details)

    def _enter(self, added: Sequence[Outcome] | None, at: str) -> None:
        """Enter what was carried out now; of a repeat, only the messages it settles may be left to do."""
        if added is not None:
            self.enter(added, at)
        if self.work.run_id is not None:
            self._waking.happened(self.work.run_id, by_holder=True, stopped=self.work.status is not None)
            if any(step.status is StepStatus.COMPLETED for step in self.work.steps):
                self._dispatch.progressed(self._session, self.work.run_id)
        for run in self.work.runs:
            self._waking.happened(run.id, by_holder=True)
        for signal in self.work.signals:
            self._waking.happened(signal.run_id, stopped=False)
        self._waking.keyed.written(self.work.values)
        for mailbox in self._settled:
            self._dispatch.settle_committed(mailbox, self.work.number)

    def _leave_room(self) -> None:
        if self._refusal is None:
            self.leave_room()

    def _keep_unsettled(self) -> None:
        for mailbox in self._settled:
            mailbox.outstanding.keep_unsettled(self.work.number)
            self._dispatch.touch(mailbox)


def _check(commit: Commit) -> None:
    values = (commit.context, commit.status, commit.error, commit.result)
    of_a_run = commit.steps or any(value is not None for value in values)
    if (commit.run_id is None) != (commit.fence is None) or (of_a_run and commit.run_id is None):
        text = "a run's steps, context, status, error and result need its run_id and its fence"
        raise Refusal(Code.BAD_REQUEST, text)
    for run in commit.runs:
        if commit.run_id is None or run.parent_run_id != commit.run_id or run.status is not RunStatus.PENDING:
            text = f"run {run.id!r} must be pending, and have the run of the commit as its parent_run_id"
            raise Refusal(Code.BAD_REQUEST, text)
    for step in commit.steps:
        if step.run_id != commit.run_id:
            raise Refusal(Code.BAD_REQUEST, f"step {step.step_id!r} belongs to another run, {step.run_id!r}")
    if len(set(commit.acks)) != len(commit.acks):
        raise Refusal(Code.BAD_REQUEST, "'acks' has a message twice")


def _encode(commit: Commit) -> bytes:
    """Return the bytes that are equal in all frames of one commit, and differ between commits.

    Raises Refusal if a value is nested so deeply that a decoder may fail on it. When our own decoder fails, it has
    cut the value below that depth, so a truncated value is never stored.
    """
    content: dict[str, Any] = msgspec.structs.asdict(commit) | {"request": 0}
    for name in _LATER:
        if content[name] is None or (content[name] == [] and name != "result"):
            del content[name]
    content["messages"] = [_untraced(message) for message in commit.messages]
    try:
        encoded = encode(content)
    except RecursionError:
        raise Refusal(Code.BAD_REQUEST, f"a value is nested deeper than {BODY_DEPTH_MAX}") from None
    if not is_suspicious(encoded):
        return encoded
    values = [(commit.context, "the context"), (commit.result, "the result")]
    values += [(step.input, f"the input of step {step.step_id!r}") for step in commit.steps]
    values += [(step.output, f"the output of step {step.step_id!r}") for step in commit.steps]
    values += [(run.context, f"the context of run {run.id!r}") for run in commit.runs]
    values += [(run.trigger_payload, f"the trigger_payload of run {run.id!r}") for run in commit.runs]
    values += [(msgspec.json.decode(each.value), f"the value of {each.key!r}") for each in commit.values]
    values += [(signal.payload, f"the payload of signal {signal.name!r}") for signal in commit.signals]
    for value, what in values:
        fault = value_fault(value, what)
        if fault is not None:
            raise Refusal(Code.BAD_REQUEST, fault)
    return encoded


def _untraced(message: Publication) -> Publication:
    """Return a message without the headers of a trace: a commit that is sent again may belong to another span."""
    if TRACED.isdisjoint(message.headers):
        return message
    headers = {name: value for name, value in message.headers.items() if name not in TRACED}
    return msgspec.structs.replace(message, headers=headers)
