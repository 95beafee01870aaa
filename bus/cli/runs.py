"""The commands `runs`, `run`, `cancel`, `pause` and `resume`: viewing and controlling executions of workflows.

Owns what a person may do to a run, and the wording of refusals. A person writes without a fence: the run's holder
learns of it at its next write.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import msgspec
import rich_click as click

from ..bot import DEFAULT_TAP_URL, Bot
from ..errors import InvalidTransition
from ..model.filters import RunFilter
from ..model.records import RunStatus, RunSummary, WorkflowRun
from .completing import complete_runs, complete_workflows
from .console import show_json, show_rows
from .ending import Impossible, ask, run, until_signal
from .finding import asking_of, bot_names, find_run, newest_runs
from .following import follow, read_view
from .numbers import WholeNumber
from .options import Link, WithText, address_of, asking, linked, shown
from .run_events import watch_runs
from .run_view import RunView, hint, run_rows, show_run
from .streams import EXIT_REFUSED, EXIT_SIGNAL, note, plain, say
from .times import TimeOption

__all__ = ["cancel", "pause", "resume", "runs", "show_one"]

_RUN_COLUMNS = ("run", "workflow", "status", "holder", "started", "took", "error")

_RESUMABLE = (RunStatus.CRASHED, RunStatus.PAUSED)

_run_id = click.argument("run_id", metavar="RUN", callback=shown, shell_complete=complete_runs)

_reason = click.option("--reason", metavar="TEXT", help="The reason, stored as the run's error after your name.")


def _attributes(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    for each in given:
        if not all(each.partition("=")):
            raise click.BadParameter(f"{each!r} is not NAME=VALUE")
    return dict(each.split("=", 1) for each in given)


# ── Viewing ──────────────────────────────────────────────────────────────────────────────────────────────


@click.command()
@click.option(
    "--status",
    type=click.Choice([status.value for status in RunStatus]),
    metavar="STATUS",
    help=f"Only runs with this status: {', '.join(status.value for status in RunStatus)}.",
)
@click.option(
    "--workflow",
    metavar="NAME",
    shell_complete=complete_workflows,
    help="Only runs of this workflow, by name or id.",
)
@click.option("--key", metavar="KEY", help="Only runs with this concurrency key.")
@click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_attributes,
    help="Only runs with this attribute; may be repeated.",
)
@click.option(
    "--since", type=TimeOption(), help="Only runs that started then or later: 1h for an hour ago, or a time."
)
@click.option("--until", type=TimeOption(), help="Only runs that started before.")
@click.option(
    "--limit",
    type=WholeNumber(),
    metavar="N",
    default=50,
    show_default=True,
    help="The maximum number to show.",
)
@click.option("--watch", is_flag=True, help="Print what happens to runs from now on, until Ctrl-C.")
@click.option(
    "--tap",
    metavar="ADDRESS",
    callback=address_of,
    help=f"For --watch: the worker's tap; by default that of the credentials, or {DEFAULT_TAP_URL}.",
)
@asking
def runs(
    link: Link, limit: int, status: str | None, key: str | None, watch: bool, tap: str | None, **wanted: Any
) -> None:
    """List the runs of workflows, the newest first.

    `--status crashed` lists those that lost their holder, `--status running` those being executed. A paused run
    waits for a person (`posthouse approvals` shows the question) or for something else, or it was paused by a
    person or an error: then it has an error. Only the first line of that is shown; `posthouse run RUN` shows all
    of it, and the steps.

    With `--watch` each event of a run is a line: created, started, waits, paused, failed, crashed, completed,
    cancelled, or what its program emits. They come from the channel `posthouse.runs`, which is private with keys:
    there the worker needs `events = true` in `[workflows]`, and you the right to read that channel. Exits with 0
    after Ctrl-C.
    """
    where = RunFilter(status=None if status is None else RunStatus(status), concurrency_key=key, **wanted)
    if watch:
        _watch_all(link, where, tap)
        return

    async def listed(bot: Bot) -> tuple[list[RunSummary], dict[str, str], set[str]]:
        found = await newest_runs(bot.workflows, where, limit)
        asking = set() if link.as_json else await asking_of(bot.workflows, found)
        return found, await bot_names(bot, [each.holder for each in found]), asking

    found, names, asking = ask(link, listed)
    if link.as_json:
        show_json([msgspec.to_builtins(each) | {"holder_name": names.get(each.holder or "")} for each in found])
        return
    show_rows(_RUN_COLUMNS, run_rows(found, names, asking), nothing="no runs")


def _watch_all(link: Link, where: RunFilter, tap: str | None) -> None:
    if where.since or where.until:
        raise click.UsageError("--watch tells what happens from now on, without --since and --until")
    number = run(lambda: until_signal(lambda: watch_runs(link, where, tap)))
    if number not in (None, signal.SIGINT):
        sys.exit(EXIT_SIGNAL + number)


@click.command("run", cls=WithText)
@_run_id
@click.option("--watch", is_flag=True, help="Follow it until it ends, or until Ctrl-C.")
@asking
def show_one(link: Link, run_id: str, watch: bool) -> None:
    """Show a run: its status, who holds it, and its steps.

    RUN is its id, or the beginning of it if that is unambiguous. `--json` includes
    everything, even contexts, inputs and outputs.

    With `--watch` the view is redrawn on a terminal; otherwise each change is a line, or with `--json` an object
    with a `run` or a `step`. A crashed run is still followed: it may be resumed. Exits with 0 when the run
    completed, 1 when it failed or was cancelled, 130 after Ctrl-C.
    """
    if watch:
        _watch(link, run_id)
        return

    async def read(bot: Bot) -> RunView:
        return await read_view(bot, await find_run(bot.workflows, run_id))

    view = ask(link, read)
    if link.as_json:
        show_json(view.value())
        return
    show_run(view)
    if text := hint(view):
        note(text)


def _watch(link: Link, run_id: str) -> None:
    ended: list[RunStatus] = []

    async def followed() -> None:
        ended.append(await follow(link, run_id))

    number = run(lambda: until_signal(followed))
    if number is not None:
        sys.exit(EXIT_SIGNAL + number)
    if ended != [RunStatus.COMPLETED]:
        sys.exit(EXIT_REFUSED)


# ── Changing ─────────────────────────────────────────────────────────────────────────────────────────────


@click.command(cls=WithText)
@_run_id
@_reason
@click.option("--now", is_flag=True, help="Do not let its program clean up.")
@linked("console")
def cancel(link: Link, run_id: str, reason: str | None, now: bool) -> None:
    """End a run for good, and the runs that it started.

    If a program has begun to execute it, the program is told, and may clean up: the run is cancelled when it has,
    or when its time is over (a minute, unless the worker is configured otherwise). With `--now`, or if no program
    can clean up, it is cancelled at once. Completed steps are not undone by themselves.
    """

    async def cancelled(bot: Bot) -> tuple[WorkflowRun, WorkflowRun]:
        before = await find_run(bot.workflows, run_id)
        if before.status == RunStatus.CANCELLED:
            raise Impossible(f"run {before.id} is already cancelled")
        text = _reason_text("cancelled", link, reason)
        try:
            return before, await bot.workflows.cancel_run(before.id, text, 0 if now else None)
        except InvalidTransition as refusal:
            raise Impossible(_not_possible(refusal, RunStatus.CANCELLED)) from None

    before, after = ask(link, cancelled)
    if after.status == RunStatus.CANCELLED or link.as_json:
        _show_moved(link, before, after, "it has ended, and no bot goes on with it")
    else:
        say(plain(f"run {after.id} is to be cancelled: its program may clean up until {after.cancel_by}"))


@click.command(cls=WithText)
@_run_id
@_reason
@linked("console")
def pause(link: Link, run_id: str, reason: str | None) -> None:
    """Pause a run, whoever holds it, until `posthouse resume`.

    The bot is not stopped at once: it learns of it at its next write, or when it renews its lease. No bot can claim
    the run before it is resumed; a bot that opens it waits until then.
    """
    error = _reason_text("paused", link, reason)
    _move(link, run_id, RunStatus.PAUSED, error, f"'posthouse resume {run_id}' lets it go on")


@click.command(cls=WithText)
@_run_id
@_reason
@linked("console")
def resume(link: Link, run_id: str, reason: str | None) -> None:
    """Let a crashed or paused run continue after its last completed step.

    It becomes pending, and continues when a bot claims it; a bot that executes this workflow has to be running. The
    count of lost holders is reset, so that it may be claimed again, and its error is cleared.
    """
    error = None if reason is None else _reason_text("resumed", link, reason)
    _move(link, run_id, RunStatus.PENDING, error, "it goes on when a bot claims it")


def _reason_text(what: str, link: Link, reason: str | None) -> str:
    return f"{what} by {link.name}" + ("" if reason is None else f": {reason}")


def _move(link: Link, given: str, status: RunStatus, error: str | None, meaning: str) -> None:
    async def moved(bot: Bot) -> tuple[WorkflowRun, WorkflowRun]:
        before = await find_run(bot.workflows, given)
        if status == RunStatus.PENDING and before.status not in _RESUMABLE:
            raise Impossible(await _not_resumable(bot, before))
        try:
            return before, await bot.workflows.update_run_status(before.id, status, error)
        except InvalidTransition as refusal:
            raise Impossible(_not_possible(refusal, status)) from None

    _show_moved(link, *ask(link, moved), meaning)


def _show_moved(link: Link, before: WorkflowRun, after: WorkflowRun, meaning: str) -> None:
    if link.as_json:
        show_json(after)
    else:
        was = f"was {before.status} and " if before.status != after.status else ""
        say(plain(f"run {after.id} {was}is {after.status}: {meaning}"))


def _not_possible(refusal: InvalidTransition, wanted: RunStatus) -> str:
    if refusal.current == wanted:
        return f"run {refusal.key} is already {wanted}"
    if refusal.current in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
        return f"run {refusal.key} is {refusal.current}: it has ended, and cannot become {wanted} any more"
    return f"run {refusal.key} is {refusal.current}, and cannot become {wanted} from there"


async def _not_resumable(bot: Bot, before: WorkflowRun) -> str:
    if before.status == RunStatus.PENDING:
        return f"run {before.id} is already pending: it goes on when a bot claims it"
    if before.status == RunStatus.FAILED:
        return f"run {before.id} is failed: 'posthouse retry {before.id}' lets it go on"
    if before.status != RunStatus.RUNNING:
        return f"run {before.id} is {before.status}: it has ended, and cannot be resumed; start a new one"
    lease = await bot.workflows.get_lease(before.id)
    if lease is None:
        return f"run {before.id} is running without a holder: any bot may claim it, and it need not be resumed"
    holder = (await bot_names(bot, [lease.holder])).get(lease.holder, lease.holder)
    return (
        f"run {before.id} is running, held by {holder} under a lease until {lease.expires_at}: it need not be"
        " resumed, and any bot may claim it once that has expired"
    )
