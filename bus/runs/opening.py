"""How a run of a workflow is opened and ended: found or created, claimed, kept while the body works, and closed.

Owns what the end of a body means for its run. The run is completed if the body ends normally, and given back if it
is cancelled or the worker is away. It fails if a step or an approval failed, or the body says so; any other error
pauses it, because a mended program can go on. A body that was told that the run is to be cancelled ends it so.
Nothing is written if a commit completed the run, or if another program holds it by then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import msgspec

from ..client.ids import chosen_id
from ..errors import BusError, InvalidTransition, NotFound, RunCancelled
from ..model.openings import RunOpening
from ..model.records import RunStatus, StepPage, WorkflowDefinition, WorkflowRun
from .current import in_run
from .holding import RUN_ENDS, Hold, ended, meant, no_fault
from .recorder import Recorder
from .replay import error_text
from .run import Run
from .starting import Executor, Found, Start, check_start, find_or_create, tell_newer

__all__ = ["TIMEOUT_SECONDS", "open_run"]

TIMEOUT_SECONDS = 60.0
"""How long to wait for a run that another program holds or that has no slot: like a bot for any answer."""

_FAIL_SECONDS = 5.0


@asynccontextmanager
async def open_run(
    executor: Executor, workflow: str, start: Start | None = None, *, timeout: float | None = TIMEOUT_SECONDS
) -> AsyncIterator[Run]:
    """Hold an existing or new run of a workflow around a block; see `RemoteWorkflows.run`."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more, or None; not {timeout}")
    start = start or Start()
    check_start(workflow, start)
    found = None if executor.opens else await find_or_create(executor, workflow, start)
    hold = Hold(
        executor.workflows,
        chosen_id(start.id) if found is None else found.run.id,
        executor.bot_id,
        lease_seconds=executor.lease_seconds,
        timing=executor.timing,
    )
    with hold.in_handler():
        if found is None:
            entered = await _enter(executor, hold, workflow, start, timeout)
        else:
            entered = await _enter_found(hold, found, timeout)
        async with _opened(executor, hold, entered) as run:
            yield run


class _Entered(NamedTuple):
    """A run that is held, or completed, its definition, and its first step logs, if they are known."""

    run: WorkflowRun
    definition: WorkflowDefinition | None
    steps: StepPage | None


async def _enter(executor: Executor, hold: Hold, workflow: str, start: Start, timeout: float | None) -> _Entered:
    """Find or create a run and claim it, in one call if that is possible."""
    try:
        run = await _claim(hold, timeout, start.opening(workflow, hold.run_id))
    except NotFound:  # the definition has to be found by its owners, or saved, or the worker says why not
        start = msgspec.structs.replace(start, id=hold.run_id)
        return await _enter_found(hold, await find_or_create(executor, workflow, start), timeout)
    opened = hold.opened
    if opened is None:  # others had it, or it is completed
        return _Entered(run, await _definition(hold), None)
    definition = opened.definition or await _definition(hold)
    if opened.created and definition is not None and start.definition is not None:
        tell_newer(start.definition, definition)
    return _Entered(run, definition, opened.steps)


async def _definition(hold: Hold) -> WorkflowDefinition | None:
    try:
        return await hold.workflows.get_run_definition(hold.run_id)
    except BaseException:
        await hold.give_back()
        raise


async def _enter_found(hold: Hold, found: Found, timeout: float | None) -> _Entered:
    run = await _claim(hold, timeout)
    is_untouched = found.is_new and hold.fence == 1
    return _Entered(run, found.definition, StepPage(steps=(), more=False) if is_untouched else None)


@asynccontextmanager
async def _opened(executor: Executor, hold: Hold, entered: _Entered) -> AsyncIterator[Run]:
    claimed = entered.run
    # A program that lost the run before may have been ended by a step: from then on each attempt is counted first.
    begin = executor.begin if hold.fence == 1 else None
    recorder = Recorder(hold, claimed, executor.values, begin=begin)
    run = Run(recorder, claimed, entered.definition)
    if run.completed:
        await recorder.load()
        with in_run(run):
            yield run
        return
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold.keep, tasks.cancel_scope)
            loaded = False
            try:
                await recorder.load(entered.steps)
                loaded = True
                with in_run(run):
                    yield run
                if hold.cancelling.told and not run.completed:
                    hold.cancelling.tell()
                await _complete(recorder)
            except Exception as error:
                failure = error
                if loaded and not run.completed:
                    await _fail(hold, error)
            finally:
                hold.stop_renewing()
    finally:
        await hold.give_back()
        hold.woken().set()  # another task may wait: the worker tells a session nothing of what that does itself
    if hold.failure is not None and failure is not hold.failure:
        raise hold.failure from failure
    if failure is not None:
        raise failure


async def _claim(hold: Hold, timeout: float | None, opening: RunOpening | None = None) -> WorkflowRun:
    """Return the run, held or already completed. Raise an error if it ended in another way."""
    try:
        return (await hold.claim(timeout, opening)).run
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
            hold.workflows.update_run_status(
                hold.run_id, RunStatus.COMPLETED, context=context, fence=hold.fence, result=recorder.result
            )
        )
        hold.held = False


def _end(hold: Hold, error: Exception) -> tuple[RunStatus, str | None]:
    """Return how a run ends by an error that left the body, and the error to record."""
    if not hold.cancelling.told:
        return RunStatus.FAILED if meant(error) else RunStatus.PAUSED, error_text(error)
    if isinstance(error, ExceptionGroup):
        told = error.split(RunCancelled)[1] is None
    else:
        told = isinstance(error, RunCancelled)
    return RunStatus.CANCELLED, None if told else f"while it was cleaned up: {error_text(error)}"


async def _fail(hold: Hold, error: Exception) -> None:
    """Record the error that left the body; if that fails, add a note to the error.

    A paused run has the error as its reason. It can be claimed, so that it goes on when its message is redelivered.
    """
    if hold.failure is not None:
        return
    if no_fault(error):
        await hold.give_back()
        return
    status, text = _end(hold, error)
    try:
        with anyio.fail_after(_FAIL_SECONDS):
            async with hold.ending():
                await hold.guard(
                    hold.workflows.update_run_status(hold.run_id, status, error=text, fence=hold.fence)
                )
                hold.held = False
    except (BusError, TimeoutError) as trouble:
        error.add_note(f"The run {hold.run_id} could not be marked as {status}: {trouble}")
