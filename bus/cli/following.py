"""Reading a run completely, and following it until it ends: redrawn on a terminal, otherwise a line per change.

Owns when it is read: when the worker says that something happened, and from time to time. If a step begins and ends
between two readings, one line reports both.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec
from rich.live import Live

from ..bot import Bot
from ..model.records import RunStatus, WorkflowRun, WorkflowStepLog
from .console import show_json, terminal
from .ending import Impossible, open_bot
from .finding import bot_names, find_run, find_summary
from .options import Link
from .run_view import RunView, change_line, look
from .streams import say

__all__ = ["follow", "read_view"]

_LOOK_SECONDS = 0.2
"""The least time between two readings: short for a person, and little load for a worker."""

_ENDS = {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}
"""The final statuses. A crashed run may be claimed by another bot, or resumed by a person."""


async def read_view(bot: Bot, run: WorkflowRun, names: dict[str, str] | None = None) -> RunView:
    """Read everything about a run that was just read; read the name of its holder only if that is missing."""
    workflows = bot.workflows
    lease = await workflows.get_lease(run.id)
    if names is None or (lease is not None and lease.holder not in names):
        names = await bot_names(bot, [] if lease is None else [lease.holder])
    queued_or_lost = run.status in (RunStatus.PENDING, RunStatus.CRASHED)
    summary = await find_summary(workflows, run) if queued_or_lost else None
    signals = [] if run.status in _ENDS else await workflows.list_signals(run.id)
    return RunView(run, lease, await workflows.list_step_logs(run.id), names, summary, signals)


async def follow(link: Link, given: str) -> RunStatus:
    """Show a run's changes until it ends, and return its final status."""
    async with open_bot(link, max_in_flight=0) as bot:
        run = await find_run(bot.workflows, given)
        console = None if link.as_json else terminal()
        if console is None:
            return await _follow(bot, run, _Changes(as_json=link.as_json).show)
        with Live(console=console, auto_refresh=False) as live:
            return await _follow(bot, run, lambda view: live.update(look(console, view), refresh=True))


async def _follow(bot: Bot, run: WorkflowRun, show: Callable[[RunView], None]) -> RunStatus:
    names: dict[str, str] | None = None
    polls, woken = bot.workflows.timing.polls(), bot.workflows.woken(run.id)
    run = await _again(bot, run)
    while True:
        view = await read_view(bot, run, names)
        show(view)
        if run.status in _ENDS:
            return run.status
        names = view.names
        await polls.pause(woken)
        await anyio.sleep(_LOOK_SECONDS)
        woken = bot.workflows.woken(run.id)
        run = await _again(bot, run)


async def _again(bot: Bot, run: WorkflowRun) -> WorkflowRun:
    found = await bot.workflows.watch_run(run.id)
    if found is None:
        raise Impossible(f"run {run.id!r} was deleted")
    return found


class _Changes:
    """What was reported about a run and its steps, so that each change is reported once."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._reported: dict[str, tuple[str, str | None]] = {}

    def show(self, view: RunView) -> None:
        """Report what changed. A run that ended is reported last."""
        things: list[tuple[str, WorkflowRun | WorkflowStepLog]] = [("step", step) for step in view.steps]
        things.insert(len(things) if view.run.status in _ENDS else 0, ("run", view.run))
        for kind, thing in things:
            state = (thing.status, thing.error)
            key = f"{kind} {thing.id}"
            if self._reported.get(key) == state:
                continue
            self._reported[key] = state
            if self._as_json:
                show_json({kind: msgspec.to_builtins(thing)})
            else:
                say(change_line(thing))
