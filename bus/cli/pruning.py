"""The command `prune`: deleting runs that have ended, with their steps.

Owns which runs are chosen. Each is deleted by a call of its own, so a command that is interrupted has deleted some
of them, and can be repeated.
"""

from __future__ import annotations

from collections import Counter
from itertools import count

import anyio
import msgspec
import rich_click as click

from ..bot import Bot
from ..errors import Conflict
from ..errors.words import amount
from ..model.filters import RunFilter
from ..model.records import RunStatus, RunSummary
from .checking import progress
from .completing import complete_workflows
from .confirming import asks_first, confirm, yes
from .console import show_json
from .ending import ask
from .finding import newest_runs
from .numbers import WholeNumber
from .options import Link, linked
from .streams import note, plain, say
from .times import TimeOption

__all__ = ["prune"]

_ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)

_DELETIONS_AT_ONCE = 32
"""Deletions that are asked for at a time: they share a transaction, and leave the worker room for others."""


class _Chosen(msgspec.Struct, frozen=True):
    """Which runs to delete."""

    workflow: str | None
    statuses: tuple[RunStatus, ...]
    ended_before: str | None
    keep: int

    async def find(self, bot: Bot) -> list[RunSummary]:
        """Return the runs, those that ended first before the others."""
        found: list[RunSummary] = []
        for status in self.statuses:
            found += await newest_runs(bot.workflows, RunFilter(status=status, workflow=self.workflow), None)
        found.sort(key=lambda run: (_ended_at(run), run.id), reverse=True)
        newer: Counter[str] = Counter()
        chosen: list[RunSummary] = []
        for run in found:
            newer[run.workflow_id] += 1
            old = self.ended_before is None or _ended_at(run) < self.ended_before
            if old and newer[run.workflow_id] > self.keep:
                chosen.append(run)
        return chosen[::-1]


def _ended_at(run: RunSummary) -> str:
    return run.completed_at or run.started_at


@click.command()
@click.option("--older-than", metavar="SPAN", type=TimeOption(), help="Runs that ended longer ago: 12h, 30d.")
@click.option("--keep", type=WholeNumber(0), metavar="N", help="Of each workflow, all but the newest N.")
@click.option(
    "--workflow",
    metavar="NAME",
    shell_complete=complete_workflows,
    help="Only runs of this workflow, by name or id.",
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in _ENDED]),
    metavar="STATUS",
    multiple=True,
    help="Only runs with this status: completed, failed or cancelled; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Only say which runs they are.")
@yes
@linked("console")
def prune(
    link: Link,
    older_than: str | None,
    keep: int | None,
    workflow: str | None,
    statuses: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete runs that were completed, failed or cancelled, with all their steps.

    Say which by --older-than, --keep or both; `--keep 0` means all. With --status, the newest are counted among the
    runs with that status. Runs that have not ended are never deleted.

    A deleted run cannot be looked at, retried or forked any more. If the message that began it is delivered again,
    as by `posthouse dead-letters retry`, it begins a new run.
    """
    if older_than is None and keep is None:
        raise click.UsageError("say which runs: --older-than SPAN, --keep N, or both (--keep 0: all that ended)")
    asks = asks_first(consented=yes or dry_run)
    wanted = tuple(map(RunStatus, statuses)) or _ENDED
    found = ask(link, _Chosen(workflow, wanted, older_than, keep or 0).find)
    if found and asks:
        confirm(f"Delete {amount(len(found), 'run')}?", list(map(_shown, found)))
    refused = [] if dry_run else ask(link, lambda bot: _delete(bot, found))
    if link.as_json:
        show_json({"runs": [run.id for run in found], "deleted": 0 if dry_run else len(found) - len(refused)})
        return
    if dry_run:
        for run in found:
            say(_shown(run))
        say(f"{amount(len(found), 'run')} would be deleted")
        return
    for text in refused:
        note(text)
    say(f"{amount(len(found) - len(refused), 'run')} deleted")


def _shown(run: RunSummary) -> str:
    return plain(f"run {run.id} of {run.workflow_name} is {run.status} since {_ended_at(run)}")


async def _delete(bot: Bot, runs: list[RunSummary]) -> list[str]:
    """Delete runs, and return why some were not: they go on again meanwhile."""
    refused: list[str] = []
    left = iter(runs)
    ended = count(1)
    with progress() as tell:

        async def work() -> None:
            for run in left:
                try:
                    await bot.workflows.delete_run(run.id)
                except Conflict as error:
                    refused.append(error.message)
                tell(("deleting runs", next(ended), len(runs)))

        async with anyio.create_task_group() as tasks:
            for _ in range(_DELETIONS_AT_ONCE):
                tasks.start_soon(work)
    return refused
