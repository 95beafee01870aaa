"""The commands `retry` and `fork`: letting runs that stopped go on, one or many, and beginning anew from a step.

Owns which runs a search means, and that the message which began a run is delivered again.
"""

from __future__ import annotations

import sys

import msgspec
import rich_click as click

from ..bot import Bot
from ..client.ids import chosen_id
from ..errors import Conflict, Forbidden, InvalidTransition, NotFound, RequestError
from ..model.filters import RunFilter
from ..model.records import RunStatus, RunSummary, WorkflowRun
from .completing import complete_runs, complete_workflows
from .console import show_json
from .ending import Impossible, ask
from .finding import find_run, newest_runs
from .options import Link, WithText, linked, not_empty, shown
from .streams import EXIT_REFUSED, plain, say, show_error
from .times import TimeOption

__all__ = ["fork", "retry", "revive"]

_STOPPED = (RunStatus.FAILED, RunStatus.CRASHED, RunStatus.PAUSED)

_SEARCHED_MAX = 20_000
"""How many of the newest runs of each status a search considers."""


class _Search(msgspec.Struct, frozen=True):
    """Which runs to retry; None stands for any."""

    workflow: str | None
    status: str | None
    error: str | None
    since: str | None
    until: str | None

    @property
    def is_empty(self) -> bool:
        return all(value is None for value in msgspec.structs.astuple(self))

    def means(self, run: RunSummary) -> bool:
        """Return True for a run that stopped because of an error, and that is searched for."""
        if run.stopped or (run.status == RunStatus.PAUSED and run.error is None):
            return False
        return self.error is None or self.error in (run.error or "")

    async def find(self, bot: Bot) -> list[RunSummary]:
        """Return the runs, oldest first."""
        found: list[RunSummary] = []
        for status in _STOPPED if self.status is None else (RunStatus(self.status),):
            where = RunFilter(status=status, workflow=self.workflow, since=self.since, until=self.until)
            found += await newest_runs(bot.workflows, where, _SEARCHED_MAX)
        return sorted(filter(self.means, found), key=lambda run: (run.started_at, run.id))


def _all_shown(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(shown(context, parameter, each) or each for each in given)


@click.command(cls=WithText)
@click.argument(
    "run_ids",
    metavar="[RUN]...",
    nargs=-1,
    callback=_all_shown,
    shell_complete=complete_runs,
)
@click.option("--from", "from_step", metavar="STEP", help="Carry out this step again, and all that began after it.")
@click.option(
    "--workflow",
    metavar="NAME",
    shell_complete=complete_workflows,
    help="All runs of this workflow that stopped, by name or id.",
)
@click.option(
    "--status",
    type=click.Choice([each.value for each in _STOPPED]),
    metavar="STATUS",
    help="All that have this status: failed, crashed or paused.",
)
@click.option("--error", metavar="TEXT", help="All whose error contains this text.")
@click.option("--since", type=TimeOption(), help="All that started at this time or later.")
@click.option("--until", type=TimeOption(), help="All that started before this time.")
@click.option("--dry-run", is_flag=True, help="Only list them.")
@linked("console")
def retry(
    link: Link,
    run_ids: tuple[str, ...],
    from_step: str | None,
    dry_run: bool,
    **search: str | None,
) -> None:
    """Let runs go on that failed, crashed, or were paused by an error.

    Give RUN, once or more, or what is common to the runs. Completed steps are kept, and the failed attempts of the
    steps that ended a run are set aside. Runs that a person paused are not among those found by a search.

    A run becomes pending. If the message that began it is a dead letter, it is delivered again; otherwise the run
    goes on when a bot opens it. Exits with 1 if one of the runs cannot be retried, and says which and why; the
    others are.
    """
    wanted = _Search(**search)
    if bool(run_ids) != wanted.is_empty:
        raise click.UsageError("give either RUN, once or more, or options that say which runs")

    refused: list[str] = []

    async def retried(bot: Bot) -> list[WorkflowRun | RunSummary]:
        found: list[WorkflowRun | RunSummary] = []
        for run in run_ids or await wanted.find(bot):
            try:
                known = await find_run(bot.workflows, run) if isinstance(run, str) else run
                found.append(known if dry_run else await _retry(bot, known.id, from_step))
            except Forbidden:
                raise
            except (Impossible, RequestError) as error:
                refused.append(str(error))
        return found

    found = ask(link, retried)
    if link.as_json and (found or not refused):
        show_json(found)
    for run in found if not link.as_json else ():
        text = f"{run.status}: {run.error}" if dry_run else "is pending: it goes on when a bot opens it"
        say(plain(f"run {run.id} {text}"))
    for text in refused:
        show_error(text)
    if refused:
        sys.exit(EXIT_REFUSED)
    if not (found or link.as_json):
        say("no such runs")


async def _retry(bot: Bot, run_id: str, from_step: str | None) -> WorkflowRun:
    try:
        run = await bot.workflows.retry_run(run_id, from_step)
    except InvalidTransition as refusal:
        hint = "'posthouse fork' begins a new one with its steps"
        raise Impossible(f"run {run_id} is {refusal.current}: it has ended, and is not retried; {hint}") from None
    except NotFound as error:
        raise Impossible(f"run {run_id} has {error.message}") from None
    await revive(bot, run_id)
    return run


async def revive(bot: Bot, message_id: str) -> None:
    """Put the message that began a run back where it is a dead letter."""
    try:
        found = await bot.find(message_id)
    except RequestError:  # no message has this id, or none can
        return
    message = found.message
    for fate in found.mailboxes:
        if fate.state == "dead" and message.seq is not None:
            name = fate.bot or f"{message.recipient.get('name')}/{fate.group}"
            await bot.retry_dead_letters([message.seq], bot=name)


@click.command(cls=WithText)
@click.argument("run_id", metavar="RUN", callback=shown, shell_complete=complete_runs)
@click.option("--before", "before_step", metavar="STEP", help="Take over only what began before this step.")
@click.option(
    "--id", "new_id", metavar="ID", callback=not_empty, help="The id of the new run; by default a new UUID."
)
@linked("console")
def fork(link: Link, run_id: str, before_step: str | None, new_id: str | None) -> None:
    """Create a run that begins with the recorded steps of RUN, whatever became of that.

    Without --before it has all steps but those that ended RUN. It is pending, and goes on when a bot opens it.
    """
    id = chosen_id(new_id)

    async def forked(bot: Bot) -> tuple[WorkflowRun, WorkflowRun]:
        run = await find_run(bot.workflows, run_id)
        try:
            return run, await bot.workflows.fork_run(run.id, id, before_step)
        except NotFound as error:
            raise Impossible(f"run {run.id} has {error.message}") from None
        except Conflict as error:
            raise Impossible(error.message) from None

    before, run = ask(link, forked)
    if link.as_json:
        show_json(run)
    else:
        say(plain(f"run {run.id} begins with the steps of {before.id}: it goes on when a bot opens it"))
