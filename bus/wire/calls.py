"""Workflow calls on the wire, documented in `docs/protocol.md`.

Owns a struct for each method of the workflow repository that a bot may call, with the same parameters.

Pure: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import msgspec.inspect
from msgspec import Meta

from ..errors import InvalidValue
from ..model.filters import RunCounts, RunFilter
from ..model.records import (
    Claim,
    Lease,
    RunStatus,
    RunSummary,
    Signal,
    StepPage,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)
from ..model.zeros import ESCAPED_ZERO, zero_in
from .bodies import body_fault, is_suspicious
from .call import Call, ListCall, Number
from .definition_calls import DEFINITION_CALLS
from .frames import Workflow
from .keyed_calls import KEYED_CALLS
from .limits import ANSWER_ITEMS_MAX
from .opening_calls import OpenRun
from .refusals import refusal
from .schedule_calls import SCHEDULE_CALLS

__all__ = [
    "CALLS",
    "Call",
    "CancelRun",
    "ClaimRun",
    "CountRuns",
    "CreateRun",
    "CreateStepLog",
    "DeleteRun",
    "EmitRun",
    "ForkRun",
    "GetCompletedStepIds",
    "GetLatestRun",
    "GetLease",
    "GetRun",
    "GetRunDefinition",
    "GetStepLog",
    "LeaveQueue",
    "ListAllRuns",
    "ListCall",
    "ListCrashedRuns",
    "ListOpenRuns",
    "ListRuns",
    "ListSignals",
    "ListStepLogs",
    "ListWaitingApprovals",
    "PageStepLogs",
    "ReleaseRun",
    "RenewRun",
    "RetryRun",
    "SendSignal",
    "TakeSignal",
    "UpdateRunStatus",
    "UpdateStepStatus",
    "WatchRun",
    "decode_call",
    "read_result",
]


class CreateRun(Call, frozen=True, kw_only=True):
    """Creates a run."""

    method = "create_run"
    answer = WorkflowRun
    writes = True
    run: WorkflowRun
    fence: Number | None = None


class UpdateRunStatus(Call, frozen=True, kw_only=True):
    """Moves a run to a status."""

    method = "update_run_status"
    answer = WorkflowRun
    writes = True
    run_id: str
    status: RunStatus
    error: str | None = None
    context: Any = None
    fence: Number | None = None
    result: Any = None


class CancelRun(Call, frozen=True, kw_only=True):
    """Cancels a run, or asks its program to clean up first."""

    method = "cancel_run"
    answer = WorkflowRun
    writes = True
    run_id: str
    reason: str | None = None
    grace_seconds: float | None = None


class RetryRun(Call, frozen=True, kw_only=True):
    """Lets a run that stopped go on."""

    method = "retry_run"
    answer = WorkflowRun
    writes = True
    run_id: str
    from_step: str | None = None


class ForkRun(Call, frozen=True, kw_only=True):
    """Creates a run with the records of another one."""

    method = "fork_run"
    answer = WorkflowRun
    writes = True
    run_id: str
    new_id: str
    before_step: str | None = None


class DeleteRun(Call, frozen=True, kw_only=True):
    """Deletes a run that has ended."""

    method = "delete_run"
    answer = bool
    writes = True
    run_id: str


class EmitRun(Call, frozen=True, kw_only=True):
    """Tells those who follow a run something."""

    method = "emit_run"
    answer = bool
    writes = True
    run_id: str
    value: Any
    fence: Number | None = None
    id: str | None = None


class GetRun(Call, frozen=True, kw_only=True):
    """Asks for a run."""

    method = "get_run"
    answer = WorkflowRun | None
    run_id: str


class GetLatestRun(Call, frozen=True, kw_only=True):
    """Asks for the last run as which a run continued."""

    method = "get_latest_run"
    answer = WorkflowRun | None
    run_id: str


class WatchRun(Call, frozen=True, kw_only=True):
    """Asks for a run, and to be woken at its changes."""

    method = "watch_run"
    answer = WorkflowRun | None
    run_id: str


class GetRunDefinition(Call, frozen=True, kw_only=True):
    """Asks for the definition that a run was created with."""

    method = "get_run_definition"
    answer = WorkflowDefinition | None
    run_id: str


class ListRuns(ListCall, frozen=True, kw_only=True):
    """Asks for a workflow's runs."""

    method = "list_runs"
    answer = list[WorkflowRun]
    workflow_id: str
    limit: Number | None = 50
    where: RunFilter | None = None
    after: str | None = None


class ListAllRuns(ListCall, frozen=True, kw_only=True):
    """Asks for runs of all workflows, without their contexts."""

    method = "list_all_runs"
    answer = list[RunSummary]
    status: RunStatus | None = None
    limit: Number | None = 50
    where: RunFilter | None = None
    after: str | None = None


class CountRuns(Call, frozen=True, kw_only=True):
    """Asks how many runs there are."""

    method = "count_runs"
    answer = RunCounts
    where: RunFilter | None = None


class ListOpenRuns(ListCall, frozen=True, kw_only=True):
    """Asks for the runs of a workflow that the session's bot is to open, and to be woken for others."""

    method = "list_open_runs"
    answer = list[RunSummary]
    workflow: str
    holder: str | None = None
    resting: bool = False
    run_ids: Annotated[list[str], Meta(max_length=ANSWER_ITEMS_MAX)] | None = None


class ListCrashedRuns(ListCall, frozen=True, kw_only=True):
    """Asks for the runs that are running without a live lease."""

    method = "list_crashed_runs"
    answer = list[WorkflowRun]


class ClaimRun(Call, frozen=True, kw_only=True):
    """Claims a run for the session's bot; `holder` may name only that bot."""

    method = "claim_run"
    answer = Claim
    writes = True
    run_id: str
    holder: str | None = None
    lease_seconds: float | None = None
    claim_id: str | None = None
    place_seconds: float | None = None
    cleans_up: bool = False


class LeaveQueue(Call, frozen=True, kw_only=True):
    """Gives up the place of a run that was to wait for a slot."""

    method = "leave_queue"
    answer = None
    writes = True
    run_id: str


class RenewRun(Call, frozen=True, kw_only=True):
    """Restarts a lease."""

    method = "renew_run"
    answer = Lease
    writes = True
    run_id: str
    fence: Number
    lease_seconds: float | None = None


class ReleaseRun(Call, frozen=True, kw_only=True):
    """Releases a run."""

    method = "release_run"
    answer = WorkflowRun
    writes = True
    run_id: str
    fence: Number
    status: RunStatus = RunStatus.PENDING


class GetLease(Call, frozen=True, kw_only=True):
    """Asks who holds a run."""

    method = "get_lease"
    answer = Lease | None
    run_id: str


class CreateStepLog(Call, frozen=True, kw_only=True):
    """Creates a step log."""

    method = "create_step_log"
    answer = WorkflowStepLog
    writes = True
    step: WorkflowStepLog
    fence: Number | None = None


class UpdateStepStatus(Call, frozen=True, kw_only=True):
    """Moves a step log to a status."""

    method = "update_step_status"
    answer = WorkflowStepLog
    writes = True
    step_id: str
    status: StepStatus
    output: Any = None
    error: str | None = None
    fence: Number | None = None


class GetStepLog(Call, frozen=True, kw_only=True):
    """Asks for a step log by its own id."""

    method = "get_step_log"
    answer = WorkflowStepLog | None
    step_id: str


class ListStepLogs(ListCall, frozen=True, kw_only=True):
    """Asks for a run's step logs."""

    method = "list_step_logs"
    answer = list[WorkflowStepLog]
    run_id: str


class PageStepLogs(Call, frozen=True, kw_only=True):
    """Asks for a run's step logs after one of them, as many as fit into the answer."""

    method = "page_step_logs"
    answer = StepPage
    run_id: str
    after: str | None = None


class GetCompletedStepIds(Call, frozen=True, kw_only=True):
    """Asks for the completed steps of a run."""

    method = "get_completed_step_ids"
    answer = list[str]
    run_id: str


class ListWaitingApprovals(ListCall, frozen=True, kw_only=True):
    """Asks which step logs wait for an approval."""

    method = "list_waiting_approvals"
    answer = list[WorkflowStepLog]
    run_id: str | None = None
    limit: Number | None = 50


class SendSignal(Call, frozen=True, kw_only=True):
    """Sends a signal to a run; `sender` may name only the session's bot."""

    method = "send_signal"
    answer = Signal
    writes = True
    run_id: str
    name: str
    payload: Any = None
    id: str | None = None
    sender: str | None = None


class ListSignals(ListCall, frozen=True, kw_only=True):
    """Asks for the signals of a run that were not taken."""

    method = "list_signals"
    answer = list[Signal]
    run_id: str
    names: Sequence[str] | None = None
    limit: Number | None = 50


class TakeSignal(Call, frozen=True, kw_only=True):
    """Completes a step with a signal, if one waits."""

    method = "take_signal"
    answer = WorkflowStepLog
    writes = True
    step: WorkflowStepLog
    names: Sequence[str]
    until: str | None = None
    fence: Number | None = None


_ALL: tuple[type[Call], ...] = (
    *DEFINITION_CALLS, *SCHEDULE_CALLS, EmitRun, OpenRun, CreateRun,
    UpdateRunStatus, CancelRun, RetryRun, ForkRun, DeleteRun, GetRun, GetLatestRun, WatchRun, GetRunDefinition,
    ListRuns, ListAllRuns, CountRuns, ListOpenRuns, ListCrashedRuns, ClaimRun, LeaveQueue, RenewRun, ReleaseRun,
    GetLease, CreateStepLog, UpdateStepStatus, GetStepLog, ListStepLogs, PageStepLogs, GetCompletedStepIds,
    ListWaitingApprovals, SendSignal, ListSignals, TakeSignal, *KEYED_CALLS,
)  # fmt: skip

CALLS = {kind.method: kind for kind in _ALL}
"""The calls by method name."""

_decoders = {method: msgspec.json.Decoder(kind) for method, kind in CALLS.items()}
_result_decoders = {method: msgspec.json.Decoder(kind.answer) for method, kind in CALLS.items()}


def decode_call(request: Workflow) -> Call:
    """Decode the arguments of a call. Raise InvalidValue, which says what is wrong."""
    decoder = _decoders.get(request.call)
    if decoder is None:
        raise InvalidValue("call", f"unknown call {request.call!r}; known are {', '.join(CALLS)}")
    arguments = bytes(request.arguments)
    fault = body_fault(arguments, "the object") if is_suspicious(arguments) else None
    if fault is None:
        try:
            call = decoder.decode(arguments)
            where = zero_in(call) if ESCAPED_ZERO in arguments else None
            if where is None:
                return call
            fault = f"{where} must not contain a zero character"
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            fault = body_fault(arguments, "the object") or refusal(error)
    raise InvalidValue(f"arguments of {request.call}", fault)


def read_result(method: str, value: bytes) -> Any:
    """Decode the value of a call's answer; fields added by a later worker are ignored."""
    try:
        return _result_decoders[method].decode(value)
    except msgspec.ValidationError:
        kind = CALLS[method].answer
        return msgspec.convert(_known(msgspec.json.decode(value), msgspec.inspect.type_info(kind)), kind)


def _known(value: Any, kind: msgspec.inspect.Type) -> Any:
    """Return a value without the fields that its type does not have."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((_known(value, part) for part in kind.types if _is_of(value, part)), value)
    if isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and isinstance(value, list):
        return [_known(item, kind.item_type) for item in value]
    if isinstance(kind, msgspec.inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        return {
            name: _known(item, fields[name]) if name in fields else item
            for name, item in value.items()
            if name in fields or name == kind.tag_field
        }
    return value


def _is_of(value: Any, kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.StructType):
        return isinstance(value, dict) and (kind.tag_field is None or value.get(kind.tag_field) == kind.tag)
    return isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and isinstance(value, list)
