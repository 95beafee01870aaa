"""Commits over a bot's connection: `bot.workflows.commit`.

Owns the frame of a commit, and the messages that it acks: they are settled here when it is answered, and waited for
after a lost session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import anyio
import msgspec

from ..client.caller import Caller
from ..client.draft import Draft, publication
from ..client.ids import chosen_id
from ..client.keyed import KeyedChange, committed_value
from ..client.message import Message
from ..client.sending import Sending, Through
from ..client.settling import Settler
from ..client.waiting import Receipt
from ..errors import Conflict, InvalidValue, NotInFlight
from ..model.records import NewSignal, RunStatus, WorkflowRun, WorkflowStepLog
from ..model.values import json_value, normal_record
from ..wire.answers import CommitAnswer
from ..wire.frames import Commit
from ..wire.limits import COMMIT_ITEMS_MAX
from .remote_values import RemoteValues

__all__ = ["CommitReceipt", "Passed", "RemoteCommits"]

_COMMIT_AGAIN_SECONDS = 0.05
"""How soon to retry a commit whose message was not redelivered yet: that usually takes some milliseconds."""


class CommitReceipt(msgspec.Struct, frozen=True):
    """Confirmation that a commit is on the worker's disk: its id, the ids of its messages, and their seqs.

    The seq of a message that waits until it is due is None.
    """

    id: str
    message_ids: tuple[str, ...]
    seqs: tuple[int | None, ...]


class Passed(tuple[Draft, ...]):
    """Messages of a commit that middleware has seen."""


class _Stored(Protocol):
    """The result of a commit."""

    @property
    def seqs(self) -> Sequence[int | None]:
        """The seqs of its messages."""


R = TypeVar("R", bound=_Stored)


class RemoteCommits(RemoteValues):
    """The commit method of a bot's workflows."""

    def __init__(self, caller: Caller, settler: Settler, through: Through) -> None:
        super().__init__(caller)
        self._settler = settler
        self._through = through

    async def commit(
        self,
        *,
        id: str | None = None,
        run_id: str | None = None,
        fence: int | None = None,
        steps: Sequence[WorkflowStepLog] = (),
        context: Any = None,
        status: RunStatus | None = None,
        error: str | None = None,
        messages: Sequence[Draft] = (),
        acks: Sequence[Message] = (),
        result: Any = None,
        runs: Sequence[WorkflowRun] = (),
        signals: Sequence[NewSignal] = (),
        values: Sequence[KeyedChange] = (),
    ) -> CommitReceipt:
        """Do all this in one transaction, or nothing of it. Return when it is on the worker's disk.

        It checks the `fence` of a run (which `run_id` requires), writes each step log as given (one with a new id
        is created, a known one moves to its status), writes the context, the status, and the `result` of a
        completed run, creates `runs` whose parent it is, stores the messages, sends `signals` to runs, changes
        `values` of keyed stores, and acks messages in flight for this bot.
        Committing the same `id` again returns the first answer if its contents are the same; so the drafts, too,
        need the ids that they had.

        Raises Fenced, InvalidTransition, InvalidValue, NotFound, Conflict (for an id with other contents, and for
        an ack of a message that was settled before), RevisionConflict (for a value whose key has another revision
        than was expected), TooLarge for what does not fit into a record or a frame, and
        UnknownBot, LimitReached and the like as `send` does. After a lost session it waits until the messages that
        it acks are redelivered, and raises NotInFlight after a session's timeout. Nothing was stored then. After
        WorkerUnavailable that is unknown: commit again with the same `id`.
        """
        if error is not None and status is None:
            raise InvalidValue("error", "an error belongs to a status: pass a status too")
        if len(messages) > COMMIT_ITEMS_MAX:
            raise InvalidValue("messages", f"a commit may have at most {COMMIT_ITEMS_MAX}, not {len(messages)}")
        acks = list(dict.fromkeys(acks))
        commit_id = chosen_id(id)
        steps = [normal_record(step, f"step {step.step_id!r}") for step in steps]
        context = json_value(context, "the context of a commit")
        result = json_value(result, "the result of a commit")
        commit = Commit(
            request=0,
            id=commit_id,
            run_id=run_id,
            fence=fence,
            steps=list(steps),
            context=context,
            status=status,
            error=error,
            acks=[message.seq for message in acks],
            result=result,
            runs=list(runs),
            signals=list(signals),
            values=[committed_value(change) for change in values],
        )
        return await self.send_through(messages, lambda drafts: self._carry_out(commit, drafts, acks))

    async def send_through(self, drafts: Sequence[Draft], commit: Callable[[Sequence[Draft]], Awaitable[R]]) -> R:
        """Commit messages after the bot's middleware has seen them, once, however often they are committed."""
        if not drafts or not self._through or isinstance(drafts, Passed):
            return await commit(drafts)
        committed: list[R] = []

        async def carry_out(sending: Sending) -> list[Receipt]:
            committed.append(await commit(Passed(sending.drafts)))
            seqs = committed[0].seqs
            return [
                Receipt(draft.id or "", seq or 0, scheduled=seq is None)
                for draft, seq in zip(sending.drafts, seqs, strict=True)
            ]

        await self._through.send("commit", drafts, carry_out)
        if not committed:
            raise RuntimeError("a bot's middleware did not call call_next: nothing was committed")
        return committed[0]

    async def _carry_out(self, commit: Commit, drafts: Sequence[Draft], acks: Sequence[Message]) -> CommitReceipt:
        publications = [publication(draft, chosen_id(draft.id)) for draft in drafts]

        def frame(number: int) -> Commit:
            return msgspec.structs.replace(commit, request=number, messages=publications)

        answer = await self._commit(frame, acks)
        for message in acks:
            self._settler.note_committed(message)
        return CommitReceipt(commit.id, tuple(each.id for each in publications), tuple(answer.seqs))

    async def _commit(self, frame: Callable[[int], Commit], acks: Sequence[Message]) -> CommitAnswer:
        """Send a commit, and again while the messages that it acks are being redelivered, as after a restart.

        The first try is not delayed: if the commit was carried out before, these messages are never redelivered.
        """
        connection, until = self._caller.connection, None
        while True:
            try:
                return await self._caller.request(
                    "the commit", frame, CommitAnswer, settles=[message.stored for message in acks]
                )
            except Conflict as error:
                about_acks = acks and error.details is None
                if not about_acks or any(
                    each.settled or not connection.deliveries.holds(each.stored) for each in acks
                ):
                    raise
                now, terms = anyio.current_time(), connection.welcome
                until = until or now + (terms.session_timeout if terms is not None else 0.0)
                if now >= until:
                    raise NotInFlight.received(error.code, error.message) from None
            await anyio.sleep(_COMMIT_AGAIN_SECONDS)
