"""Opening a run in one transaction: it is found or created, and claimed."""

from __future__ import annotations

import aiosqlite

from bus.errors import InvalidTransition, NotFound, SlotsTaken
from bus.model.checked import new_run
from bus.model.leases import Claimant, HeldRun, HoldState
from bus.model.openings import OpenedRun, RunOpening, check_known, counting, run_of
from bus.model.records import WorkflowDefinition
from bus.model.values import check_texts

from .definitions import definition_record, find_stored
from .runs import Runs

__all__ = ["enter"]

# The bot's own one, a global one, or one with that id. The expressions are those of idx_workflows_owner.
_MEANT = """
    SELECT id, definition, 0 AS place FROM workflows
    WHERE name = ?1 AND owner_type = 'bot' AND COALESCE(owner_bot_id, '') = ?2
    UNION ALL SELECT id, definition, 1 FROM workflows
    WHERE name = ?1 AND owner_type = 'global' AND COALESCE(owner_bot_id, '') = ''
    UNION ALL SELECT id, definition, 2 FROM workflows WHERE id = ?1
    ORDER BY place LIMIT 1"""

_OF_RUN = "SELECT workflow_id, definition FROM workflow_runs WHERE id = ? AND definition IS NOT NULL"


async def enter(
    runs: Runs,
    connection: aiosqlite.Connection,
    opening: RunOpening,
    claimant: Claimant,
    *,
    by: str | None,
    is_new: bool,
) -> OpenedRun | SlotsTaken | InvalidTransition:
    """Claim a run for the bot `by`, and create it first if it does not exist; return what `Runs.claim` does.

    Raise NotFound if it exists and has to be new, or what `RunOpener.open_run` does.
    """
    check_texts((opening.run_id, opening.workflow), "opening of a run")
    held = await runs.look_up(connection, opening.run_id)
    created = held is None
    if held is not None:
        if is_new:
            raise NotFound("new run", opening.run_id)
        check_known(held.run, opening.workflow, opening.input)
        definition = await _definition(connection, _OF_RUN, (opening.run_id,))
    else:
        definition = await _meant(connection, opening, claimant.holder)
        new = new_run(run_of(opening, definition, claimant.wall))
        runs.check_size(new.run, f"run {new.run.id!r}")
        await runs.insert(connection, new, by)
        held = HeldRun(new.run, HoldState())
    claimed = await runs.claim_found(connection, held, claimant)
    if isinstance(claimed, SlotsTaken | InvalidTransition):
        return claimed
    return OpenedRun(claim=claimed, definition=definition, created=created)


async def _meant(connection: aiosqlite.Connection, opening: RunOpening, bot_id: str) -> WorkflowDefinition:
    given = opening.definition
    if given is not None:
        return counting(opening, *await find_stored(connection, given.id))
    return counting(opening, await _definition(connection, _MEANT, (opening.workflow, bot_id)))


async def _definition(
    connection: aiosqlite.Connection, sql: str, values: tuple[str, ...]
) -> WorkflowDefinition | None:
    rows = await connection.execute_fetchall(sql, values)
    return next((definition_record(row) for row in rows), None)
