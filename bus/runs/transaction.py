"""One transaction of a run: a step that completes together with the messages that it sends and settles.

Owns what a block collects, and that it is sent to the worker in one call with one id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Unpack, cast

import msgspec
import uuid_utils

from ..client.draft import Draft, PublishOptions, ReplyOptions, SendOptions, publication
from ..client.ids import chosen_id
from ..client.keyed import KeyedChange, committed_value
from ..client.message import Message
from ..errors import StepChanged, TooLarge
from ..model.records import CONTINUED, NewSignal, RunStatus, StepStatus, WorkflowRun, WorkflowStepLog
from ..model.tracing import traced
from ..model.values import SIGNAL_BYTES_MAX, same_json
from ..wire.codec import encode
from .children import Child, child_id
from .continuing import successor_id
from .handle import RunHandle
from .recorder import Recorder
from .replay import COMMIT, changed_text, check_name
from .starting import find_definition, new_run

__all__ = ["CommitResult", "CommittingWorkflows", "RunCommit"]


class CommitResult(Protocol):
    """The result of a transaction."""

    @property
    def seqs(self) -> Sequence[int | None]:
        """The seqs of its messages; None for one that is due later."""


class CommittingWorkflows(Protocol):
    """Workflows that are kept beside messages, so that one transaction can hold both."""

    async def commit(
        self,
        *,
        id: str,
        run_id: str | None = None,
        fence: int | None = None,
        steps: Sequence[WorkflowStepLog] = (),
        context: Any = None,
        status: RunStatus | None = None,
        error: str | None = None,
        messages: Sequence[Draft] = (),
        acks: Sequence[Message] = (),
        result: Any = None,
        runs: Sequence[WorkflowRun] = (),
        signals: Sequence[NewSignal] = (),
        values: Sequence[KeyedChange] = (),
    ) -> CommitResult:
        """Do all of it or nothing; with an id that was committed before, return the first answer."""

    async def send_through(
        self, drafts: Sequence[Draft], commit: Callable[[Sequence[Draft]], Awaitable[CommitResult]]
    ) -> CommitResult:
        """Commit messages after middleware has seen them, once, however often they are committed."""


class RunCommit:
    """`async with run.commit("announce") as tx:` collects the contents of one transaction.

    Nothing is done before the block is left, and nothing if it raises. If the step completed before, `done` is true
    and what the block calls is ignored, except acks: these are sent at once, because a redelivered message still
    has to be settled.
    """

    def __init__(self, recorder: Recorder, name: str, *, input: Any, output: Any) -> None:
        self._recorder = recorder
        self._name = name
        self._step_id = recorder.take_name(name)
        self._input = recorder.value(input, "input", self._step_id)
        self._messages: list[Draft] = []
        self._bytes = 0
        self._acks: list[Message] = []
        self._signals: list[NewSignal] = []
        self._values: list[KeyedChange] = []
        self._children: dict[str, Child] = {}
        self._context: dict[str, Any] = {}
        self._completes = False
        self._open = False
        self.output = output
        self.done = False
        """Whether the step completed before."""
        self.seqs: Sequence[int | None] = ()
        """The seqs of the messages, in the order of the calls; known after the block."""

    @property
    def output(self) -> Any:
        """The output to record for the step, which the block may set. If `done`, the recorded output.

        Setting it raises InvalidValue or TooLarge for what cannot be recorded.
        """
        return self._output

    @output.setter
    def output(self, output: Any) -> None:
        self._recorder.value(output, "output", self._step_id)
        self._output: Any = output

    def __repr__(self) -> str:
        state = "done" if self.done else f"messages={len(self._messages)} acks={len(self._acks)}"
        return f"<Commit {self._step_id!r} {state}>"

    # ── Contents ─────────────────────────────────────────────────────────────────────────────────────────

    def send(self, to: str, body: Any, **options: Unpack[SendOptions]) -> None:
        """Send a direct message; the options are the fields of `bus.Draft`."""
        self.message(Draft(to=to, body=body, **options))

    def publish(self, channel: str, body: Any, **options: Unpack[PublishOptions]) -> None:
        """Publish on a channel; the options are the fields of `bus.Draft`."""
        self.message(Draft(channel=channel, body=body, **options))

    def reply(self, message: Message, body: Any, **options: Unpack[ReplyOptions]) -> None:
        """Send a direct message that answers another one."""
        self.message(Draft(to=message.sender_id, body=body, reply_to=message.id, **options))

    def message(self, draft: Draft) -> None:
        """Send or publish a draft.

        Raises InvalidBody for a body that is not JSON, and TooLarge if the transaction would not fit into a frame.
        """
        self._check_open()
        draft = msgspec.structs.replace(draft, id=chosen_id(draft.id))
        self._add_bytes(len(encode(publication(draft, draft.id or ""))))
        self._messages.append(draft)

    def start(
        self, workflow: str, input: Any = None, *, name: str | None = None, concurrency_key: str | None = None
    ) -> RunHandle:
        """Start a run of a workflow, the run's child, as part of the transaction, and return a handle of it.

        Its id is made of the run's id, the commit and `name`, by default the workflow's: use a name once in a block
        (ValueError). Raises InvalidValue or TooLarge for an input that cannot be recorded, or does not fit into the
        frame. Leaving the block raises UnknownWorkflow if there is no such workflow. See `Run.start`.
        """
        self._check_open()
        recorder = self._recorder
        what = name or workflow
        check_name(what)
        id = child_id(recorder.run_id, f"{self._step_id}/{what}")
        if id in self._children:
            raise ValueError(f"{what!r} is started twice in commit {self._name!r}: give each a name=")
        child = Child(
            workflow=workflow,
            input=recorder.value(input, "input", f"{self._step_id}/{what}"),
            concurrency_key=concurrency_key,
            attributes=traced(recorder.run.attributes),
        )
        self._add_bytes(len(encode(child)))
        self._children[id] = child
        return RunHandle(recorder.hold.workflows, id, recorder.hold.timing, recorder.values)

    def continue_as_new(self, input: Any = None) -> RunHandle:
        """Complete the run, and start its successor with another input, as part of the transaction.

        See `Run.continue_as_new`. Raises InvalidValue or TooLarge for an input that cannot be recorded, and
        ValueError if the run has a result: its successor will have one.
        """
        self._check_completable()
        recorder = self._recorder
        self._refuse_result()
        id = successor_id(recorder.run_id)
        if id in self._children:
            raise ValueError(f"run {recorder.run_id!r} continues twice in commit {self._name!r}: call it once")
        child = Child(
            workflow=recorder.run.workflow_id,
            input=recorder.value(input, "input", self._step_id),
            concurrency_key=recorder.run.concurrency_key,
            trigger_type=CONTINUED,
            attributes=recorder.run.attributes,
        )
        self._add_bytes(len(encode(child)))
        self._children[id] = child
        self._completes = True
        return RunHandle(recorder.hold.workflows, id, recorder.hold.timing, recorder.values)

    async def _runs(self) -> list[WorkflowRun]:
        hold, now = self._recorder.hold, self._recorder.hold.timing.clock()
        runs: list[WorkflowRun] = []
        for id, child in self._children.items():
            definition = None
            if child.trigger_type == CONTINUED:  # by its id: another workflow may have that as its name
                definition = await hold.workflows.get_definition(child.workflow)
            if definition is None:
                definition = await find_definition(hold.workflows, hold.bot_id, child.workflow)
            runs.append(new_run(definition, child.start(id), now, parent_run_id=self._recorder.run_id))
        return runs

    def signal(self, run_id: str, name: str, payload: Any = None) -> None:
        """Send a signal to a run, as part of the transaction.

        Raises InvalidValue or TooLarge for a payload that cannot be sent, or does not fit into the frame. If the
        run has ended or does not exist when the block is left, nothing of the transaction is carried out.
        """
        self._check_open()
        what = f"payload of signal {name!r}"
        value = self._recorder.values.plain(payload, what, bytes_max=SIGNAL_BYTES_MAX, name=what)
        signal = NewSignal(id=str(uuid_utils.uuid7()), run_id=run_id, name=name, payload=value)
        self._add_bytes(len(encode(signal)))
        self._signals.append(signal)

    def put(
        self, store: str, key: str, value: Any, *, expected: int | None = None, ttl: float | None = None
    ) -> None:
        """Put a value into a keyed store, as part of the transaction; the arguments are those of `KeyedStore.put`.

        If the key has another revision than is `expected`, leaving the block raises RevisionConflict, and nothing
        of the transaction is carried out. Raises InvalidValue, and TooLarge if it does not fit into the frame.
        """
        self._change(KeyedChange(store=store, key=key, value=value, expected=expected, ttl=ttl))

    def delete(self, store: str, key: str, *, expected: int | None = None) -> None:
        """Delete a key of a keyed store, as part of the transaction; otherwise like `put`."""
        self._change(KeyedChange(store=store, key=key, is_deletion=True, expected=expected))

    def _change(self, change: KeyedChange) -> None:
        self._check_open()
        self._add_bytes(len(encode(committed_value(change))))
        self._values.append(change)

    def _add_bytes(self, size_bytes: int) -> None:
        """Raise TooLarge if the transaction would not fit into a frame with so many bytes more."""
        size_bytes += self._bytes + 1
        bytes_max = getattr(self._recorder.hold.workflows, "arguments_bytes_max", None)
        if bytes_max is not None and size_bytes > bytes_max:
            raise TooLarge(f"the frame of commit {self._step_id!r}", size_bytes, bytes_max)
        self._bytes = size_bytes

    def ack(self, message: Message) -> None:
        """Settle a message that was delivered to this bot."""
        self._check_open()
        self._acks.append(message)

    def context(self, values: Mapping[str, Any]) -> None:
        """Set values in the run's context, as part of the transaction.

        Raises InvalidValue or TooLarge if the context could not be recorded.
        """
        self._check_open()
        self._recorder.context_value({**self._context, **values})
        self._context.update(values)

    def complete(self, result: Any = msgspec.UNSET) -> None:
        """Complete the run as part of the transaction, as if it had been completed before it was opened.

        `result` is the run's (`Run.result`): by default what was set there.

        Leaving the run's block then writes nothing, and an exception does not fail it. Leaving this block raises
        RuntimeError while other steps are running. Raises RunCancelled if the run is being cancelled.
        """
        self._check_completable()
        if result is not msgspec.UNSET:
            self._recorder.set_result(result)
        self._completes = True

    def _refuse_result(self) -> None:
        if self._recorder.result is not None:
            raise ValueError(f"run {self._recorder.run_id!r} has a result: it cannot continue as a new run")

    def _check_completable(self) -> None:
        """Raise RunCancelled if the run is being cancelled: it does not complete any more."""
        self._check_open()
        if self._recorder.hold.cancelling.told:
            self._recorder.hold.cancelling.tell()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError(f"commit {self._name!r} can only be used inside its block: `async with … as tx:`")

    # ── The block ────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> RunCommit:
        recorder = self._recorder
        row = recorder.recorded(self._step_id, COMMIT)
        if row is not None and not same_json(row.input, self._input):
            raise StepChanged(recorder.run_id, self._step_id, changed_text(row.input, self._input))
        if row is not None and row.status == StepStatus.COMPLETED:
            self.done, self._output, self._open = True, row.output, True
            return self
        recorder.refuse_news(self._step_id)
        if row is not None and row.status != StepStatus.FAILED:
            raise StepChanged(recorder.run_id, self._step_id, f"the step recorded under this name is {row.status}")
        if not hasattr(recorder.hold.workflows, "commit"):
            raise TypeError("a commit needs a bot's connection: an open store has no messages beside its runs")
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            return
        if self.done:
            for message in self._acks:
                await message.ack(confirm=True)
        else:
            await self._carry_out()

    async def _carry_out(self) -> None:
        recorder, hold = self._recorder, self._recorder.hold
        before = recorder.recorded(self._step_id, COMMIT)
        row = recorder.row(
            self._step_id,
            self._name,
            status=StepStatus.COMPLETED,
            attempt=1 if before is None else before.attempt + 1,
            input=self._input,
            output=recorder.value(self.output, "output", self._step_id),
            idempotency_key=COMMIT,
        )
        row = msgspec.structs.replace(row, completed_at=row.started_at)
        context = recorder.context_value(self._context)
        changed = not recorder.is_saved(context)
        commit_id = str(uuid_utils.uuid7())
        if successor_id(recorder.run_id) in self._children:
            self._refuse_result()
        runs = await self._runs()

        workflows = cast("CommittingWorkflows", hold.workflows)

        async def commit(messages: Sequence[Draft]) -> CommitResult:
            committed = await workflows.commit(
                id=commit_id,
                run_id=recorder.run_id,
                fence=hold.fence,
                steps=[row],
                context=context if changed else None,
                status=RunStatus.COMPLETED if self._completes else None,
                result=recorder.result if self._completes else None,
                messages=messages,
                acks=self._acks,
                runs=runs,
                signals=self._signals,
                values=self._values,
            )
            # In the call itself, because `Hold.record` finishes it even if it is cancelled.
            recorder.note(row)
            recorder.context.update(self._context)
            recorder.note_saved(context)
            if self._completes:
                recorder.completed, hold.held = True, False
            return committed

        async with hold.work(), hold.ending() if self._completes else nullcontext():
            if self._completes and hold.working > 1:
                raise RuntimeError(
                    "other steps are still running while this commit completes the run: await them first"
                )
            await recorder.close_left()
            committed = await workflows.send_through(
                self._messages, lambda messages: hold.record(partial(commit, messages))
            )
        self._output, self.seqs = row.output, committed.seqs
