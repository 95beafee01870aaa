"""The command `posthouse schedules`: which runs the clock starts, and when.

Owns the wording of a schedule on the command line. The worker knows when its times are.
"""

from __future__ import annotations

from typing import Any

import msgspec
import rich_click as click

from ..bot import Bot
from ..errors import NotFound
from ..model.occurrences import CronTimes, IntervalTimes
from ..model.schedules import CatchUp, Overlap, ScheduleStatus, WorkflowSchedule
from .completing import complete_bots, complete_schedules, complete_workflows
from .console import StatusText, Time, show_json, show_rows
from .ending import Impossible, ask
from .finding import find_workflow
from .listing import list_alone
from .numbers import WholeNumber, seconds
from .options import Link, WithText, asking, linked, shown
from .streams import plain, say

__all__ = ["schedules"]

_COLUMNS = ("schedule", "workflow", "times", "status", "next", "last", "fired", "skipped")

_schedule_id = click.argument("schedule_id", metavar="SCHEDULE", callback=shown, shell_complete=complete_schedules)


@click.group("schedules", invoke_without_command=True)
@asking
@click.pass_context
def schedules(context: click.Context, link: Link) -> None:
    """List, add, pause, resume and remove schedules, which start runs of workflows by the clock.

    Without a subcommand: the same as `schedules list`.
    """
    list_alone(context, _list, link, None)


@schedules.command("list")
@click.option(
    "--workflow",
    metavar="NAME",
    shell_complete=complete_workflows,
    help="Only schedules of this workflow, by name or id.",
)
@asking
def show_list(link: Link, workflow: str | None) -> None:
    """List schedules: their times, when they start a run next, and how often they did."""
    _list(link, workflow)


def _list(link: Link, workflow: str | None) -> None:
    async def listed(bot: Bot) -> tuple[list[ScheduleStatus], dict[str, str]]:
        wanted = None if workflow is None else await _workflow_id(bot, workflow)
        names = {each.id: each.name for each in await bot.workflows.list_definitions()}
        return await bot.workflows.list_schedules(wanted), names

    found, names = ask(link, listed)
    if link.as_json:
        show_json(found)
        return
    rows = [
        (
            each.id,
            names.get(each.schedule.workflow_id, each.schedule.workflow_id),
            _times(each.schedule),
            StatusText(_status(each)),
            Time(each.next_at or ""),
            Time(each.last_at or ""),
            each.fired,
            each.skipped,
        )
        for each in found
    ]
    show_rows(_COLUMNS, rows, nothing="no schedules")


def _times(schedule: WorkflowSchedule) -> str:
    times = schedule.times
    if isinstance(times, IntervalTimes):
        return f"every {times.seconds:g} s"
    return times.line if times.timezone == "UTC" else f"{times.line} {times.timezone}"


def _status(each: ScheduleStatus) -> str:
    if each.error is not None:
        return f"failed, {each.error}"
    if each.paused:
        return "paused"
    return "active" if each.queued_at is None else f"active, {each.queued_at} waits for {each.last_run_id}"


async def _workflow_id(bot: Bot, workflow: str) -> str:
    return (await find_workflow(bot, workflow)).id


def _input(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    try:
        return None if value is None else msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"it is not JSON: {error}") from None


@schedules.command("add", cls=WithText)
@_schedule_id
@click.argument("workflow", metavar="WORKFLOW", callback=shown, shell_complete=complete_workflows)
@click.option("--cron", metavar="LINE", help='Minute, hour, day, month and weekday: "30 8 * * MON-FRI".')
@click.option("--timezone", metavar="ZONE", help="Of the cron line, such as Europe/Berlin.  [default: UTC]")
@click.option("--every", metavar="SPAN", type=seconds, help="Every so often instead: 90s, 30m, 12h or 7d.")
@click.option("--input", metavar="JSON", callback=_input, help="The input of its runs.")
@click.option("--key", metavar="KEY", help="The concurrency key of its runs.")
@click.option(
    "--bot",
    metavar="NAME",
    shell_complete=complete_bots,
    help="Send this bot a message of type workflow.start about each run.",
)
@click.option(
    "--catch-up",
    type=click.Choice([each.value for each in CatchUp]),
    default=CatchUp.ONE.value,
    show_default=True,
    help="Which times are caught up that passed while the worker was away.",
)
@click.option(
    "--overlap",
    type=click.Choice([each.value for each in Overlap]),
    default=Overlap.SKIP.value,
    show_default=True,
    help="What becomes of a time while the run before has not ended.",
)
@linked("console")
def add(link: Link, schedule_id: str, workflow: str, cron: str | None, every: float | None, **given: Any) -> None:
    """Let runs of WORKFLOW be started by the clock, by --cron or --every; replaces the schedule of that name.

    A run is started as pending. A bot opens it: the one that --bot names, when it gets the message, or one that
    looks for pending runs.
    """
    zone = given.pop("timezone")
    if (cron is None) == (every is None):
        raise click.UsageError("say when: either --cron LINE or --every SPAN")
    if zone is not None and cron is None:
        raise click.UsageError("--timezone is that of --cron")
    times: CronTimes | IntervalTimes = IntervalTimes(seconds=every or 0.0)
    if cron is not None:
        times = CronTimes(line=cron, timezone=zone or "UTC")

    async def saved(bot: Bot) -> ScheduleStatus:
        schedule = WorkflowSchedule(
            id=schedule_id,
            workflow_id=await _workflow_id(bot, workflow),
            times=times,
            input=given["input"],
            concurrency_key=given["key"],
            bot=given["bot"],
            catch_up=CatchUp(given["catch_up"]),
            overlap=Overlap(given["overlap"]),
        )
        return await bot.workflows.save_schedule(schedule)

    status = ask(link, saved)
    _show(link, status, "is saved")


@schedules.command("pause", cls=WithText)
@_schedule_id
@linked("console")
def pause(link: Link, schedule_id: str) -> None:
    """Let a schedule start no runs until it is resumed. Runs that it started go on."""
    _show(link, _paused(link, schedule_id, paused=True), "is paused")


@schedules.command("resume", cls=WithText)
@_schedule_id
@linked("console")
def resume(link: Link, schedule_id: str) -> None:
    """Let a paused schedule go on, with its next time. Times that have passed are not caught up."""
    _show(link, _paused(link, schedule_id, paused=False), "is resumed")


def _paused(link: Link, schedule_id: str, *, paused: bool) -> ScheduleStatus:
    async def moved(bot: Bot) -> ScheduleStatus:
        try:
            return await bot.workflows.pause_schedule(schedule_id, paused)
        except NotFound:
            raise Impossible(_unknown(schedule_id)) from None

    return ask(link, moved)


def _unknown(schedule_id: str) -> str:
    return f"no schedule {schedule_id!r}; 'posthouse schedules' lists them"


def _show(link: Link, status: ScheduleStatus, what: str) -> None:
    if link.as_json:
        show_json(status)
        return
    then = "" if status.next_at is None else f", and starts a run at {status.next_at}"
    say(plain(f"schedule {status.id} {what}{then}"))


@schedules.command("remove", cls=WithText)
@_schedule_id
@linked("console")
def remove(link: Link, schedule_id: str) -> None:
    """Delete a schedule. Its runs stay, and go on."""

    async def removed(bot: Bot) -> None:
        if not await bot.workflows.delete_schedule(schedule_id):
            raise Impossible(_unknown(schedule_id))

    ask(link, removed)
    if link.as_json:
        show_json({"id": schedule_id, "deleted": True})
    else:
        say(plain(f"schedule {schedule_id} is deleted; its runs stay"))


@schedules.command("next", cls=WithText)
@_schedule_id
@click.option(
    "--count",
    type=WholeNumber(1, 1000),
    metavar="N",
    default=5,
    show_default=True,
    help="How many.",
)
@asking
def show_next(link: Link, schedule_id: str, count: int) -> None:
    """Show when a schedule's next times are, as the worker understands them, even if it is paused."""

    async def read(bot: Bot) -> list[str]:
        try:
            return await bot.workflows.get_schedule_times(schedule_id, count)
        except NotFound:
            raise Impossible(_unknown(schedule_id)) from None

    times = ask(link, read)
    if link.as_json:
        show_json(times)
        return
    for time in times:
        say(time)
