"""The workflow calls that are carried out: how many at a time, and which of them together.

Owns their bounds. Consecutive calls that write step logs, or keyed values, are carried out together, and all others
concurrently.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio.abc

from ..core.core import Core
from ..core.effects import Ask, Effect, Send
from ..settings import Limits
from ..wire.codec import encode
from ..wire.frames import RETRY, Code, ErrorFrame, Workflow
from .calls import STEP_CALLS, StepsAsked, WorkflowAnswers
from .keyed import KEYED_WRITES
from .noting import Noting
from .outgoing import Outgoing
from .rounds import Round

__all__ = ["CallsInProgress"]


class CallsInProgress:
    """See the module. `carry_out` carries out what follows."""

    def __init__(
        self,
        core: Core,
        answers: WorkflowAnswers,
        *,
        limits: Limits,
        outgoing: Outgoing,
        noting: Noting,
        carry_out: Callable[[list[Effect]], None],
    ) -> None:
        self._core = core
        self._answers = answers
        self._limits = limits
        self._outgoing = outgoing
        self._noting = noting
        self._carry_out = carry_out
        self._calls = 0
        self._bytes = 0
        self._asked: list[StepsAsked] = []
        """Consecutive calls of one kind, which will be carried out together."""
        self._kind: frozenset[str] = STEP_CALLS

    def __repr__(self) -> str:
        return f"<CallsInProgress {self._calls} with {self._bytes} bytes>"

    def begin(self, ask: Ask, call: Workflow, tasks: anyio.abc.TaskGroup) -> None:
        """Carry out a call in a task of these, or refuse it."""
        limits, size_bytes = self._limits, memoryview(call.arguments).nbytes
        full = self._bytes + size_bytes > limits.workflow_bytes_max and self._calls > 0
        if not self._outgoing.has_room(ask.address):
            self._refuse(ask, Code.BUSY, "the answers to earlier requests are still on their way; read them first")
            return
        if full or self._calls >= limits.workflow_calls_max:
            self._refuse(ask, Code.BUSY, f"{self._calls} workflow calls are in progress; try again later")
            return
        self._calls += 1
        self._bytes += size_bytes
        together = self._answers.begin(ask, call)
        waits = together.arrive()
        kind = next((kind for kind in (STEP_CALLS, KEYED_WRITES) if call.call in kind), None)
        if kind is not self._kind:
            self._asked = []  # later calls are carried out after this one
        if kind is not None and not waits:
            self._kind = kind
            if not self._asked:
                tasks.start_soon(self._carry_out_together, self._asked, kind)
            self._asked.append(StepsAsked(ask, call, together))
        else:
            self._asked = []
            tasks.start_soon(self._carry_out_call, ask, call, together, waits)

    async def _carry_out_together(self, asked: list[StepsAsked], kind: frozenset[str]) -> None:
        if asked is self._asked:
            self._asked = []
        answer = self._answers.answer_steps if kind is STEP_CALLS else self._answers.answer_keyed
        try:
            frames = await answer(asked)
        finally:
            self._called(*(call for _, call, _ in asked))
        self._carry_out([Send(each.ask.address, frame) for each, frame in zip(asked, frames, strict=True)])

    async def _carry_out_call(self, ask: Ask, call: Workflow, together: Round, waits: bool) -> None:
        bot = self._core.directory.bots.get(ask.bot_id)  # none, for who only asks without keys
        bot_name = "" if bot is None else bot.name
        try:
            frame = await self._answers.answer(ask, call, together, bot_name=bot_name, waits=waits)
        finally:
            self._called(call)
        self._carry_out([Send(ask.address, frame)])

    def _called(self, *calls: Workflow) -> None:
        self._calls -= len(calls)
        self._bytes -= sum(memoryview(call.arguments).nbytes for call in calls)

    def _refuse(self, ask: Ask, code: Code, message: str) -> None:
        error = ErrorFrame(code=code, message=message, request=ask.query.request, retry=code in RETRY)
        self._noting.note("refused", address=ask.address, code=code)
        self._carry_out([Send(ask.address, encode(error))])
