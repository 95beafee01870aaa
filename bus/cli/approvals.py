"""The commands `approvals`, `approve` and `reject`: listing and answering what waits for a person.

Owns which step is meant, and how both are shown; `bus.runs.approvals` writes the answer.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import Any

import msgspec
import rich_click as click

from ..bot import Bot
from ..errors import RequestError
from ..model.records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog
from ..runs.approvals import Answer
from .completing import complete_runs
from .console import Time, show_json, show_rows
from .ending import Impossible, ask
from .finding import bot_names, find_run
from .numbers import WholeNumber
from .options import Link, WithText, asking, linked, shown
from .streams import plain, say

__all__ = ["approvals", "approve", "reject"]

_APPROVALS_MAX = 1000
_PROMPT_CHARACTERS = 80
_LISTED_MAX = 10

_run_id = click.argument("run_id", metavar="RUN", callback=shown, shell_complete=complete_runs)
_step = click.argument("step", metavar="[STEP]", required=False, callback=shown)
_comment = click.option("--comment", metavar="TEXT", help="A comment for the bot and for readers of the run.")


class _Approval(msgspec.Struct, frozen=True):
    """A waiting step, and its run."""

    step: WorkflowStepLog
    run: WorkflowRun | None

    def value(self) -> dict[str, Any]:
        value: dict[str, Any] = msgspec.to_builtins(self.step)
        name, status = (None, None) if self.run is None else (self.run.workflow_name, self.run.status)
        return value | {"workflow_name": name, "run_status": status}


@click.command()
@click.option(
    "--limit",
    type=WholeNumber(1, _APPROVALS_MAX),
    metavar="N",
    default=50,
    show_default=True,
    help="The maximum number to show.",
)
@asking
def approvals(link: Link, limit: int) -> None:
    """List the steps that wait for an approval, the oldest first, with their prompts.

    Answer one with `posthouse approve RUN STEP` or `posthouse reject RUN STEP`.
    """

    async def listed(bot: Bot) -> list[_Approval]:
        steps = await bot.workflows.list_waiting_approvals(limit=limit)
        runs = {id: await bot.workflows.get_run(id) for id in dict.fromkeys(step.run_id for step in steps)}
        return [_Approval(step, runs[step.run_id]) for step in steps]

    found = ask(link, listed)
    if link.as_json:
        show_json([each.value() for each in found])
        return
    rows = [
        (
            each.step.run_id,
            "" if each.run is None else each.run.workflow_name,
            each.step.step_id,
            _prompt(each.step),
            Time(each.step.started_at or ""),
        )
        for each in found
    ]
    show_rows(("run", "workflow", "step", "prompt", "since"), rows, nothing="nothing waits for an approval")


def _prompt(step: WorkflowStepLog) -> str:
    """Return a step's question: the prompt in its input, or else the input."""
    given = step.input
    if isinstance(given, dict):
        given = given.get("prompt", given)
    text = "" if given is None else given if isinstance(given, str) else msgspec.json.encode(given).decode()
    text = " ".join(text.split())
    return text if len(text) <= _PROMPT_CHARACTERS else f"{text[: _PROMPT_CHARACTERS - 1]}…"


@click.command(cls=WithText)
@_run_id
@_step
@_comment
@linked("console")
def approve(link: Link, run_id: str, step: str | None, comment: str | None) -> None:
    """Approve the waiting STEP of a run: the step is completed.

    STEP may be omitted if only one waits. The answer is stored as the step's output, with the name from `--as` and
    the comment. The bot that executes the run sees it within two seconds, or when it is back. To approve once more
    changes nothing; what was rejected cannot be approved.
    """
    _answer(link, run_id, step, approved=True, comment=comment)


@click.command(cls=WithText)
@_run_id
@_step
@_comment
@linked("console")
def reject(link: Link, run_id: str, step: str | None, comment: str | None) -> None:
    """Reject the waiting STEP of a run: the step is failed.

    STEP may be omitted if only one waits. The answer is stored as the step's output, with the name from `--as` and
    the comment. The bot that executes the run decides how it continues; `posthouse cancel` ends it. To reject once
    more changes nothing; what was approved cannot be rejected.
    """
    _answer(link, run_id, step, approved=False, comment=comment)


def _answer(link: Link, given: str, step: str | None, *, approved: bool, comment: str | None) -> None:
    answer = Answer(approved, link.name, comment)

    async def answered(bot: Bot) -> tuple[WorkflowStepLog, str]:
        run = await find_run(bot.workflows, given)
        waiting = await bot.workflows.list_waiting_approvals(run.id, limit=None)
        before = None if _meant(waiting, step) else await _answered(bot, run, step)
        if before is None:
            after, told = await answer.give(bot.workflows, _the_one(run, step, waiting)), f"is {answer}"
        elif before[1].approved == approved:
            after, told = before[0], f"was already {before[1]}"
        else:
            raise Impossible(f"step {before[0].step_id} of run {run.id} was already {before[1]}: that stands")
        return after, f"step {after.step_id} of run {run.id} {told}; {await _what_then(bot, run)}"

    after, text = ask(link, answered)
    if link.as_json:
        show_json(after)
    else:
        say(plain(text))


def _meant(steps: list[WorkflowStepLog], step: str | None) -> list[WorkflowStepLog]:
    """Return those that a name or an id means, or all."""
    return [each for each in steps if step in (None, each.step_id, each.id)]


async def _answered(bot: Bot, run: WorkflowRun, step: str | None) -> tuple[WorkflowStepLog, Answer] | None:
    """Return the step that is meant, with its answer, if it was answered; None if several were."""
    found: list[tuple[WorkflowStepLog, Answer]] = []
    for each in _meant(await bot.workflows.list_step_logs(run.id), step):
        if each.status in (StepStatus.COMPLETED, StepStatus.FAILED):
            with suppress(msgspec.ValidationError):  # the output of a step that is no approval
                found.append((each, msgspec.convert(each.output, Answer)))
    return found[-1] if len({each.step_id for each, _ in found}) == 1 else None


async def _what_then(bot: Bot, run: WorkflowRun) -> str:
    """Return how a run goes on once it is answered."""
    # A run that a person paused has a reason, and cannot be claimed; one that only waits has none.
    if run.status == RunStatus.CRASHED or (run.status == RunStatus.PAUSED and run.error is not None):
        return f"the run is {run.status}; to let it continue: posthouse resume {shlex.quote(run.id)}"
    if run.completed_at is not None:
        return f"the run is {run.status}"
    try:
        name = await _executor(bot, run)
        online = {each.name for each in await bot.bots() if each.online}
    except RequestError:  # the answer is given, whatever else may be read
        name, online = None, set()
    if name is None:
        return f"the run is {run.status}, and goes on when a bot opens it"
    if name in online:
        return f"the run is {run.status}, and bot {name} goes on with it"
    return f"the run is {run.status}, and goes on when bot {name} is back"


async def _executor(bot: Bot, run: WorkflowRun) -> str | None:
    """Return the bot that goes on with a run: its holder, or that to which the message belongs that began it."""
    lease = await bot.workflows.get_lease(run.id)
    if lease is not None:
        return (await bot_names(bot, [lease.holder])).get(lease.holder)
    try:
        fates = (await bot.find(run.id)).mailboxes
    except RequestError:  # no message has this id, or none can
        return None
    over = ("settled", "dead", "expired")
    names = {fate.bot for fate in fates if fate.bot is not None and fate.state not in over}
    return names.pop() if len(names) == 1 else None


def _the_one(run: WorkflowRun, step: str | None, waiting: list[WorkflowStepLog]) -> WorkflowStepLog:
    """Return the step that is meant. Raise Impossible if none waits, or several do."""
    if not waiting:
        raise Impossible(
            f"no step of run {run.id} waits for an approval; to see its steps: posthouse run {shlex.quote(run.id)}"
        )
    found = _meant(waiting, step)
    if len(found) == 1:
        return found[0]
    if not found:
        raise Impossible(
            f"step {step!r} of run {run.id} is not waiting for an approval; waiting are: {_listed(waiting)}"
        )
    names = [each.step_id for each in found]
    by = "name" if len(set(names)) == len(names) else "id"
    raise Impossible(f"{len(found)} steps of run {run.id} are waiting; choose one by {by}: {_listed(found)}")


def _listed(steps: list[WorkflowStepLog]) -> str:
    names = [each.step_id for each in steps]
    several = len(set(names)) < len(names)
    texts = [f"{each.id if several else each.step_id} ({_prompt(each)})" for each in steps[:_LISTED_MAX]]
    return ", ".join(texts) + (", …" if len(steps) > _LISTED_MAX else "")
