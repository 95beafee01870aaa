"""Finding what people name: a run by its id or the beginning of it, a workflow by name or id, a bot by id.

Owns the wording of what is found nowhere, or several times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anyio

from ..bot import Bot
from ..errors import NotFound
from ..model.filters import RunFilter
from ..model.records import BotOwner, GlobalOwner, Owner, RunSummary, WorkflowDefinition, WorkflowRun
from ..model.repository import WorkflowRepository
from ..wire.frames import is_id
from ..wire.limits import ANSWER_ITEMS_MAX
from .ending import Impossible

__all__ = [
    "asking_of",
    "bot_names",
    "find_run",
    "find_summary",
    "find_workflow",
    "newest_runs",
    "owner_name",
    "owner_names",
]

_RUNS_A_LIST = 1000
"""Runs in one answer."""

_LOOKS_AT_ONCE = 100
"""Runs of each of which something is asked."""

_NAMED_MAX = 5


async def bot_names(bot: Bot, ids: Iterable[str | None]) -> dict[str, str]:
    """Return the names of these bots by id, without those that are gone. Nothing is read of other bots."""
    wanted = sorted({id for id in ids if id is not None and is_id(id)})
    found: dict[str, str] = {}
    for start in range(0, len(wanted), ANSWER_ITEMS_MAX):
        bots = await bot.bots(only=wanted[start : start + ANSWER_ITEMS_MAX])
        found.update({each.id: each.name for each in bots})
    return found


async def owner_names(bot: Bot, owners: Iterable[Owner]) -> dict[str, str]:
    """Return the names of the bots that are owners of definitions, by id."""
    return await bot_names(bot, [each.bot_id for each in owners if isinstance(each, BotOwner)])


def owner_name(owner: Owner, names: dict[str, str]) -> str:
    """Return the name of a definition's owner, or the owner's id if the name is gone."""
    return "global" if isinstance(owner, GlobalOwner) else names.get(owner.bot_id, owner.slug or owner.bot_id)


async def find_run(workflows: WorkflowRepository, given: str) -> WorkflowRun:
    """Return the run with this id, or whose id begins with it. Raise Impossible for none, or several."""
    run = await workflows.get_run(given)
    if run is not None:
        return run
    found = [each.id for each in await workflows.list_all_runs(limit=_RUNS_A_LIST, where=_with_id(given))]
    if len(found) > 1:
        raise Impossible(f"{len(found)} run ids begin with {given!r}: {_some(found)}; give more of the id")
    run = await workflows.get_run(found[0]) if found else None
    if run is None:
        raise Impossible(f"no run {given!r}, and none begins with it; 'posthouse runs' lists them")
    return run


async def find_summary(workflows: WorkflowRepository, run: WorkflowRun) -> RunSummary | None:
    """Return the summary of a run."""
    found = await workflows.list_all_runs(limit=_NAMED_MAX, where=_with_id(run.id))
    return next((each for each in found if each.id == run.id), None)


def _with_id(prefix: str) -> RunFilter:
    return RunFilter(id_prefix=prefix)


async def newest_runs(workflows: WorkflowRepository, where: RunFilter, limit: int | None) -> list[RunSummary]:
    """List the newest runs of a filter, at most `limit`. Raise Impossible if its workflow does not exist."""
    if where.workflow is not None:
        await _check_workflow(workflows, where.workflow)
    found: list[RunSummary] = []
    while limit is None or len(found) < limit:
        wanted = _RUNS_A_LIST if limit is None else min(_RUNS_A_LIST, limit - len(found))
        try:
            after = found[-1].id if found else None
            page = await workflows.list_all_runs(limit=wanted, where=where, after=after)
        except NotFound:  # that run was deleted in between
            found.pop()
            continue
        found += page
        if len(page) < wanted:
            break
    return found


async def asking_of(workflows: WorkflowRepository, runs: Sequence[RunSummary]) -> set[str]:
    """Return the ids of those of these runs that wait for a person. Nothing is read of other runs."""
    found: set[str] = set()

    async def look(run_id: str) -> None:
        if await workflows.list_waiting_approvals(run_id, limit=1):
            found.add(run_id)

    going_on = [run.id for run in runs if run.completed_at is None]
    for start in range(0, len(going_on), _LOOKS_AT_ONCE):
        async with anyio.create_task_group() as tasks:
            for run_id in going_on[start : start + _LOOKS_AT_ONCE]:
                tasks.start_soon(look, run_id)
    return found


async def _check_workflow(workflows: WorkflowRepository, given: str) -> None:
    """Raise Impossible if no workflow has this name or id."""
    definitions = await workflows.list_definitions()
    if not any(given in (each.name, each.id) for each in definitions):
        raise Impossible(_no_workflow(given, [each.name for each in definitions]))


async def find_workflow(bot: Bot, given: str) -> WorkflowDefinition:
    """Return the definition with this id, or else with this name. Raise Impossible if there is none, or several."""
    definition = await bot.workflows.get_definition(given)
    if definition is not None:
        return definition
    definitions = await bot.workflows.list_definitions()
    found = [each for each in definitions if each.name == given]
    if not found:
        raise Impossible(_no_workflow(given, [each.name for each in definitions]))
    if len(found) > 1:
        names = await owner_names(bot, [each.owner for each in found])
        ids = _some([f"{each.id} ({owner_name(each.owner, names)})" for each in found])
        raise Impossible(f"{len(found)} workflows are named {given!r}; use an id: {ids}")
    return found[0]


def _no_workflow(given: str, names: Sequence[str]) -> str:
    known = f"known are {_some(sorted(set(names)))}" if names else "there are no workflows"
    return f"no workflow has the name or id {given!r}; {known}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX:,} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
