"""How a run comes to be: found by its id, or created for somebody to execute.

Owns what a run is created with, and whether a known run is the one that is meant.
"""

from __future__ import annotations

import logging
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from ..client.ids import chosen_id
from ..errors import Conflict, UnknownWorkflow
from ..model.definitions import is_newer
from ..model.openings import RunOpening, check_known
from ..model.records import BotOwner, GlobalOwner, WorkflowDefinition, WorkflowRun, timestamp
from ..model.repository import WorkflowRepository
from ..model.values import CONTEXT_BYTES_MAX, same_values
from ..wire.limits import NAME_CHARACTERS_MAX
from .recorder import Begin
from .timing import Timing
from .values import Values

__all__ = [
    "LEASE_SECONDS",
    "Executor",
    "Found",
    "Start",
    "check_start",
    "find_definition",
    "find_or_create",
    "keep_definition",
    "new_run",
    "tell_newer",
]

_logger = logging.getLogger("posthouse.client")

LEASE_SECONDS = 15.0
"""How long a run stays with a process that died: the worker's own default."""


class Executor(msgspec.Struct, frozen=True):
    """Who executes runs, and where they are kept."""

    workflows: WorkflowRepository
    bot_id: str
    lease_seconds: float = LEASE_SECONDS
    timing: Timing = Timing()
    values: Values = msgspec.field(default_factory=Values)
    """How what its runs record is written and read."""
    begin: Begin | None = None
    """How the beginning of a step is recorded without waiting for the answer, if that is possible."""
    opens: bool = True
    """Whether runs are kept where `open_run` is known."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is created with, if it does not exist yet."""

    id: str | None = None
    input: Any = None
    context: dict[str, Any] = {}
    concurrency_key: str | None = None
    trigger_type: str = "manual"
    trigger_payload: Any = None
    definition: WorkflowDefinition | None = None
    attributes: dict[str, str] = {}
    run_at: datetime | None = None
    """Before this time, nobody claims it."""

    def __post_init__(self) -> None:
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise ValueError(f"run_at must have a time zone, as datetime.now(UTC) has; not {self.run_at}")

    def plain(self, values: Values, workflow: str) -> Start:
        """Return it with its values as they are read back from JSON. Raise InvalidValue or TooLarge."""
        what = f"of a run of {workflow!r}"
        name = f"context of {workflow}"
        return msgspec.structs.replace(
            self,
            input=values.plain(self.input, f"input {what}"),
            context=values.plain(self.context, f"context {what}", bytes_max=CONTEXT_BYTES_MAX, name=name),
            trigger_payload=values.plain(self.trigger_payload, f"trigger_payload {what}"),
        )

    def opening(self, workflow: str, run_id: str) -> RunOpening:
        """Return what is asked of `open_run`."""
        return RunOpening(
            run_id=run_id,
            workflow=workflow,
            definition=self.definition,
            input=self.input,
            context=self.context,
            concurrency_key=self.concurrency_key,
            attributes=self.attributes,
            trigger_type=self.trigger_type,
            trigger_payload=self.trigger_payload,
        )


class Found(NamedTuple):
    """A run, the definition with which it was created, and whether that was just now."""

    run: WorkflowRun
    definition: WorkflowDefinition | None
    is_new: bool = False


def check_start(workflow: str, start: Start) -> None:
    """Raise TypeError or ValueError for what cannot be a run's id or definition."""
    if start.id is not None and not 1 <= len(start.id) <= NAME_CHARACTERS_MAX:
        raise ValueError(f"a run's id must have 1 to {NAME_CHARACTERS_MAX} characters, not {len(start.id)}")
    _check_given(workflow, start.definition)


def _check_given(workflow: str, given: WorkflowDefinition | None) -> None:
    if given is None:
        return
    if not isinstance(given, WorkflowDefinition):
        raise TypeError(f"definition must be a bus.WorkflowDefinition, not {type(given).__name__}")
    if workflow not in (given.name, given.id):
        raise ValueError(f"the definition is named {given.name!r}, not {workflow!r}")


async def find_or_create(executor: Executor, workflow: str, start: Start) -> Found:
    """Return a run; create it if it does not exist.

    Raises UnknownWorkflow, or Conflict if it is of another workflow or was started with another input.
    """
    workflows = executor.workflows
    check_start(workflow, start)
    if start.id is not None and (found := await workflows.get_run(start.id)) is not None:
        return await _known(workflows, found, workflow, start)
    definition = await find_definition(workflows, executor.bot_id, workflow, start.definition)
    run = new_run(definition, start, executor.timing.clock())
    try:
        return Found(await workflows.create_run(run), definition, is_new=True)
    except Conflict:
        # Another program has just created it.
        found = await workflows.get_run(run.id)
        if found is None:
            raise
        return await _known(workflows, found, workflow, start)


def new_run(
    definition: WorkflowDefinition, start: Start, now: datetime, *, parent_run_id: str | None = None
) -> WorkflowRun:
    """Return the record of a run that is to be created."""
    return WorkflowRun(
        id=chosen_id(start.id),
        workflow_id=definition.id,
        workflow_name=definition.name,
        trigger_type=start.trigger_type,
        started_at=timestamp(now),
        context=start.context if start.input is None else {**start.context, "input": start.input},
        trigger_payload=start.trigger_payload,
        concurrency_key=start.concurrency_key,
        attributes=start.attributes,
        parent_run_id=parent_run_id,
        not_before=None if start.run_at is None else timestamp(start.run_at),
    )


async def _known(workflows: WorkflowRepository, run: WorkflowRun, workflow: str, start: Start) -> Found:
    check_known(run, workflow, start.input)
    return Found(run, await workflows.get_run_definition(run.id))


async def find_definition(
    workflows: WorkflowRepository, bot_id: str, workflow: str, given: WorkflowDefinition | None = None
) -> WorkflowDefinition:
    """Return the definition that a bot means by a name or an id. Raise UnknownWorkflow.

    The one that is given is saved, unless a newer version of it is: then that one counts.
    """
    _check_given(workflow, given)
    if given is not None:
        return await keep_definition(workflows, given)
    for owner in (BotOwner(bot_id=bot_id), GlobalOwner()):
        found = await workflows.get_definition_by_name(workflow, owner)
        if found is not None:
            return found
    found = await workflows.get_definition(workflow)
    if found is None:
        raise UnknownWorkflow(workflow, bot_id)
    return found


async def keep_definition(workflows: WorkflowRepository, given: WorkflowDefinition) -> WorkflowDefinition:
    """Save a program's definition unless a newer one is stored, and return the one that counts."""
    known = await workflows.get_definition(given.id)
    if known is not None and same_values(known, given):
        return given
    if known is None or not is_newer(known, given, ()):
        known = await workflows.offer_definition(given)
    tell_newer(given, known)
    return known


def tell_newer(given: WorkflowDefinition, counts: WorkflowDefinition) -> None:
    """Log once if another definition counts than a program's own."""
    if not same_values(counts, given):
        _tell_once(given.name, given.version, counts.version)


@lru_cache(maxsize=1000)
def _tell_once(name: str, version: str, newer: str) -> None:
    """Log that a program has an older definition, not at each start of a run."""
    _logger.warning(
        "the definition of workflow %r that this program has (version %s) was replaced by a newer one (version %s),"
        " which counts; to bring it back, save it with save_definition, or raise its version",
        name,
        version,
        newer,
    )
