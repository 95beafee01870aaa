"""Opening a run in one unit of work: it is found or created, and claimed."""

from __future__ import annotations

from bus.errors import InvalidTransition, NotFound, SlotsTaken
from bus.model.checked import new_run
from bus.model.leases import Claimant
from bus.model.openings import OpenedRun, RunOpening, check_known, counting, run_of
from bus.model.records import StepPage, WorkflowDefinition
from bus.model.values import check_texts

from .definitions import definition_record, find_stored
from .runs import Runs
from .unit import Unit

__all__ = ["enter"]

# The bot's own one, a global one, or one with that id.
_MEANT = """
    SELECT id, definition FROM workflows
    WHERE (name = $1 AND COALESCE(owner_bot_id, '') IN ($2, '')) OR id = $1
    ORDER BY CASE WHEN name <> $1 THEN 2 WHEN owner_bot_id IS NULL THEN 1 WHEN owner_bot_id = $2 THEN 0 ELSE 2 END
    LIMIT 1"""


async def enter(
    runs: Runs, unit: Unit, opening: RunOpening, claimant: Claimant, *, by: str | None, is_new: bool
) -> OpenedRun | SlotsTaken | InvalidTransition:
    """Claim a run for the bot `by`, and create it first if it does not exist; return what `Runs.claim` does.

    The definition and the steps of one that exists have to be read. Raise NotFound if it exists and has to be new,
    or what `RunOpener.open_run` does.
    """
    check_texts((opening.run_id, opening.workflow), "opening of a run")
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
    """Return the definition with which a run is created; openings of one workflow share the look-up."""
    given = opening.definition
    key = (bot_id, opening.workflow) if given is None else ("", given.id)
    if key not in unit.definitions:
        if given is None:
            rows = await unit.connection.fetch(_MEANT, opening.workflow, bot_id)
            unit.definitions[key] = (definition_record(rows[0]) if rows else None, [])
        else:
            unit.definitions[key] = await find_stored(unit.connection, given.id)
    return counting(opening, *unit.definitions[key])
