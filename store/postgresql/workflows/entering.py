"""Opening a run in one unit of work: it is found or created, and claimed."""

from __future__ import annotations

from bus.errors import InvalidTransition, NotFound, SlotsTaken
from bus.model.checked import new_run
from bus.model.leases import Claimant
from bus.model.openings import OpenedRun, RunOpening, check_known, counting, run_of
from bus.model.records import StepPage, WorkflowDefinition

from .definitions import FIND, FIND_BY_NAME, definition_record, find_stored
from .rows import plain
from .runs import Runs
from .unit import Unit

__all__ = ["enter"]


async def enter(
    runs: Runs, unit: Unit, opening: RunOpening, claimant: Claimant, *, by: str | None, is_new: bool
) -> OpenedRun | SlotsTaken | InvalidTransition:
    """Claim a run for the bot `by`, and create it first if it does not exist; return what `Runs.claim` does.

    The definition and the steps of one that exists have to be read. Raise NotFound if it exists and has to be new,
    or what `RunOpener.open_run` does.
    """
    plain((opening.run_id, opening.workflow), "opening of a run")
    held = await unit.find(opening.run_id)
    definition: WorkflowDefinition | None = None
    if held is None:
        definition = await _meant(unit, opening, claimant.holder)
        new = new_run(run_of(opening, definition, unit.now))
        runs.check_size(new.run, f"run {new.run.id!r}")
        await runs.create(unit, new, by)
    elif is_new:
        raise NotFound("new run", opening.run_id)
    else:
        check_known(held.run, opening.workflow, opening.input)
    claimed = await runs.claim(unit, opening.run_id, claimant)
    if isinstance(claimed, SlotsTaken | InvalidTransition):
        return claimed
    steps = StepPage(steps=(), more=False) if held is None else None
    return OpenedRun(claim=claimed, definition=definition, created=held is None, steps=steps)


async def _meant(unit: Unit, opening: RunOpening, bot_id: str) -> WorkflowDefinition:
    """Return the definition with which a run is created: definitions are written at once, not at a unit's end."""
    if opening.definition is not None:
        plain((opening.definition.id,), "id of a workflow")
        return counting(opening, *await find_stored(unit.connection, opening.definition.id))
    for sql, *values in (
        (FIND_BY_NAME, opening.workflow, bot_id),
        (FIND_BY_NAME, opening.workflow, ""),
        (FIND, opening.workflow),
    ):
        for row in await unit.connection.fetch(sql, *values):
            return counting(opening, definition_record(row))
    return counting(opening, None)
