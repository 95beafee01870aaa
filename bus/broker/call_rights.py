"""Which workflow calls a bot may make, and which records it is answered with.

Its rules (docs/protocol.md, "Rights"):

- A write with a fence needs the bot that holds the run, which the store checks in the write's own transaction. A
  write without one needs the right to operate, and an answer to an approval the right to approve. So without a
  fence nobody records an answer beside the step that waits, or before it does.
- The bot that executes a run cannot approve it, and an answer names the bot that gave it.
- A record that the bot may not see is, for a reader, as if it did not exist.

Whether something is allowed is decided by `core.access`; here is what has to be read to ask that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..core.access import Access
from ..core.run_rights import RunRights
from ..errors import Conflict, NotFound, Unapproved
from ..model.keys import Principal
from ..model.openings import RunOpening, counting
from ..model.records import (
    BotOwner,
    GlobalOwner,
    RunSummary,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)
from ..model.repository import RunOwners, StepCreation, StepMove, WorkflowStore
from ..model.rights import Action
from ..model.schedules import ScheduleStatus
from ..settings.rights import READ_ALL
from ..wire.calls import (
    Call,
    CancelRun,
    ClaimRun,
    CreateRun,
    CreateStepLog,
    DeleteRun,
    EmitRun,
    ForkRun,
    GetCompletedStepIds,
    GetLatestRun,
    GetLease,
    GetRun,
    GetRunDefinition,
    GetStepLog,
    LeaveQueue,
    ListAllRuns,
    ListRuns,
    ListSignals,
    ListStepLogs,
    ListWaitingApprovals,
    PageStepLogs,
    RetryRun,
    SendSignal,
    TakeSignal,
    UpdateRunStatus,
    UpdateStepStatus,
    WatchRun,
)
from ..wire.definition_calls import DeleteDefinition, OfferDefinition, SaveDefinition
from ..wire.frames import Code, Refusal
from ..wire.opening_calls import OpenRun
from ..wire.schedule_calls import DeleteSchedule, GetSchedule, GetScheduleTimes, PauseSchedule, SaveSchedule

__all__ = ["CallRights"]

_APPROVAL = "approval"
"""The idempotency key of a step log that records an approval (docs/workflows-how-to.md), up to its deadline."""

_ASKS = {StepStatus.WAITING_APPROVAL, StepStatus.FAILED}
"""What may be recorded of an approval without an answer."""

_OPEN = {StepStatus.PENDING, StepStatus.RUNNING}

_OfOneRun = GetRun | GetLatestRun | WatchRun | GetRunDefinition | GetLease | ListStepLogs | GetCompletedStepIds


class CallRights:
    """See the module."""

    def __init__(self, access: Access, workflows: WorkflowStore) -> None:
        self._access = access
        self._workflows = workflows

    def __repr__(self) -> str:
        return f"<CallRights {self._access}>"

    # ── Writing ──────────────────────────────────────────────────────────────────────────────────────────

    async def permit(self, principal: Principal, call: Call) -> bool:
        """Return True if a call is to be carried out, False if it is to be answered as if it found nothing.

        Raise Refusal, NotFound or Conflict if it is not allowed.
        """
        match call:
            case SaveDefinition() | OfferDefinition():
                await self._permit_definition(principal, call.definition)
            case DeleteDefinition():
                return await self._permit_deletion(principal, call.definition_id)
            case CreateRun():
                await self._permit_run(principal, call.run)
                if call.run.parent_run_id is not None and call.fence is None:
                    self._require_operator(principal, await self._owners(principal, call.run.parent_run_id))
            case DeleteRun():
                if not await self._sees(principal, call.run_id):
                    return False
                self._require_operator(principal, await self._owners(principal, call.run_id))
            case ClaimRun() | LeaveQueue():
                self._require_claimant(principal, await self._owners(principal, call.run_id))
            case UpdateRunStatus(fence=None) | CancelRun() | RetryRun() | EmitRun(fence=None):
                self._require_operator(principal, await self._owners(principal, call.run_id))
            case ForkRun():
                owners = await self._owners(principal, call.run_id)
                self._require_operator(principal, owners)
                self._require_creator(principal, owners.workflow_name, owners.owner)
            case SaveSchedule() | PauseSchedule() | DeleteSchedule():
                return await self._permit_schedule(principal, call)
            case GetSchedule() | GetScheduleTimes():
                if await self._seen_schedule(principal, call.schedule_id) is not None:
                    return True
                if isinstance(call, GetScheduleTimes):
                    raise NotFound("schedule", call.schedule_id)
                return False
            case SendSignal():
                await self._permit_signal(principal, call.run_id)
            case TakeSignal(fence=None):
                self._require_operator(principal, await self._owners(principal, call.step.run_id))
            case ListSignals():
                return await self._sees(principal, call.run_id)
            case GetStepLog():
                step = await self._workflows.get_step_log(call.step_id)
                return step is not None and await self._sees(principal, step.run_id)
            case PageStepLogs():
                seen = await self._sees(principal, call.run_id)
                if not seen and call.after is not None:  # what the store says of a run without that step
                    raise NotFound("step", call.after)
                return seen
            case _ if isinstance(call, _OfOneRun):
                return await self._sees(principal, call.run_id)
            case ListRuns() | ListAllRuns() if call.after is not None:
                if not await self._sees(principal, call.after):
                    raise NotFound("run", call.after)
            case ListWaitingApprovals() if call.run_id is not None:
                return await self._sees(principal, call.run_id)
            case _:  # the store asks for the holder, or `seen` picks out what may be read
                pass
        return True

    async def opening(self, principal: Principal, call: OpenRun) -> tuple[RunOpening, bool]:
        """Return what opens a run, and whether that must be new; then with the definition that the bot may use.

        Raise Refusal or NotFound if it is not allowed.
        """
        opening = call.opening
        owners = (await self._workflows.owners_of([opening.run_id])).get(opening.run_id)
        if owners is not None:
            if not self._sees_run(principal, owners):
                raise NotFound("run", opening.run_id)
            self._require_claimant(principal, owners)
            return opening, False
        definition = await self._meant(principal, opening)
        self._require_creator(principal, definition.name, _owner(definition))
        return msgspec.structs.replace(opening, workflow=definition.id, definition=definition), True

    async def _meant(self, principal: Principal, opening: RunOpening) -> WorkflowDefinition:
        """Return the definition with which a run is created. Raise NotFound if there is none that the bot sees."""
        workflows, given = self._workflows, opening.definition
        found: WorkflowDefinition | None = None
        if given is not None:
            found = await workflows.get_definition(given.id)
        else:
            for owner in (BotOwner(bot_id=principal.bot_id), GlobalOwner()):
                found = found or await workflows.get_definition_by_name(opening.workflow, owner)
            found = found or await workflows.get_definition(opening.workflow)
        if found is not None and not self._sees_definition(principal, found):
            found = None
        return counting(opening, found)

    def _require_claimant(self, principal: Principal, owners: RunOwners) -> None:
        own = principal.bot_id in (owners.owner, owners.created_by, owners.last_holder)
        self._access.require(principal, Action.RUN, owners.workflow_name, own=own)

    async def _permit_signal(self, principal: Principal, run_id: str) -> None:
        owners = (await self._workflows.owners_of([run_id])).get(run_id)
        if owners is None:
            raise NotFound("run", run_id)
        refused = RunRights(self._access, principal).refuse_signal(owners)
        if refused is not None:
            raise refused

    async def step_write(self, principal: Principal | None, call: Call) -> StepCreation | StepMove:
        """Return the write that a call asks for. Raise Refusal or NotFound if it is not allowed."""
        if principal is None:
            return _write(call)
        if isinstance(call, CreateStepLog):
            if call.fence is None:
                self._require_operator(principal, await self._owners(principal, call.step.run_id))
                await self._refuse_answer(call.step)
            return _write(call, by=principal.bot_id)
        assert isinstance(call, UpdateStepStatus)
        if call.fence is not None:
            return _write(call, by=principal.bot_id, answers=False)
        step = await self._workflows.get_step_log(call.step_id)
        if step is None:
            raise NotFound("step", call.step_id)
        try:
            owners = await self._owners(principal, step.run_id)
        except NotFound:
            raise NotFound("step", call.step_id) from None
        waits, rejects = step.status is StepStatus.WAITING_APPROVAL, call.status is StepStatus.FAILED
        waits = waits or (_is_approval(step) and step.status in _OPEN)
        refusal = self._no_operator(principal, owners)
        if refusal is None and (not waits or (rejects and call.output is None)):
            return _write(call, by=principal.bot_id, answers=False)
        if refusal is not None and not waits and not self._may_approve(principal, owners):
            raise refusal
        self._require_approver(principal, owners)
        return _write(call, by=principal.bot_id, answers=True, answered_by=principal.bot_name)

    async def _refuse_answer(self, step: WorkflowStepLog) -> None:
        """Raise Unapproved if a step log that is created without a fence would answer an approval."""
        if step.status in _ASKS:
            return
        waiting = await self._workflows.list_waiting_approvals(step.run_id, None)
        if _is_approval(step) or any(each.step_id == step.step_id for each in waiting):
            raise Unapproved(step.step_id, step.run_id)

    async def _permit_definition(self, principal: Principal, definition: WorkflowDefinition) -> None:
        own = _owner(definition) == principal.bot_id
        self._access.require(principal, Action.DEFINE, definition.name, own=own)
        stored = await self._workflows.get_definition(definition.id)
        if stored is None or (stored.name, _owner(stored)) == (definition.name, _owner(definition)):
            return
        if not self._access.may(principal, Action.DEFINE, stored.name, own=_owner(stored) == principal.bot_id):
            raise Conflict(f"the id {definition.id!r} belongs to another workflow")

    async def _permit_deletion(self, principal: Principal, definition_id: str) -> bool:
        stored = await self._workflows.get_definition(definition_id)
        if stored is None or not self._sees_definition(principal, stored):
            return False
        self._access.require(principal, Action.DEFINE, stored.name, own=_owner(stored) == principal.bot_id)
        return True

    async def _permit_run(self, principal: Principal, run: WorkflowRun) -> None:
        definition = await self._workflows.get_definition(run.workflow_id)
        if definition is None or not self._sees_definition(principal, definition):
            raise NotFound("workflow", run.workflow_id)
        self._require_creator(principal, definition.name, _owner(definition))
        if run.workflow_name != definition.name:  # rights are asked by that name
            raise Refusal(Code.BAD_REQUEST, f"workflow {run.workflow_id!r} is named {definition.name!r}")

    async def _permit_schedule(
        self, principal: Principal, call: SaveSchedule | PauseSchedule | DeleteSchedule
    ) -> bool:
        """Return whether a schedule is to be changed: who saves it needs the right to create its runs."""
        id = call.schedule.id if isinstance(call, SaveSchedule) else call.schedule_id
        known = await self._workflows.get_schedule(id)
        if known is not None:
            seen = await self._seen_schedule(principal, id)
            if seen is None and isinstance(call, SaveSchedule):
                raise Conflict(f"the id {id!r} belongs to another schedule")
            if seen is not None:
                own = principal.bot_id in (known.created_by, _owner(seen))
                self._access.require(principal, Action.OPERATE, seen.name, own=own)
            known = known if seen is not None else None
        if isinstance(call, SaveSchedule):
            definition = await self._workflows.get_definition(call.schedule.workflow_id)
            if definition is None or not self._sees_definition(principal, definition):
                raise NotFound("workflow", call.schedule.workflow_id)
            self._require_creator(principal, definition.name, _owner(definition))
            if call.schedule.bot is not None:
                self._access.require(principal, Action.SEND, call.schedule.bot)
        elif known is None and isinstance(call, PauseSchedule):
            raise NotFound("schedule", id)
        return isinstance(call, SaveSchedule) or known is not None

    async def _seen_schedule(self, principal: Principal, schedule_id: str) -> WorkflowDefinition | None:
        """Return the workflow of a schedule; None if it does not exist, or is not to be seen.

        Those see it that would see a run that its creator created.
        """
        status = await self._workflows.get_schedule(schedule_id)
        definition = None if status is None else await self._workflows.get_definition(status.schedule.workflow_id)
        if status is None or definition is None:
            return None
        owner, creator = _owner(definition), status.created_by
        owners = RunOwners(schedule_id, definition.name, owner, creator, None, None)
        return definition if self._sees_run(principal, owners) else None

    def _require_creator(self, principal: Principal, workflow_name: str, owner: str | None) -> None:
        self._access.require(principal, Action.RUN, workflow_name, own=owner in (None, principal.bot_id))

    async def _owners(self, principal: Principal, run_id: str) -> RunOwners:
        """Return whose a run is. Raise NotFound if it does not exist, or is not to be seen."""
        owners = (await self._workflows.owners_of([run_id])).get(run_id)
        if owners is None or not self._sees_run(principal, owners):
            raise NotFound("run", run_id)
        return owners

    def _no_operator(self, principal: Principal, owners: RunOwners) -> Refusal | None:
        own = principal.bot_id in (owners.owner, owners.created_by, owners.holder)
        return self._access.refusal(principal, Action.OPERATE, owners.workflow_name, own=own)

    def _require_operator(self, principal: Principal, owners: RunOwners) -> None:
        refusal = self._no_operator(principal, owners)
        if refusal is not None:
            raise refusal

    def _may_approve(self, principal: Principal, owners: RunOwners) -> bool:
        return self._access.may(principal, Action.APPROVE, owners.workflow_name)

    def _require_approver(self, principal: Principal, owners: RunOwners) -> None:
        self._access.require(principal, Action.APPROVE, owners.workflow_name)
        if principal.bot_id in (owners.holder, owners.last_holder):
            rule = "the bot that executes a run cannot approve it"
            details = {"action": str(Action.APPROVE), "object": owners.workflow_name, "rule": rule}
            raise Refusal(Code.FORBIDDEN, f"bot {principal.bot_name!r} may not approve: {rule}", details=details)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────

    async def runs_all(self, principal: Principal | None, workflow: str) -> bool:
        """Return True if a bot may execute every run of the workflows with a name or an id, whoever created it."""
        if principal is None:
            return True
        definition = await self._workflows.get_definition(workflow)
        names = {workflow} if definition is None else {workflow, definition.name}
        return all(self._access.may(principal, Action.RUN, name) for name in names)

    def reads_all(self, principal: Principal) -> bool:
        """Return True if a bot may see every record."""
        return self._access.may(principal, Action.READ, READ_ALL)

    async def seen(self, principal: Principal, records: Sequence[Any]) -> list[Any]:
        """Return those of some records that a bot may see: definitions, runs, or steps that wait."""
        if records and isinstance(records[0], ScheduleStatus):
            return [each for each in records if await self._seen_schedule(principal, each.id) is not None]
        ids = list(
            dict.fromkeys(_run_id(record) for record in records if not isinstance(record, WorkflowDefinition))
        )
        owners = await self._workflows.owners_of(ids) if ids else {}
        return [record for record in records if self._sees_record(principal, record, owners)]

    def _sees_record(self, principal: Principal, record: Any, owners: dict[str, RunOwners]) -> bool:
        if isinstance(record, WorkflowDefinition):
            return self._sees_definition(principal, record)
        found = owners.get(_run_id(record))
        return found is not None and self._sees_run(principal, found)

    async def _sees(self, principal: Principal, run_id: str) -> bool:
        owners = (await self._workflows.owners_of([run_id])).get(run_id)
        return owners is not None and self._sees_run(principal, owners)

    def _sees_run(self, principal: Principal, owners: RunOwners) -> bool:
        return RunRights(self._access, principal).sees(owners)

    def _sees_definition(self, principal: Principal, definition: WorkflowDefinition) -> bool:
        own = _owner(definition) in (None, principal.bot_id)
        actions = (Action.DEFINE, Action.RUN, Action.OPERATE)
        return RunRights(self._access, principal).may_any(definition.name, actions, own=own)


def _owner(definition: WorkflowDefinition) -> str | None:
    return definition.owner.bot_id if isinstance(definition.owner, BotOwner) else None


def _is_approval(step: WorkflowStepLog) -> bool:
    return (step.idempotency_key or "").partition(" until ")[0] == _APPROVAL


def _run_id(record: WorkflowRun | RunSummary | WorkflowStepLog) -> str:
    return record.run_id if isinstance(record, WorkflowStepLog) else record.id


def _write(
    call: Call, *, by: str | None = None, answers: bool | None = None, answered_by: str | None = None
) -> StepCreation | StepMove:
    if isinstance(call, CreateStepLog):
        return StepCreation(call.step, call.fence, by)
    assert isinstance(call, UpdateStepStatus)
    output = call.output
    if answered_by is not None and output is not None:
        if not isinstance(output, dict):
            raise Refusal(Code.BAD_REQUEST, "the output of an approval is an object: approved, by, comment")
        output = output | {"by": answered_by}
    return StepMove(call.step_id, call.status, output, call.error, call.fence, by, answers)
