"""Answers to approvals: what one is, and how a bot handles one that arrives as a message.

Owns what is recorded of an answer. A message names the step that it answers, so that a repeated or late one cannot
answer the next question.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from ..client.message import Message
from ..errors import BusError, InvalidTransition
from ..model.records import StepStatus, WorkflowStepLog
from ..model.repository import WorkflowRepository
from .replay import deadline_of

__all__ = ["APPROVE", "REJECT", "Answer", "Unanswerable", "take_answer"]

APPROVE, REJECT = "workflow.approve", "workflow.reject"
"""The types of messages that answer."""


class Unanswerable(BusError):
    """There is no such question, or it was answered before."""


class Answer(msgspec.Struct, frozen=True):
    """A person's answer, as it is kept in the step's output."""

    approved: bool
    by: str
    comment: str | None = None

    def __str__(self) -> str:
        word = f"{'approved' if self.approved else 'rejected'} by {self.by}"
        return word if self.comment is None else f"{word}: {self.comment}"

    async def give(self, workflows: WorkflowRepository, step: WorkflowStepLog) -> WorkflowStepLog:
        """Complete or fail the step. The same answer again changes nothing; another one raises Unanswerable.

        So does one after the step's deadline.
        """
        deadline = deadline_of(step)
        if step.status == StepStatus.WAITING_APPROVAL and deadline is not None and deadline < datetime.now(UTC):
            raise Unanswerable(f"step {step.step_id} of run {step.run_id} could be answered until {deadline}")
        status, error = (StepStatus.COMPLETED, None) if self.approved else (StepStatus.FAILED, str(self))
        try:
            return await workflows.update_step_status(step.id, status, msgspec.to_builtins(self), error)
        except InvalidTransition as refusal:
            late = f"step {step.step_id} of run {step.run_id} is {refusal.current}: it was answered before"
            raise Unanswerable(late) from None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a message that answers; `step` is the name of the step, or its log's id."""

    run_id: str
    step: str
    comment: str | None = None


async def take_answer(workflows: WorkflowRepository, message: Message) -> None:
    """Record the answer that a message brings; a message that answers nothing becomes a dead letter."""
    try:
        body = msgspec.convert(message.body, _Body)
        answer = Answer(message.message_type == APPROVE, message.sender, body.comment)
        await answer.give(workflows, await _waiting_step(workflows, body))
    except (Unanswerable, msgspec.ValidationError) as error:
        await message.term(str(error))


async def _waiting_step(workflows: WorkflowRepository, body: _Body) -> WorkflowStepLog:
    for step in reversed(await workflows.list_step_logs(body.run_id)):
        if body.step in (step.step_id, step.id):
            if step.status in (StepStatus.PENDING, StepStatus.RUNNING):
                break
            return step
    raise Unanswerable(f"step {body.step} of run {body.run_id} is not waiting for an approval")
