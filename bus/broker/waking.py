"""What workflow calls change, passed to the core, which decides who looks at runs again, and reads what it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.core import Core
from ..core.effects import Ask, Effect, EndPlaces, FindRuns, Moment
from ..core.settling import owes
from ..errors import RunHeld, RunNotDue, RunPaused, SlotsTaken
from ..model.records import RunStatus, RunSummary, StepStatus, WorkflowStepLog, parse_timestamp
from ..model.repository import MessageLog, RunNews, WorkflowStore
from ..model.transitions import RUN_TRANSITIONS
from ..wire.calls import (
    Call,
    CancelRun,
    ClaimRun,
    CreateRun,
    CreateStepLog,
    ForkRun,
    LeaveQueue,
    ReleaseRun,
    RetryRun,
    SendSignal,
    TakeSignal,
    UpdateRunStatus,
    UpdateStepStatus,
    WatchRun,
)
from ..wire.definition_calls import DeleteDefinition
from ..wire.opening_calls import OpenRun
from ..wire.schedule_calls import PauseSchedule, SaveSchedule

__all__ = ["RunWaking"]


class RunWaking:
    """See the module. `carry_out` carries out what follows."""

    def __init__(
        self,
        core: Core,
        workflows: WorkflowStore,
        log: MessageLog,
        *,
        moment: Callable[[], Moment],
        carry_out: Callable[[list[Effect]], None],
    ) -> None:
        self._core = core
        self._workflows = workflows
        self._log = log
        self._moment = moment
        self._carry_out = carry_out
        workflows.report_events(core.audience.wants, core.audience.written)

    def __repr__(self) -> str:
        return f"<RunWaking for {self._core}>"

    def execute(self, ask: Ask, workflow: str) -> None:
        """Let a session be told of the runs that its bot is to open, before they are listed."""
        session = self._core.sessions.get(ask.address)
        if session is not None:
            self._core.waking.execute(session, workflow)

    async def unowed(self, bot_id: str, runs: Sequence[RunSummary]) -> list[RunSummary]:
        """Return the runs that no unsettled message of a bot began: such a message opens its run."""
        messages = await self._log.find_ids([run.id for run in runs])
        owed = {id for id, message in messages.items() if owes(self._core.directory, bot_id, message)}
        return [run for run in runs if run.id not in owed]

    @contextmanager
    def waiting(self, ask: Ask, call: Call) -> Iterator[None]:
        """Let a session wait, from the beginning of a call on, for the run that it watches, or cannot claim."""
        waking = self._core.waking
        session, stops = self._core.sessions.get(ask.address), waking.stops
        if session is not None and isinstance(call, WatchRun):
            waking.watch(session, call.run_id)
        if session is None or not isinstance(call, ClaimRun | OpenRun):
            yield
            return
        run_id = call.run_id if isinstance(call, ClaimRun) else call.opening.run_id
        try:
            yield
        except (RunHeld, RunNotDue, RunPaused, SlotsTaken):
            waking.refused(session, run_id, stops=stops)
            if self._core.sessions.get(ask.address) is not session:
                waking.leave(session)  # it ended meanwhile
            self._carry_out(self._core.look_at_runs(self._moment()))
            raise
        waking.claimed(session, run_id)

    def tell(self, ask: Ask, call: Call, value: Any) -> None:
        """Notify those who wait for the run of what a call changed, which is on disk."""
        match call:
            case WatchRun() if value is None:
                self._core.waking.not_found(ask.address, call.run_id)
            case WatchRun() if not RUN_TRANSITIONS[value.status]:
                self._core.waking.unwatch(call.run_id)
            case UpdateRunStatus():
                stopped = call.status is not RunStatus.RUNNING
                self._happened(call.run_id, by_holder=call.fence is not None, stopped=stopped)
            case UpdateStepStatus():
                self._happened(value.run_id, by_holder=call.fence is not None, stopped=False)
                self._recorded(ask, value)
            case CreateStepLog():
                self._happened(value.run_id, by_holder=True, stopped=False)
                self._recorded(ask, value)
            case SendSignal():
                self._happened(call.run_id, stopped=False)
            case TakeSignal():
                self._happened(value.run_id, by_holder=True, stopped=False)
                self._recorded(ask, value)
            case CancelRun():
                self._happened(call.run_id)
                self._expect(value.cancel_by)
            case DeleteDefinition():
                self._core.waking.any_happened()
                self._look()
            case RetryRun():
                self._happened(call.run_id)
            case LeaveQueue():
                self._core.waking.unclaimed(ask.address, call.run_id)
                self._happened(call.run_id, by_holder=True)
            case ReleaseRun():
                self._happened(call.run_id, by_holder=True)
            case ClaimRun():
                self._happened(call.run_id, by_holder=True, stopped=False)
            case OpenRun():
                self._happened(call.opening.run_id, by_holder=True, stopped=False)
            case CreateRun() | ForkRun():
                self._happened(value.id, by_holder=True)
                self._expect(value.not_before)
            case SaveSchedule() | PauseSchedule():
                self._expect(value.next_at)

    def _happened(self, run_id: str, *, by_holder: bool = False, stopped: bool = True) -> None:
        self._core.waking.happened(run_id, by_holder=by_holder, stopped=stopped)
        self._look()

    def _recorded(self, ask: Ask, step: WorkflowStepLog) -> None:
        """Count the delivery of the message that began a run as none that failed, if a step is done."""
        session = self._core.sessions.get(ask.address)
        if session is not None and step.status is StepStatus.COMPLETED:
            self._core.dispatch.progressed(session, step.run_id)

    def _look(self) -> None:
        if self._core.waking.has_news:  # mostly nobody waits
            self._carry_out(self._core.look_at_runs(self._moment()))

    def _expect(self, at: str | None) -> None:
        """Let it be noticed when a time has come: of a new run or a schedule, or of a program that cleans up."""
        if at is not None:
            left = parse_timestamp(at) - parse_timestamp(self._moment().wall)
            self._core.recovering.expect(left.total_seconds())

    async def do(self, effect: FindRuns | EndPlaces) -> None:
        """Carry out what the core asks of the store."""
        if isinstance(effect, EndPlaces):
            await self._end_places(effect)
        else:
            await self._find(effect)

    async def _find(self, asked: FindRuns) -> None:
        if asked.run_ids:
            news = await self._workflows.news_of(list(asked.run_ids), slots=asked.slots)
        else:
            news = [RunNews(id, False, None, (id,)) for id in await self._workflows.next_runs()]
        self._carry_out(self._core.runs_found(asked, news, self._moment()))

    async def _end_places(self, ended: EndPlaces) -> None:
        await self._workflows.end_places(ended.run_ids, 0)
        for run_id in ended.run_ids:
            self._core.waking.happened(run_id, by_holder=True)
        self._carry_out(self._core.look_at_runs(self._moment()))
