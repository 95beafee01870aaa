"""Finding what people name: a run by its id or the beginning of it, a workflow by name or id, a bot by id.

Owns the limits of the search, and says so if nothing is found: only the newest runs are searched by prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..bot import Bot
from ..model.records import GlobalOwner, Owner, RunStatus, RunSummary, WorkflowDefinition, WorkflowRun
from ..model.repository import WorkflowRepository
from .ending import Impossible

__all__ = [
    "NEWEST_RUNS",
    "bot_names",
    "check_workflow",
    "ended_runs",
    "find_run",
    "find_summary",
    "find_workflow",
    "newest_runs",
    "owner_name",
]

NEWEST_RUNS = 1000
"""How many of the newest runs are searched for an id's prefix; also the limit of one answer."""

_RUNS_SEARCHED_MAX = 20_000
"""How many of the newest runs are searched for those of one workflow."""

_NAMED_MAX = 5


async def bot_names(bot: Bot) -> dict[str, str]:
    """Return the names of all bots by id."""
    return {each.id: each.name for each in await bot.bots()}


def owner_name(owner: Owner, names: dict[str, str]) -> str:
    """Return the name of a definition's owner, or the owner's id if the name is gone."""
    return "global" if isinstance(owner, GlobalOwner) else names.get(owner.bot_id, owner.slug or owner.bot_id)


async def find_run(workflows: WorkflowRepository, given: str) -> WorkflowRun:
    """Return the run with this id, or whose id begins with it. Raise Impossible for none, or several."""
    run = await workflows.get_run(given)
    if run is not None:
        return run
    newest = await workflows.list_all_runs(limit=NEWEST_RUNS)
    found = [each.id for each in newest if each.id.startswith(given)]
    if len(found) > 1:
        raise Impossible(f"{len(found)} run ids begin with {given!r}: {_some(found)}; give more of the id")
    run = await workflows.get_run(found[0]) if found else None
    if run is None:
        raise Impossible(
            f"no run {given!r}, and none of the newest {NEWEST_RUNS:,} begins with it; 'posthouse runs' lists them"
        )
    return run


async def find_summary(workflows: WorkflowRepository, run: WorkflowRun) -> RunSummary | None:
    """Return the summary of a run if it is one of the newest with its status."""
    newest = await workflows.list_all_runs(run.status, NEWEST_RUNS)
    return next((each for each in newest if each.id == run.id), None)


async def newest_runs(
    workflows: WorkflowRepository, *, status: RunStatus | None, workflow: str | None, limit: int
) -> list[RunSummary]:
    """List the newest runs, of one workflow by name or id, or of all.

    Raises Impossible if the workflow does not exist.
    """
    if workflow is not None:
        await check_workflow(workflows, workflow)
    found: dict[str, RunSummary] = {}
    searched = 0
    while len(found) < limit and searched < _RUNS_SEARCHED_MAX:
        wanted = min(NEWEST_RUNS, limit - len(found)) if workflow is None else NEWEST_RUNS
        page = await workflows.list_all_runs(status, wanted, offset=searched)
        # A run that begins between two pages shifts the second, so another run may come twice.
        found |= {run.id: run for run in page if workflow in (None, run.workflow_name, run.workflow_id)}
        searched += len(page)
        if len(page) < wanted:
            break
    return list(found.values())[:limit]


async def ended_runs(workflows: WorkflowRepository, status: RunStatus, workflow: str | None) -> list[RunSummary]:
    """List all runs with a status, of one workflow by name or id, or of all."""
    found: dict[str, RunSummary] = {}
    read = 0
    while True:
        page = await workflows.list_all_runs(status, NEWEST_RUNS, offset=read)
        found |= {run.id: run for run in page if workflow in (None, run.workflow_name, run.workflow_id)}
        read += len(page)
        if len(page) < NEWEST_RUNS:
            return list(found.values())


async def check_workflow(workflows: WorkflowRepository, given: str) -> None:
    """Raise Impossible if no workflow has this name or id."""
    definitions = await workflows.list_definitions()
    if not any(given in (each.name, each.id) for each in definitions):
        raise Impossible(_no_workflow(given, [each.name for each in definitions]))


async def find_workflow(
    workflows: WorkflowRepository, given: str, owned_by: Callable[[WorkflowDefinition], str]
) -> WorkflowDefinition:
    """Return the definition with this id, or else with this name. Raise Impossible if there is none, or several."""
    definition = await workflows.get_definition(given)
    if definition is not None:
        return definition
    definitions = await workflows.list_definitions()
    found = [each for each in definitions if each.name == given]
    if not found:
        raise Impossible(_no_workflow(given, [each.name for each in definitions]))
    if len(found) > 1:
        ids = _some([f"{each.id} ({owned_by(each)})" for each in found])
        raise Impossible(f"{len(found)} workflows are named {given!r}; use an id: {ids}")
    return found[0]


def _no_workflow(given: str, names: Sequence[str]) -> str:
    known = f"known are {_some(sorted(set(names)))}" if names else "there are no workflows"
    return f"no workflow has the name or id {given!r}; {known}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX:,} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
