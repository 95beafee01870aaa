"""The pages *Runs* and *Approvals*: what is executed, how far it is, and what a person decides about it.

Owns in whose name it is done: the person's, with the page's bot, because a worker with keys knows only that.
"""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.routing import Route

from ..cli.following import read_view
from ..cli.retrying import revive
from ..errors import NotFound
from ..model.filters import RunFilter
from ..model.records import RunStatus, WorkflowRun
from ..runs.approvals import Answer
from ..runs.replay import deadline_of
from . import shown
from .forms import Form
from .site import Done, Look, Shown, Visit, action, page
from .timeline import timeline

__all__ = ["ROUTES"]

_RUNS = 50
_STEPS_MAX = 500
_APPROVALS_MAX = 20
"""The oldest: the run of each is another question to the worker."""

_SUGGESTED = 200
"""Names of workflows that are suggested in a field."""

_SUGGESTED_SECONDS = 30.0

_ENDED = {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}


async def _runs(look: Look) -> Shown:
    status, workflow = look.asked("status"), look.asked("workflow")
    workflows = look.bot.workflows
    known = {each.value for each in RunStatus}
    where = RunFilter(status=RunStatus(status) if status in known else None, workflow=workflow)
    try:
        found = await workflows.list_all_runs(limit=_RUNS, where=where, after=look.asked("after"))
    except NotFound:  # no such workflow
        found = []
    older = None
    if len(found) == _RUNS:
        older = shown.link("/runs", status=status, workflow=workflow, after=found[-1].id)
    values = {
        "runs": found,
        "older": older,
        "status": status or "",
        "workflow": workflow or "",
        "statuses": sorted(known),
        "names": await look.names(each.holder for each in found if each.holder),
        "workflows": await look.site.shared.get("workflows", lambda: _workflows(look), seconds=_SUGGESTED_SECONDS),
        "seconds": {
            each.id: shown.seconds_between(each.started_at, each.completed_at, datetime.now(UTC))
            for each in found
            if each.completed_at or each.status == RunStatus.RUNNING
        },
    }
    return Shown("runs.html", values)


async def _workflows(look: Look) -> list[str]:
    return sorted({each.name for each in await look.bot.workflows.list_definitions()})[:_SUGGESTED]


async def _run(look: Look) -> Shown:
    run_id, workflows = look.asked("id") or "", look.bot.workflows
    found = await workflows.get_run(run_id)
    if found is None:
        raise NotFound("run", run_id)
    lease = await workflows.get_lease(run_id)
    view = await read_view(look.bot, found, await look.names([] if lease is None else [lease.holder]))
    run, now = view.run, datetime.now(UTC)
    values = {
        "view": view,
        "run": run,
        "summary": view.summary,
        "seconds": shown.seconds_between(run.started_at, run.completed_at, now)
        if run.completed_at or run.status == RunStatus.RUNNING
        else None,
        "bars": timeline(view.steps, run.started_at, run.completed_at, now)[-_STEPS_MAX:],
        "left_out": max(0, len(view.steps) - _STEPS_MAX),
        "step_ids": list(dict.fromkeys(each.step_id for each in view.steps))[-_STEPS_MAX:],
        "can": _possible(run),
    }
    return Shown("run.html", values)


def _possible(run: WorkflowRun) -> set[str]:
    """Return what a person may do to a run, by its status."""
    possible = {"fork"}
    # A run that only waits, for a signal or a person, is paused as well, but without a reason.
    stopped = run.status == RunStatus.CRASHED or (run.status == RunStatus.PAUSED and run.error is not None)
    if run.status not in _ENDED:
        possible |= {"cancel", "resume" if stopped else "pause"}
    if stopped or run.status == RunStatus.FAILED:
        possible.add("retry")
    return possible


def _reason(what: str, visit: Visit, form: Form) -> str:
    reason = form["reason"].strip()
    return f"{what} by {visit.login.person}" + (f": {reason}" if reason else "")


async def _pause(visit: Visit, form: Form) -> Done:
    text = _reason("paused", visit, form)
    return await _moved(visit, form["run"], RunStatus.PAUSED, text)


async def _resume(visit: Visit, form: Form) -> Done:
    return await _moved(visit, form["run"], RunStatus.PENDING, None)


async def _moved(visit: Visit, run_id: str, status: RunStatus, error: str | None) -> Done:
    run = await visit.bot.workflows.update_run_status(run_id, status, error)
    meaning = "it goes on when a bot claims it" if status == RunStatus.PENDING else "Resume lets it go on"
    return Done(f"run {run.id} is {run.status}: {meaning}", shown.link("/run", id=run.id))


async def _cancel(visit: Visit, form: Form) -> Done:
    grace = 0 if form["now"] else None
    run = await visit.bot.workflows.cancel_run(form["run"], _reason("cancelled", visit, form), grace)
    text = f"run {run.id} is cancelled"
    if run.status != RunStatus.CANCELLED:
        text = f"run {run.id} is to be cancelled: its program may clean up until {shown.clock(run.cancel_by)}"
    return Done(text, shown.link("/run", id=run.id))


async def _retry(visit: Visit, form: Form) -> Done:
    run = await visit.bot.workflows.retry_run(form["run"], form["step"] or None)
    await revive(visit.bot, run.id)
    return Done(f"run {run.id} is pending: it goes on when a bot opens it", shown.link("/run", id=run.id))


async def _fork(visit: Visit, form: Form) -> Done:
    new_id = form.chosen_id("fork", form["run"], form["step"])
    run = await visit.bot.workflows.fork_run(form["run"], new_id, form["step"] or None)
    return Done(f"this run is a fork of {form['run']}, with its steps so far", shown.link("/run", id=run.id))


# ── Approvals ────────────────────────────────────────────────────────────────────────────────────────────


async def _approvals(look: Look) -> Shown:
    workflows = look.bot.workflows
    steps = await workflows.list_waiting_approvals(limit=_APPROVALS_MAX)
    runs = {id: await workflows.get_run(id) for id in dict.fromkeys(step.run_id for step in steps)}
    values = {
        "steps": [(step, runs[step.run_id], deadline_of(step)) for step in steps],
        "more": len(steps) == _APPROVALS_MAX,
    }
    return Shown("approvals.html", values)


async def _answer(visit: Visit, form: Form) -> Done:
    step = await visit.bot.workflows.get_step_log(form["step"])
    if step is None:
        raise NotFound("step", form["step"])
    comment = form["comment"].strip()
    by = f"{visit.login.person} on the page"
    answer = Answer(form["answer"] == "approve", visit.login.person, f"{comment} ({by})" if comment else by)
    await answer.give(visit.bot.workflows, step)
    word = "approved" if answer.approved else "rejected"
    return Done(f"step {step.step_id} of run {step.run_id} is {word}", "/approvals")


ROUTES: list[Route] = [
    page("/runs", _runs),
    page("/run", _run),
    action("/run/pause", _pause),
    action("/run/resume", _resume),
    action("/run/cancel", _cancel),
    action("/run/retry", _retry),
    action("/run/fork", _fork),
    page("/approvals", _approvals),
    action("/approvals/answer", _answer),
]
