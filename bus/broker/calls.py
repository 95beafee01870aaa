"""Workflow calls: carried out on the store, and answered with a frame.

Owns that no answer is larger than a frame, and what a bot is answered with. `rounds` has the order of a session's
calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import anyio
import msgspec
import structlog

from ..core.access import Access
from ..core.effects import Ask, Note
from ..core.large import LargeFrames
from ..errors import RecordDamaged, RequestError, StoreFailure, TooLarge
from ..model.filters import RunCount, RunCounts
from ..model.keys import Principal
from ..model.openings import OpenedRun
from ..model.records import RunStatus, StepPage, WorkflowStepLog
from ..model.repository import StepCreation, StepMove, WorkflowStore
from ..settings import Limits
from ..wire.calls import (
    CALLS,
    Call,
    ClaimRun,
    CountRuns,
    CreateStepLog,
    DeleteRun,
    GetCompletedStepIds,
    GetLatestRun,
    ListCall,
    ListOpenRuns,
    ListSignals,
    ListStepLogs,
    ListWaitingApprovals,
    PageStepLogs,
    SendSignal,
    UpdateStepStatus,
    decode_call,
)
from ..wire.codec import encode, ok_frame
from ..wire.definition_calls import (
    DeleteDefinition,
    GetDefinition,
    GetDefinitionByName,
    OfferDefinition,
    SaveDefinition,
)
from ..wire.echoes import carried
from ..wire.frames import RETRY, Code, ErrorFrame, Refusal, Workflow
from ..wire.keyed_calls import KeyedCall
from ..wire.limits import FRAME_ROOM_BYTES, NAME_CHARACTERS_MAX
from ..wire.opening_calls import OpenRun
from ..wire.schedule_calls import DeleteSchedule, SaveSchedule
from .call_rights import CallRights
from .deeds import deed
from .keyed import KeyedAnswers
from .rounds import Round
from .waking import RunWaking

__all__ = ["STEP_CALLS", "StepsAsked", "WorkflowAnswers"]

_PORTION_RECORDS = 8
"""Records of a list that are read at once: with the largest steps some 140 MiB."""

_ANSWER_ROOM_BYTES = 1024
"""Room around a record in an answer of one frame."""

_COUNTED_RECORDS = 256
"""Runs that are read at once to be counted: these are small."""

_NOTHING: dict[type[Call], Any] = {
    DeleteDefinition: False,
    DeleteRun: False,
    DeleteSchedule: False,
    GetCompletedStepIds: [],
    ListStepLogs: [],
    ListSignals: [],
    ListWaitingApprovals: [],
    PageStepLogs: {"steps": [], "more": False},
}
"""The values of calls that find nothing, if that is not null."""

_FINDS = GetDefinition | GetDefinitionByName | GetLatestRun
"""Calls whose record may be another one than was named: it is looked at whether the bot may see it."""

_log = structlog.get_logger("posthouse")


class StepsAsked(NamedTuple):
    """A call that writes a step log."""

    ask: Ask
    call: Workflow
    together: Round


class _StepAsked(NamedTuple):
    """The write of a step log, for the call with an index."""

    place: int
    call: Call
    write: StepCreation | StepMove


STEP_CALLS = frozenset({CreateStepLog.method, UpdateStepStatus.method})
"""Calls that are carried out together if they arrive together."""


class WorkflowAnswers:
    """Answers calls. `begin` is called when a call arrives; `answer` then carries it out, in its own task.

    A list of which a bot may see only a part takes as long as the answer to a question at most.
    """

    def __init__(
        self,
        workflows: WorkflowStore,
        access: Access,
        *,
        limits: Limits,
        noted: Callable[[Ask, Note], None],
        waking: RunWaking,
        keyed: KeyedAnswers,
        large: LargeFrames,
        now: Callable[[], float],
    ) -> None:
        self._workflows = workflows
        self._framed = workflows.limited(limits.frame_bytes_max - _ANSWER_ROOM_BYTES)
        self._seconds_max = limits.query_seconds_max
        self._rights = CallRights(access, workflows)
        self._defining = anyio.Lock()
        """Held while a definition or schedule is looked at and then written: whose its id is must not change."""
        self._noted = noted
        self._waking = waking
        self._keyed = keyed
        self._large = large
        self._now = now
        self.frame_bytes_max = limits.frame_bytes_max
        self._rounds: dict[bytes, Round] = {}

    def __repr__(self) -> str:
        return f"<WorkflowAnswers sessions={len(self._rounds)}>"

    def begin(self, ask: Ask, call: Workflow) -> Round:
        """Return the round in which a call is answered, among those of its session."""
        kind = CALLS.get(call.call)
        writes = kind is not None and kind.writes
        together = self._rounds.get(ask.address)
        if together is None or together.writes != writes:
            together = self._rounds[ask.address] = Round(writes, after=together)
        together.open += 1
        return together

    async def answer(
        self, ask: Ask, call: Workflow, together: Round, *, bot_name: str, waits: bool = False
    ) -> bytes:
        """Carry out a call, if it `waits` when its turn has come, and return the frame to send.

        Raises StoreFailure only.
        """
        try:
            if waits:
                await together.wait()
            if together.writes:
                return await self._answer(ask, call, bot_name)
            async with together.turns:
                return await self._answer(ask, call, bot_name)
        except Exception as error:
            return _refused(call, error)
        finally:
            self._end(ask.address, together)

    async def answer_steps(self, asked: Sequence[StepsAsked]) -> list[bytes]:
        """Carry out calls that write step logs, whose turn has come, and return their frames. Raises like `answer`.

        A task and a place in the store's queue for each would cost more than the write itself.
        """
        frames: list[bytes] = [b""] * len(asked)
        writes: list[_StepAsked] = []
        try:
            for index, (ask, request, _) in enumerate(asked):
                try:
                    call = decode_call(request)
                    write = await self._rights.step_write(ask.principal, call)
                    writes.append(_StepAsked(index, call, write))
                except Exception as error:
                    frames[index] = _refused(request, error)
            in_parts = {ask.address: self._large.are_read_by(ask.address) for ask, _, _ in asked}
            for each in set(in_parts.values()):
                some = [write for write in writes if in_parts[asked[write.place].ask.address] is each]
                for (index, call, _), outcome in zip(some, await self._write_steps(some, each), strict=True):
                    request = asked[index].call
                    try:
                        frames[index] = self._done(asked[index].ask, request, call, _value(outcome))
                    except Exception as error:
                        frames[index] = _refused(request, error)
        finally:
            for ask, _, together in asked:
                self._end(ask.address, together)
        return frames

    async def answer_keyed(self, asked: Sequence[StepsAsked]) -> list[bytes]:
        """Carry out calls that write keyed values, likewise."""
        frames: list[bytes] = [b""] * len(asked)
        calls: dict[int, tuple[Ask, Any]] = {}
        try:
            for place, (ask, request, _) in enumerate(asked):
                try:
                    calls[place] = ask, decode_call(request)
                except Exception as error:
                    frames[place] = _refused(request, error)
            for place, outcome in zip(calls, await self._keyed.write(list(calls.values())), strict=True):
                ask, request, _ = asked[place]
                if isinstance(outcome, Exception):
                    frames[place] = _refused(request, outcome)
                else:
                    frames[place] = ok_frame(request.request, outcome)
        finally:
            for ask, _, together in asked:
                self._end(ask.address, together)
        return frames

    async def _write_steps(
        self, writes: Sequence[_StepAsked], in_parts: bool
    ) -> Sequence[WorkflowStepLog | Exception]:
        try:
            return await self._store(in_parts).write_steps([each.write for each in writes])
        except StoreFailure:
            raise
        except Exception as error:
            return [error] * len(writes)

    def _store(self, in_parts: bool) -> WorkflowStore:
        """Return the store for a client: one that reads no answers in parts writes nothing it could not read."""
        return self._workflows if in_parts else self._framed

    def _end(self, address: bytes, together: Round) -> None:
        together.open -= 1
        if not together.open:
            together.done.set()
            together.after = None
            if self._rounds.get(address) is together:
                del self._rounds[address]

    async def _answer(self, ask: Ask, request: Workflow, bot_name: str) -> bytes:
        call = decode_call(request)
        if isinstance(call, KeyedCall):
            return self._frame(ask, request, call, await self._keyed.answer(ask, call))
        if ask.principal is not None and isinstance(
            call, SaveDefinition | OfferDefinition | DeleteDefinition | SaveSchedule | DeleteSchedule
        ):
            async with self._defining:
                return await self._carry_out(ask, request, call, bot_name)
        return await self._carry_out(ask, request, call, bot_name)

    async def _carry_out(self, ask: Ask, request: Workflow, call: Call, bot_name: str) -> bytes:
        principal = ask.principal
        if principal is not None and request.call in STEP_CALLS:
            store = self._store(self._large.are_read_by(ask.address))
            [outcome] = await store.write_steps([await self._rights.step_write(principal, call)])
            return self._done(ask, request, call, _value(outcome))
        if principal is not None and not await self._rights.permit(principal, call):
            return self._frame(ask, request, call, _NOTHING.get(type(call)))
        in_parts = self._large.are_read_by(ask.address)
        if isinstance(call, ListOpenRuns):
            value: Any = await self._list_open(ask, call, bot_name)
        elif isinstance(call, ListCall):
            value = await self._listed(call, principal, in_parts=in_parts)
        elif isinstance(call, CountRuns) and principal is not None and not self._rights.reads_all(principal):
            value = await self._count_seen(call, principal)
        elif isinstance(call, PageStepLogs):
            value = self._cut(await self._workflows.page_step_logs(call.run_id, call.after))
        else:
            workflows = self._store(in_parts)
            workflows = workflows if principal is None else workflows.on_behalf_of(principal.bot_id)
            arguments = _arguments(call, ask.bot_id, bot_name)
            if principal is not None and isinstance(call, OpenRun):
                arguments["opening"], arguments["is_new"] = await self._rights.opening(principal, call)
            with self._waking.waiting(ask, call):
                value = await _method(workflows, call)(**arguments)
        if principal is not None and value is not None and isinstance(call, _FINDS):
            value = next(iter(await self._rights.seen(principal, [value])), None)
        return self._done(ask, request, call, value)

    def _done(self, ask: Ask, request: Workflow, call: Call, value: Any) -> bytes:
        """Return the answer to a call that was carried out, and note what somebody did to another's run."""
        note = deed(call, value) if call.writes else None
        if note is not None:
            self._noted(ask, note)
        self._waking.tell(ask, call, value)
        if not request.echo and (values := carried(call)):
            value = msgspec.structs.replace(value, **dict.fromkeys(values))
        return self._frame(ask, request, call, value)

    def _frame(self, ask: Ask, request: Workflow, call: Call, value: Any) -> bytes:
        frame = ok_frame(request.request, value)
        if len(frame) <= self.frame_bytes_max:
            return frame
        if isinstance(value, OpenedRun) and value.steps is not None and not self._large.are_read_by(ask.address):
            return self._frame(ask, request, call, OpenedRun(claim=value.claim, created=value.created))
        kept = self._large.answer(ask.address, request.request, frame, self._now())
        if kept is None:
            raise self.too_large(call, len(frame))
        return kept

    async def _listed(self, call: ListCall, principal: Principal | None, *, in_parts: bool) -> list[msgspec.Raw]:
        of_one_run = isinstance(call, ListStepLogs | ListSignals)
        of_one_run = of_one_run or (isinstance(call, ListWaitingApprovals) and call.run_id is not None)
        if principal is None or of_one_run or self._rights.reads_all(principal):
            return await self._list(call, in_parts=in_parts)
        return await self._list_seen(call, principal, in_parts=in_parts)

    async def _list(self, call: ListCall, *, in_parts: bool) -> list[msgspec.Raw]:
        """Read a list in portions, as long as it fits into a frame. Concurrent inserts may shift them."""
        found, read = _Found(call, self, in_parts=in_parts), 0
        while True:
            portion = _PORTION_RECORDS if call.limit is None else min(_PORTION_RECORDS, call.limit - read)
            page = await _method(self._workflows, call)(**_filter(call), limit=portion, offset=call.offset + read)
            found.add(page)
            read += len(page)
            if len(page) < portion or read == call.limit:
                return found.written

    async def _list_open(self, ask: Ask, call: ListOpenRuns, bot_name: str) -> list[msgspec.Raw]:
        """Read which runs a bot is to open, without those that its messages open."""
        if await self._rights.runs_all(ask.principal, call.workflow):
            self._waking.execute(ask, call.workflow)
        found, read = _Found(call, self, in_parts=False), 0
        arguments = _arguments(call, ask.bot_id, bot_name)
        while True:
            size = _PORTION_RECORDS if call.limit is None else min(_PORTION_RECORDS, call.limit - read)
            arguments |= {"limit": size, "offset": call.offset + read}
            page = await self._workflows.list_open_runs(**arguments)
            seen = page if ask.principal is None else await self._rights.seen(ask.principal, page)
            found.add(await self._waking.unowed(ask.bot_id, seen))
            read += len(page)
            if len(page) < size or read == call.limit:
                return found.written

    def _cut(self, page: StepPage) -> dict[str, Any]:
        """Return a page without the step logs that do not fit into the frame, except the first."""
        steps: list[msgspec.Raw] = []
        size_bytes = FRAME_ROOM_BYTES
        for step in page.steps:
            written = encode(step)
            size_bytes += len(written) + 1
            if steps and size_bytes > self.frame_bytes_max:
                break
            steps.append(msgspec.Raw(written))
        return {"steps": steps, "more": page.more or len(steps) < len(page.steps)}

    async def _list_seen(self, call: ListCall, principal: Principal, *, in_parts: bool) -> list[msgspec.Raw]:
        """Read a list likewise, of what a bot may see: `limit` and `offset` count nothing else."""
        found, read, passed_over = _Found(call, self, in_parts=in_parts), 0, 0
        try:
            with anyio.fail_after(self._seconds_max):
                while True:
                    page = await _method(self._workflows, call)(
                        **_filter(call), limit=_PORTION_RECORDS, offset=read
                    )
                    seen = await self._rights.seen(principal, page)
                    skipped = min(len(seen), call.offset - passed_over)
                    passed_over += skipped
                    room = None if call.limit is None else call.limit - len(found.written)
                    found.add(seen[skipped:][:room])
                    read += len(page)
                    if len(page) < _PORTION_RECORDS or len(found.written) == call.limit:
                        return found.written
        except TimeoutError:
            raise self._too_slow() from None

    async def _count_seen(self, call: CountRuns, principal: Principal) -> RunCounts:
        """Count the runs that a bot may see."""
        numbers: Counter[tuple[str, RunStatus]] = Counter()
        read = 0
        try:
            with anyio.fail_after(self._seconds_max):
                while True:
                    page = await self._workflows.list_all_runs(
                        None, _COUNTED_RECORDS, offset=read, where=call.where
                    )
                    numbers.update(
                        (run.workflow_id, run.status) for run in await self._rights.seen(principal, page)
                    )
                    read += len(page)
                    if len(page) < _COUNTED_RECORDS:
                        break
        except TimeoutError:
            raise self._too_slow() from None
        counts = [RunCount(workflow_id=key[0], status=key[1], runs=runs) for key, runs in sorted(numbers.items())]
        return RunCounts(counts=tuple(counts))

    def _too_slow(self) -> Refusal:
        text = f"looking for what you may see takes longer than {self._seconds_max:g} s, the maximum; ask for less"
        return Refusal(Code.BUSY, text)

    def too_large(self, call: Call, size_bytes: int) -> TooLarge:
        """Return the error for an answer that does not fit into a frame."""
        if isinstance(call, ListCall):
            hint = "use a smaller limit"
        elif call.writes:
            hint = "it was carried out; only the record cannot be sent"
        else:
            hint = "this client does not read answers in parts: use one that does"
        error = TooLarge(f"the answer to {call.method}", size_bytes, self.frame_bytes_max)
        return error.reworded(f"{error}; {hint}")


class _Found:
    """The records of a list, each once, as long as they fit into a frame; `in_parts`, one may be larger."""

    def __init__(self, call: ListCall, answers: WorkflowAnswers, *, in_parts: bool) -> None:
        self._alone_max = 1 if in_parts else 0
        self._call = call
        self._answers = answers
        self._records: dict[str, msgspec.Raw] = {}
        self._size_bytes = FRAME_ROOM_BYTES

    def add(self, records: Sequence[Any]) -> None:
        """Add records. Raise TooLarge."""
        for record in records:
            written = self._records[record.id] = msgspec.Raw(encode(record))
            self._size_bytes += len(bytes(written)) + 1
            if self._size_bytes > self._answers.frame_bytes_max and len(self._records) > self._alone_max:
                raise self._answers.too_large(self._call, self._size_bytes)

    @property
    def written(self) -> list[msgspec.Raw]:
        """The records, as they are written."""
        return list(self._records.values())


def _method(workflows: WorkflowStore, call: Call) -> Any:
    return getattr(workflows, call.method)


def _filter(call: ListCall) -> dict[str, Any]:
    return {name: value for name, value in _fields(call) if name not in ("limit", "offset")}


def _fields(call: Call) -> list[tuple[str, Any]]:
    return [(name, getattr(call, name)) for name in call.__struct_fields__]


def _arguments(call: Call, bot_id: str, bot_name: str) -> dict[str, Any]:
    """Return a method's arguments. A bot can claim runs, and send signals, only for itself."""
    arguments = dict(_fields(call))
    if isinstance(call, ClaimRun | ListOpenRuns | OpenRun):
        if call.holder not in (None, bot_id, bot_name):
            raise Refusal(
                Code.FORBIDDEN, f"bot {bot_name!r} cannot claim a run for {call.holder[:NAME_CHARACTERS_MAX]!r}"
            )
        arguments["holder"] = bot_id
    if isinstance(call, SendSignal):
        if call.sender not in (None, bot_id, bot_name):
            text = f"bot {bot_name!r} cannot send a signal as {call.sender[:NAME_CHARACTERS_MAX]!r}"
            raise Refusal(Code.FORBIDDEN, text)
        arguments["sender"] = bot_name
    return arguments


def _value(outcome: WorkflowStepLog | Exception) -> WorkflowStepLog:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _refused(call: Workflow, error: Exception) -> bytes:
    """Return the frame that reports an error; raise StoreFailure, which ends the worker."""
    if isinstance(error, StoreFailure):
        raise error
    if isinstance(error, Refusal):
        return _refusal(call, error.code, error.message, error.details)
    if isinstance(error, RequestError):
        return _refusal(call, error.code, error.message, error.details)
    if isinstance(error, RecordDamaged):
        _log.error("record_damaged", error=str(error))
        return _refusal(call, Code.INTERNAL, str(error))
    _log.error("workflow_call_failed", call=call.call, exc_info=error)
    return _refusal(call, Code.INTERNAL, "the worker could not carry this out; see its log")


def _refusal(call: Workflow, code: str, message: str, details: dict[str, Any] | None = None) -> bytes:
    return encode(
        ErrorFrame(code=code, message=message, request=call.request, retry=code in RETRY, details=details)
    )
