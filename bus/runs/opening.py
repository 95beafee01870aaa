"""How a run of a workflow is opened and ended: found or created, claimed, kept while the body works, and closed.

Owns what the end of a body means for its run. The run is completed if the body ends normally, and given back if it
is cancelled or the worker is away. It fails if a step or an approval failed, or the body says so; any other error
pauses it, because a mended program can go on. Nothing is written if a commit completed the run, or if another
program holds it by then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import uuid_utils

from ..errors import BusError, Conflict, InvalidTransition, UnknownWorkflow
from ..model.records import BotOwner, GlobalOwner, RunStatus, WorkflowDefinition, WorkflowRun, timestamp
from ..model.repository import WorkflowRepository
from ..model.values import json_value, same_values
from ..wire.limits import NAME_CHARACTERS_MAX
from .holding import RUN_ENDS, Hold, Timing, ended, meant, no_fault
from .recorder import Recorder
from .replay import error_text, same_json
from .run import Run
from .values import Values

__all__ = ["LEASE_SECONDS", "TIMEOUT_SECONDS", "Executor", "Start", "open_run"]

LEASE_SECONDS = 15.0
"""How long a run stays with a process that died: the worker's own default."""

TIMEOUT_SECONDS = 60.0
"""How long to wait for a run that another program holds or that has no slot: like a bot for any answer."""

_FAIL_SECONDS = 5.0


class Executor(msgspec.Struct, frozen=True):
    """Who executes runs, and where they are kept."""

    workflows: WorkflowRepository
    bot_id: str
    lease_seconds: float = LEASE_SECONDS
    timing: Timing = Timing()
    progressed: Callable[[str], None] = lambda run_id: None
    """Called with a run's id when the first step of its program is recorded."""
    values: Values = msgspec.field(default_factory=Values)
    """How what its runs record is written and read."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is created with, if it does not exist yet."""

    id: str | None = None
    input: Any = None
    context: dict[str, Any] = {}
    concurrency_key: str | None = None
    trigger_type: str = "manual"
    trigger_payload: Any = None
    definition: WorkflowDefinition | None = None


@asynccontextmanager
async def open_run(
    executor: Executor, workflow: str, start: Start | None = None, *, timeout: float | None = TIMEOUT_SECONDS
) -> AsyncIterator[Run]:
    """Hold an existing or new run of a workflow around a block; see `RemoteWorkflows.run`."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more, or None; not {timeout}")
    found, definition = await _find_or_create(executor, workflow, start or Start())
    hold = Hold(
        executor.workflows,
        found.id,
        executor.bot_id,
        lease_seconds=executor.lease_seconds,
        timing=executor.timing,
    )
    claimed = await _claim(hold, timeout)
    recorder = Recorder(hold, claimed, executor.progressed, executor.values)
    run = Run(recorder, claimed, definition)
    if run.completed:
        await recorder.load()
        yield run
        return
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold.keep, tasks.cancel_scope)
            loaded = False
            try:
                await recorder.load()
                loaded = True
                yield run
                await _complete(recorder)
            except Exception as error:
                failure = error
                if loaded and not run.completed:
                    await _fail(hold, error)
            finally:
                hold.stop_renewing()
    finally:
        await hold.give_back()
    if hold.failure is not None and failure is not hold.failure:
        raise hold.failure from failure
    if failure is not None:
        raise failure


async def _find_or_create(
    executor: Executor, workflow: str, start: Start
) -> tuple[WorkflowRun, WorkflowDefinition | None]:
    workflows = executor.workflows
    if start.id is not None and not 1 <= len(start.id) <= NAME_CHARACTERS_MAX:
        raise ValueError(f"a run's id must have 1 to {NAME_CHARACTERS_MAX} characters, not {len(start.id)}")
    if start.id is not None and (found := await workflows.get_run(start.id)) is not None:
        return await _known(workflows, found, workflow, start)
    definition = await _definition(executor, workflow, start.definition)
    context = start.context if start.input is None else {**start.context, "input": start.input}
    run = WorkflowRun(
        id=start.id or str(uuid_utils.uuid7()),
        workflow_id=definition.id,
        workflow_name=definition.name,
        trigger_type=start.trigger_type,
        started_at=timestamp(executor.timing.clock()),
        context=context,
        trigger_payload=start.trigger_payload,
        concurrency_key=start.concurrency_key,
    )
    try:
        return await workflows.create_run(run), definition
    except Conflict:
        # Another program has just created it.
        found = await workflows.get_run(run.id)
        if found is None:
            raise
        return await _known(workflows, found, workflow, start)


async def _known(
    workflows: WorkflowRepository, run: WorkflowRun, workflow: str, start: Start
) -> tuple[WorkflowRun, WorkflowDefinition | None]:
    if workflow not in (run.workflow_name, run.workflow_id):
        raise Conflict(f"run {run.id!r} belongs to workflow {run.workflow_name!r}, not to {workflow!r}")
    recorded = run.context.get("input") if isinstance(run.context, dict) else None
    if None not in (start.input, recorded) and not same_json(recorded, json_value(start.input, "input of a run")):
        raise Conflict(f"run {run.id!r} was started with another input: start another run, or pass no input")
    return run, await workflows.get_run_definition(run.id)


async def _definition(executor: Executor, workflow: str, given: WorkflowDefinition | None) -> WorkflowDefinition:
    workflows = executor.workflows
    if given is not None:
        if not isinstance(given, WorkflowDefinition):
            raise TypeError(f"definition must be a bus.WorkflowDefinition, not {type(given).__name__}")
        if workflow not in (given.name, given.id):
            raise ValueError(f"the definition is named {given.name!r}, not {workflow!r}")
        known = await workflows.get_definition(given.id)
        if known is None or not same_values(known, given):
            await workflows.save_definition(given)
        return given
    for owner in (BotOwner(bot_id=executor.bot_id), GlobalOwner()):
        found = await workflows.get_definition_by_name(workflow, owner)
        if found is not None:
            return found
    found = await workflows.get_definition(workflow)
    if found is None:
        raise UnknownWorkflow(workflow, executor.bot_id)
    return found


async def _claim(hold: Hold, timeout: float | None) -> WorkflowRun:
    """Return the run, held or already completed. Raise an error if it ended in another way."""
    try:
        return (await hold.claim(timeout)).run
    except InvalidTransition:
        run = await hold.workflows.get_run(hold.run_id)
        if run is None or run.status not in RUN_ENDS:
            raise
        if run.status != RunStatus.COMPLETED:
            raise ended(run.id, run.status, run.error) from None
        return run


async def _complete(recorder: Recorder) -> None:
    hold = recorder.hold
    if hold.failure is not None or recorder.completed:
        return
    context = recorder.context_value()
    async with hold.work(), hold.ending():
        await recorder.close_left()
        await hold.guard(
            hold.workflows.update_run_status(hold.run_id, RunStatus.COMPLETED, context=context, fence=hold.fence)
        )
        hold.held = False


async def _fail(hold: Hold, error: Exception) -> None:
    """Record the error that left the body; if that fails, add a note to the error.

    A paused run has the error as its reason. It can be claimed, so that it goes on when its message is redelivered.
    """
    if hold.failure is not None:
        return
    if no_fault(error):
        await hold.give_back()
        return
    status = RunStatus.FAILED if meant(error) else RunStatus.PAUSED
    try:
        with anyio.fail_after(_FAIL_SECONDS):
            async with hold.ending():
                await hold.guard(
                    hold.workflows.update_run_status(hold.run_id, status, error=error_text(error), fence=hold.fence)
                )
                hold.held = False
    except (BusError, TimeoutError) as trouble:
        error.add_note(f"The run {hold.run_id} could not be marked as {status}: {trouble}")
