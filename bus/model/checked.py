"""What callers want written, checked before it is queued: runs, their changes, step logs, signals, schedules.

Owns these checks. A checked value is as it will be read back, with the texts of what is stored as JSON, so that a
backend only has to place them.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import InvalidTransition, InvalidValue, TooLarge, Unapproved
from .filters import checked_attributes
from .occurrences import check_times
from .records import NewSignal, RunStatus, StepStatus, WorkflowRun, WorkflowStepLog, parse_timestamp, timestamp
from .schedules import WorkflowSchedule, scheduled_run_id
from .transitions import STEP_BEGINS
from .values import (
    CONTEXT_BYTES_MAX,
    OUTPUT_BYTES_MAX,
    SIGNAL_BYTES_MAX,
    STEP_VALUE_BYTES_MAX,
    check_id,
    check_texts,
    exact_value,
    json_text,
    json_value,
    normal_record,
    status_value,
)
from .workflows import StepMove

__all__ = [
    "NewRun",
    "NewStep",
    "RunChange",
    "StepWrite",
    "begun",
    "check_answer",
    "check_record_size",
    "checked_schedule",
    "new_run",
    "new_signal",
    "new_step",
    "run_change",
    "scheduled_run",
    "time_text",
    "value_text",
]

_SIGNAL_CHARACTERS_MAX = 128
"""As for a run: ids and names of signals are keys of an index, and are read by people."""

_SCHEDULE_CHARACTERS_MAX = 100
"""So that the id of a run, which is that of its schedule and a time, is not longer than ids may be."""

_encode = msgspec.json.Encoder().encode


def check_record_size(record: msgspec.Struct, what: str, bytes_max: int | None, output: str | None = None) -> None:
    """Raise TooLarge for a record that could not be sent to its readers; `output` is a step log's, as JSON."""
    if bytes_max is None:
        return
    output_bytes = 0
    if output is not None:  # writing it again, only to see its size, would take as long as storing it
        output_bytes = (len(output) if output.isascii() else len(output.encode())) - len("null")
        record = msgspec.structs.replace(record, output=None)
    size_bytes = len(msgspec.json.encode(record)) + output_bytes
    if size_bytes > bytes_max:
        raise TooLarge(what, size_bytes, bytes_max)


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────


class NewRun(msgspec.Struct, frozen=True):
    """A checked run to create: its record as it will be read back, and its row, in the order of its fields."""

    run: WorkflowRun
    row: tuple[Any, ...]


class RunChange(msgspec.Struct, frozen=True):
    """A checked move of a run to a status: context and result as they will be read back, and as texts.

    None keeps them.
    """

    run_id: str
    status: RunStatus
    error: str | None
    context: Any
    context_text: str | None
    result: Any
    result_text: str | None
    fence: int | None
    by: str | None
    """The bot that must own the fence, if any must."""


def new_run(run: WorkflowRun) -> NewRun:
    """Check a run before it is queued. Raises InvalidValue or TooLarge."""
    run = normal_record(run, f"run {run.id!r}")
    check_id(run.id, "id of a run")
    if run.cancel_by is not None:
        raise InvalidValue(f"run {run.id!r}", "cancel_by is set by cancelling it, and not when it is created")
    if run.continued_as is not None:
        raise InvalidValue(f"run {run.id!r}", "continued_as is set when it continues, and not when it is created")
    if run.not_before is not None:
        run = msgspec.structs.replace(run, not_before=time_text(run.not_before, f"not_before of run {run.id!r}"))
    row = (
        run.id,
        run.workflow_id,
        run.workflow_name,
        run.status,
        run.trigger_type,
        value_text(run.trigger_payload, f"trigger_payload of run {run.id!r}"),
        value_text(run.context, f"context of run {run.id!r}", CONTEXT_BYTES_MAX) or "null",
        run.started_at,
        run.completed_at,
        run.error,
        run.concurrency_key,
        value_text(run.result, f"result of run {run.id!r}", OUTPUT_BYTES_MAX),
        run.parent_run_id,
        run.not_before,
        json_text(checked_attributes(run.attributes), "attributes") if run.attributes else None,
    )
    return NewRun(run, row)


def run_change(
    run_id: str,
    status: RunStatus,
    *,
    error: str | None,
    context: Any,
    fence: int | None,
    by: str | None = None,
    result: Any = None,
    result_bytes_max: int = OUTPUT_BYTES_MAX,
) -> RunChange:
    """Check a change before it is queued. Raises InvalidValue or TooLarge."""
    if result is not None and status != RunStatus.COMPLETED:
        raise InvalidValue("result", f"only a run that is completed has one, and this one becomes {status}")
    kept = exact_value(context, f"context of run {run_id!r}", bytes_max=CONTEXT_BYTES_MAX)
    ended = exact_value(result, f"result of run {run_id!r}", bytes_max=result_bytes_max)
    return RunChange(
        run_id,
        status_value(status, RunStatus),
        json_value(error, f"error of run {run_id!r}"),
        kept.value,
        None if context is None else kept.json.decode(),
        ended.value,
        None if result is None else ended.json.decode(),
        fence,
        by,
    )


def time_text(text: str, what: str) -> str:
    """Return a time in the form that is stored. Raises InvalidValue."""
    try:
        return timestamp(parse_timestamp(text))
    except ValueError as error:
        raise InvalidValue(what, str(error)) from error


# ── Step logs ────────────────────────────────────────────────────────────────────────────────────────────


class NewStep(msgspec.Struct, frozen=True):
    """A checked step log to create: its record as it will be read back, and its row without its times."""

    step: WorkflowStepLog
    row: tuple[Any, ...]
    output_text: str | None
    fence: int | None
    by: str | None


StepWrite = NewStep | StepMove


def new_step(
    step: WorkflowStepLog, *, fence: int | None, by: str | None = None, output_bytes_max: int = OUTPUT_BYTES_MAX
) -> NewStep:
    """Check a step log, already in its JSON form, before it is queued; with `by`, the fence must be that bot's.

    Raise InvalidValue or TooLarge.
    """
    check_id(step.id, "id of a step log")
    texts = (step.run_id, step.step_id, step.step_name, step.idempotency_key, step.started_at, step.completed_at)
    check_texts(texts, f"step {step.step_id!r}")
    if not 1 <= step.attempt < 2**31:
        raise InvalidValue(f"step {step.step_id!r}", f"attempt must be 1 or more, not {step.attempt}")
    if fence is not None and not (isinstance(fence, int) and -(2**53) < fence < 2**53):
        raise InvalidValue("fence", f"must be the number of a claim, not {fence!r}")
    output_text = value_text(step.output, f"output of step {step.step_id!r}", output_bytes_max)
    row = (
        step.id,
        step.run_id,
        step.step_id,
        step.step_name,
        step.status,
        step.attempt,
        step.idempotency_key,
        value_text(step.input, f"input of step {step.step_id!r}", STEP_VALUE_BYTES_MAX),
        output_text,
        step.error,
    )
    return NewStep(step, row, output_text, fence, by)


def begun(step: WorkflowStepLog, when: str | None) -> WorkflowStepLog:
    """Return a step log with its start time, if it has begun and has none."""
    if step.started_at is not None or step.status not in STEP_BEGINS:
        return step
    return msgspec.structs.replace(step, started_at=when)


def check_answer(step: WorkflowStepLog, change: StepMove) -> None:
    """Raise Unapproved if a writer answers an approval that it may not answer, or changes anything else."""
    waits = step.status is StepStatus.WAITING_APPROVAL
    if change.answers and not waits:
        raise InvalidTransition("step", step.id, step.status, change.status)
    if not change.answers and waits and (change.status is not StepStatus.FAILED or change.output is not None):
        raise Unapproved(step.step_id, step.run_id)


def value_text(value: Any, what: str, bytes_max: int | None = None) -> str | None:
    """Return a value in its JSON form as text: it was read from JSON, so that nothing of it can be lost."""
    if value is None:
        return None
    encoded = _encode(value)
    if bytes_max is not None and len(encoded) > bytes_max:
        raise TooLarge(what, len(encoded), bytes_max)
    return encoded.decode()


# ── Signals ──────────────────────────────────────────────────────────────────────────────────────────────


def new_signal(signal: NewSignal) -> NewSignal:
    """Check a signal before it is queued. Raises InvalidValue or TooLarge."""
    signal = normal_record(signal, f"signal {signal.name!r}")
    for what, text in (("id", signal.id), ("name", signal.name)):
        if not 1 <= len(text) <= _SIGNAL_CHARACTERS_MAX:
            reason = f"must have 1 to {_SIGNAL_CHARACTERS_MAX} characters, not {len(text)}"
            raise InvalidValue(f"{what} of a signal", reason)
        check_id(text, f"{what} of a signal")
    json_text(signal.payload, f"payload of signal {signal.name!r}", bytes_max=SIGNAL_BYTES_MAX)
    return signal


# ── Schedules ────────────────────────────────────────────────────────────────────────────────────────────


def checked_schedule(schedule: WorkflowSchedule) -> WorkflowSchedule:
    """Return a schedule as it will be read back. Raise InvalidValue if it could never start a run."""
    what = f"schedule {schedule.id!r}"
    schedule = normal_record(schedule, what)
    if not 1 <= len(schedule.id) <= _SCHEDULE_CHARACTERS_MAX or not schedule.id.isprintable():
        raise InvalidValue("id", f"a schedule's must have 1 to {_SCHEDULE_CHARACTERS_MAX} printable characters")
    check_times(schedule.times)
    return msgspec.structs.replace(schedule, attributes=checked_attributes(schedule.attributes))


def scheduled_run(schedule: WorkflowSchedule, workflow_name: str, now: str, time: str) -> WorkflowRun:
    """Return the run that a schedule starts, now, as the one of a time."""
    return WorkflowRun(
        id=scheduled_run_id(schedule.id, time),
        workflow_id=schedule.workflow_id,
        workflow_name=workflow_name,
        trigger_type="schedule",
        started_at=now,
        context={} if schedule.input is None else {"input": schedule.input},
        trigger_payload={"schedule": schedule.id, "at": time},
        concurrency_key=schedule.concurrency_key,
        attributes=schedule.attributes,
    )
