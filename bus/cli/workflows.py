"""The command `posthouse workflows`: listing the worker's definitions, and saving one from a file.

Owns reading the file before the worker is asked. The worker checks whether a definition can be executed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, BinaryIO

import msgspec
import rich_click as click

from ..bot import Bot
from ..errors.words import amount
from ..model.filters import RunCounts
from ..model.records import WorkflowDefinition
from ..wire.refusals import refusal
from .completing import complete_workflows
from .console import show_facts, show_json, show_rows
from .ending import ask
from .finding import find_workflow, owner_name, owner_names
from .listing import list_alone
from .options import Link, WithText, asking, decoded, linked, shown
from .streams import note, plain, say, stream_fault

__all__ = ["workflows"]


@click.group("workflows", invoke_without_command=True)
@asking
@click.pass_context
def workflows(context: click.Context, link: Link) -> None:
    """List workflows, save one, show one, or remove one.

    Without a subcommand: name, owner, version and steps of all, and how many of their runs have which status.
    `posthouse runs --workflow NAME` lists a workflow's runs.
    """
    list_alone(context, _list, link)


def _list(link: Link) -> None:
    async def listed(bot: Bot) -> tuple[list[WorkflowDefinition], RunCounts, dict[str, str]]:
        found = await bot.workflows.list_definitions()
        return found, await bot.workflows.count_runs(), await owner_names(bot, [each.owner for each in found])

    found, counted, names = ask(link, listed)
    counts = {each.id: Counter[str]() for each in found}
    for count in counted.counts:
        counts.setdefault(count.workflow_id, Counter())[count.status] += count.runs
    if link.as_json:
        show_json([_value(each, names) | {"runs": counts[each.id]} for each in found])
        return
    rows = [
        (
            each.name,
            owner_name(each.owner, names),
            each.version,
            len(each.steps),
            ", ".join(f"{count:,} {status}" for status, count in sorted(counts[each.id].items())),
            each.id,
        )
        for each in found
    ]
    show_rows(("workflow", "owner", "version", "steps", "runs", "id"), rows, nothing="no workflows")
    if counted.more:
        note(f"only the newest {sum(count.runs for count in counted.counts):,} runs were counted")


def _value(definition: WorkflowDefinition, names: dict[str, str]) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(definition)
    return value | {"owner_name": owner_name(definition.owner, names)}


@workflows.command("save")
@click.argument("file", type=click.File("rb"))
@linked("console")
def save(link: Link, file: BinaryIO) -> None:
    """Save the workflow described in FILE as JSON; `-` reads standard input.

    It replaces the workflow with the same id. Runs created before keep the definition that they began with. The
    minimum is {"id": ..., "name": ..., "owner": {"type": "global"}, "steps": [...]}. The output of `posthouse
    workflows show NAME --json` can be saved again.
    """
    definition = _read_definition(file)

    async def saved(bot: Bot) -> WorkflowDefinition | None:
        before = await bot.workflows.get_definition(definition.id)
        await bot.workflows.save_definition(definition)
        return before

    before = ask(link, saved)
    if link.as_json:
        show_json({"id": definition.id, "name": definition.name, "replaced": before is not None})
        return
    steps = amount(len(definition.steps), "step")
    replaced = "" if before is None else f", in place of version {before.version}"
    saved_as = f"workflow {definition.name} is saved, version {definition.version}"
    say(plain(f"{saved_as} with {steps}{replaced}"))


def _read_definition(file: BinaryIO) -> WorkflowDefinition:
    try:
        text = decoded(file.read(), "the file")
    except OSError as error:
        raise click.BadParameter(f"it cannot be read: {stream_fault(error)}", param_hint="'FILE'") from error
    try:
        return msgspec.json.decode(text.encode(), type=WorkflowDefinition)
    except (msgspec.DecodeError, RecursionError) as error:
        fault = refusal(error) if isinstance(error, msgspec.ValidationError) else str(error)
        raise click.BadParameter(f"not a valid workflow: {fault}", param_hint="'FILE'") from error


_workflow = click.argument("workflow", metavar="NAME|ID", callback=shown, shell_complete=complete_workflows)


@workflows.command("remove", cls=WithText)
@_workflow
@linked("console")
def remove(link: Link, workflow: str) -> None:
    """Delete a workflow, by name or id, which has no runs and no schedules.

    `posthouse prune --workflow NAME --keep 0` deletes its runs that have ended, and `posthouse schedules remove` a
    schedule. A program that executes it saves it again. It is refused, and exits with 1, while there are any.
    """

    async def removed(bot: Bot) -> WorkflowDefinition:
        definition = await find_workflow(bot, workflow)
        await bot.workflows.delete_definition(definition.id)
        return definition

    definition = ask(link, removed)
    if link.as_json:
        show_json({"id": definition.id, "deleted": True})
    else:
        say(plain(f"workflow {definition.name} is deleted"))


@workflows.command("show", cls=WithText)
@_workflow
@asking
def show(link: Link, workflow: str) -> None:
    """Show a workflow, by name or id, and its steps. `--json` prints all of it, as it was saved."""

    async def found(bot: Bot) -> tuple[WorkflowDefinition, dict[str, str]]:
        definition = await find_workflow(bot, workflow)
        return definition, await owner_names(bot, [definition.owner])

    definition, names = ask(link, found)
    if link.as_json:
        show_json(definition)
        return
    triggers = ", ".join(str(msgspec.to_builtins(each)["type"]) for each in definition.triggers)
    timeout, concurrency = definition.timeout_secs, definition.concurrency
    show_facts(
        {
            "workflow": definition.name,
            "id": definition.id,
            "owner": owner_name(definition.owner, names),
            "version": definition.version,
            "about": definition.description or "",
            "triggers": triggers,
            "at once": "" if concurrency is None else f"{amount(concurrency, 'run')} at most",
            "timeout": "" if timeout is None else f"{timeout} s",
        }
    )
    say()
    rows = [
        (each.id, each.type.value, ", ".join(each.depends_on), each.condition or "", each.name)
        for each in definition.steps
    ]
    show_rows(("step", "type", "after", "condition", "name"), rows, nothing="no steps")
