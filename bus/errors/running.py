"""Errors of running a workflow in a bot, and which errors are not a handler's fault.

Pure.
"""

from __future__ import annotations

from typing import Any

from .requests import BusError, LimitReached
from .storing import BudgetSpent, NotInFlight, RunGivenUp, StorageBusy, StorageFull

__all__ = [
    "ENDED",
    "FINAL",
    "MEANT",
    "NOT_NOW",
    "ApprovalTimedOut",
    "FailRun",
    "Rejected",
    "ResultTimeout",
    "RunBusy",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunLost",
    "StepChanged",
    "StepFailed",
    "SuccessorDeleted",
    "UnknownWorkflow",
    "WaitTimedOut",
]


class RunError(BusError):
    """An error of one run of a workflow; the root of what running it raises."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class UnknownWorkflow(BusError):
    """No definition has that name or id."""

    def __init__(self, workflow: str, bot: str) -> None:
        super().__init__(
            f"no workflow {workflow!r} of {bot!r}, and no global one: save one first with"
            " bot.workflows.save_definition(WorkflowDefinition(...)), or pass it as definition=; another bot's is"
            " for that bot alone, unless its owner is GlobalOwner()"
        )
        self.workflow = workflow


class RunBusy(RunError):
    """A run could not be claimed in time: it is held by another program, or has no slot; `reason` says which."""

    retry_after: float | None = None

    def __init__(self, run_id: str, timeout: float, reason: str) -> None:
        super().__init__(run_id, f"not within {timeout:g} s: {reason}")
        self.reason = reason


class RunLost(RunError):
    """Another program holds the run now, or ended it; `status` is its status. Nothing more was written here."""

    retry_after: float | None = None

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(run_id, f"run {run_id!r} is {status}, and no longer held here")
        self.status = status


class RunCancelled(RunError):
    """A person cancelled the run."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, f"run {run_id!r} was cancelled")


class ResultTimeout(RunError, TimeoutError):
    """A run did not end in time; `status` is its status. It goes on, and its result can be asked for again."""

    def __init__(self, run_id: str, timeout: float, status: str) -> None:
        super().__init__(run_id, f"run {run_id!r} has not ended within {timeout:g} s: it is {status}")
        self.status = status


class RunFailed(RunError):
    """The run failed before, with `error`, and continues only if it is retried."""

    def __init__(self, run_id: str, error: str | None) -> None:
        super().__init__(
            run_id,
            f"run {run_id!r} failed before ('posthouse retry {run_id}' lets it go on):"
            f" {error or 'no error was recorded'}",
        )
        self.error = error


class SuccessorDeleted(RunError):
    """A run was completed because it continued as another one, `successor_id`, which was deleted.

    What became of it is not known, nor whether it continued in its turn.
    """

    def __init__(self, run_id: str, successor_id: str) -> None:
        super().__init__(run_id, f"run {run_id!r} continued as {successor_id!r}, which was deleted")
        self.successor_id = successor_id


class FailRun(BusError):
    """Raise it in a run's block to fail the run: the program is right, and this run cannot succeed."""


class StepFailed(RunError):
    """A step has failed as often as it may; `error` is the text of the last error, which is also its cause.

    After a restart only the text of the error is left.
    """

    def __init__(self, run_id: str, step_id: str, attempts: int, error: str) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(run_id, f"step {step_id!r} failed {times}: {error}")
        self.step_id = step_id
        self.attempts = attempts
        self.error = error


class StepChanged(RunError):
    """The record of a step does not match this call: the program changed while the run was in progress."""

    def __init__(self, run_id: str, step_id: str, reason: str) -> None:
        super().__init__(run_id, f"step {step_id!r}: {reason}")
        self.step_id = step_id


class Rejected(RunError):
    """A person rejected an approval; `answer` is their answer, if it was more than no."""

    def __init__(self, run_id: str, step_id: str, answer: Any, reason: str | None) -> None:
        super().__init__(run_id, f"approval {step_id!r} was rejected{f': {reason}' if reason else ''}")
        self.step_id = step_id
        self.answer = answer
        self.reason = reason


class ApprovalTimedOut(RunError):
    """Nobody answered an approval in time; what is answered later changes nothing."""

    def __init__(self, run_id: str, step_id: str) -> None:
        super().__init__(run_id, f"approval {step_id!r} was not given in time")
        self.step_id = step_id


class WaitTimedOut(RunError):
    """No signal that a run waited for was sent in time; what is sent later is kept for the next wait."""

    def __init__(self, run_id: str, step_id: str) -> None:
        super().__init__(run_id, f"no signal came in time for {step_id!r}")
        self.step_id = step_id


NOT_NOW = (LimitReached, NotInFlight, StorageBusy, StorageFull, RunBusy, RunLost)
"""Temporary errors, not the caller's fault: a handler that raises one is slowed down, and has not failed."""

ENDED = (RunCancelled, RunFailed, RunGivenUp)
"""Errors of runs that are not opened again before a person has retried them: repeating what raised them is useless.
"""

FINAL = (*ENDED, BudgetSpent)
"""Errors that every redelivery of a message would meet again: a handler that raises one makes it a dead letter."""

MEANT = (ApprovalTimedOut, BudgetSpent, FailRun, Rejected, RunCancelled, RunFailed, StepFailed, WaitTimedOut)
"""Errors that fail a run whose block they leave: its author or a person meant that. Any other one pauses it."""
