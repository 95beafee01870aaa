"""Commits over a bot's connection: `bot.workflows.commit`.

Owns the frame of a commit, and what becomes of the messages that it acks: they are settled here when it is
answered, and waited for after a lost session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import uuid_utils

from ..client.caller import Caller
from ..client.draft import Draft, publication
from ..client.message import Message
from ..client.settling import Settler
from ..errors import Conflict, InvalidValue, NotInFlight
from ..model.records import RunStatus, WorkflowStepLog
from ..model.values import json_value, normal_record
from ..wire.answers import CommitAnswer
from ..wire.frames import Commit
from ..wire.limits import COMMIT_ITEMS_MAX

__all__ = ["CommitReceipt", "RemoteCommits"]

_COMMIT_AGAIN_SECONDS = 0.05
"""How soon to retry a commit whose message has not come again: that usually takes some milliseconds."""


class CommitReceipt(msgspec.Struct, frozen=True):
    """A commit is on the worker's disk: its id, the ids of its messages, and their places in the log.

    The place of a message that waits until it is due is None.
    """

    id: str
    message_ids: tuple[str, ...]
    seqs: tuple[int | None, ...]


class RemoteCommits:
    """The part of a bot's workflows that commits."""

    def __init__(self, caller: Caller, settler: Settler) -> None:
        self._caller = caller
        self._settler = settler

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
    ) -> CommitReceipt:
        """Do all this in one transaction, or nothing of it: return when it is on the worker's disk.

        Checks the `fence` of a run (which `run_id` needs), leaves each step log as it is given (a new id is
        created, a known one moves to its status), writes the context and the status, stores the messages, and acks
        messages that are with this bot. The same `id` again is answered as the first time, if its contents are the
        same: the drafts, too, need the ids that they had.

        Raises Fenced, InvalidTransition, InvalidValue, NotFound, Conflict (for an id with other contents, and for
        an ack of what was settled before), and TooLarge for what does not fit into a record, or all of it into a
        frame; UnknownBot, LimitReached and the like as `send` does. After a lost session it waits until what it
        acks has come to the new one, and raises NotInFlight after a session's timeout. Nothing was stored then.
        After WorkerUnavailable that is unknown: commit again with the same `id`.
        """
        if error is not None and status is None:
            raise InvalidValue("error", "a commit says why a run has a status, so it needs a status")
        if len(messages) > COMMIT_ITEMS_MAX:
            raise InvalidValue("messages", f"a commit has at most {COMMIT_ITEMS_MAX}, not {len(messages)}")
        acks = list(dict.fromkeys(acks))
        publications = [publication(draft, draft.id or str(uuid_utils.uuid7())) for draft in messages]
        commit_id = id or str(uuid_utils.uuid7())
        steps = [normal_record(step, f"step {step.step_id!r}") for step in steps]
        context = json_value(context, "the context of a commit")

        def frame(number: int) -> Commit:
            return Commit(
                request=number,
                id=commit_id,
                run_id=run_id,
                fence=fence,
                steps=list(steps),
                context=context,
                status=status,
                error=error,
                messages=publications,
                acks=[message.seq for message in acks],
            )

        answer = await self._commit(frame, acks)
        for message in acks:
            self._settler.note_committed(message)
        return CommitReceipt(commit_id, tuple(each.id for each in publications), tuple(answer.seqs))

    async def _commit(self, frame: Callable[[int], Commit], acks: Sequence[Message]) -> CommitAnswer:
        """Ask for a commit, and again while what it acks is on its way to this session, as after a restart.

        It is asked for at once all the same: where it was carried out, these messages do not come any more.
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
