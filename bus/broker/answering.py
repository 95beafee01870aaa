"""Answering questions: one after another, each within a time.

Owns the task that does this. Which question is next is decided by `core.questions`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import structlog

from ..core.core import Core
from ..core.effects import Ask, Effect, FindStart, Moment, Note, Send, denied
from ..core.questions import Question, Questions
from ..errors import RecordDamaged, StorageBusy, StorageFull, StoreFailure
from ..model.repository import MessageLog
from ..settings import Limits
from ..wire.codec import encode, ok_frame
from ..wire.frames import RETRY, Code, Compact, ErrorFrame, Refusal, Scrub, Workflow
from .outgoing import Outgoing
from .queries import Queries

__all__ = ["Answering"]

_LOOK_SECONDS = 0.05
"""How often to look whether a connection has read its answers."""

_log = structlog.get_logger("posthouse")


class Answering:
    """See the module."""

    def __init__(
        self,
        core: Core,
        log: MessageLog,
        *,
        queries: Queries,
        outgoing: Outgoing,
        limits: Limits,
        moment: Callable[[], Moment],
    ) -> None:
        self._core = core
        self._log = log
        self._queries = queries
        self._outgoing = outgoing
        self._seconds_max = limits.query_seconds_max
        self._moment = moment
        self._questions = Questions(limits)
        self._more = anyio.Event()
        self._scrubs: deque[Ask] = deque()
        self._scrub = anyio.Event()

    def __repr__(self) -> str:
        return f"<Answering {self._questions}>"

    def add(self, question: Question) -> list[Effect]:
        """Let a question wait for its turn; return its refusal, or that of a question that made room for it."""
        try:
            session = self._core.sessions.get(question.address)
            share = self._core.shares.of(None if session is None else session.principal)
            displaced = self._questions.add(question, self._outgoing.has_room, share)
        except Refusal as error:
            return self._refused(question, error.code, error.message, error.details)
        self._more.set()
        if displaced is None:
            return []
        return self._refused(displaced, Code.BUSY, "too many queries are in progress; try again later")

    async def run(self, carry_out: Callable[[list[Effect]], None]) -> None:
        """Answer questions until cancelled. Raises StoreFailure."""
        while True:
            question = self._questions.take(self._outgoing.has_room)
            if question is None:
                await self._wait()
            elif isinstance(question, Ask) and isinstance(question.query, Scrub | Compact):
                self._scrubs.append(question)
                self._scrub.set()
            else:
                await self._answer_one(question, carry_out)

    async def run_scrubs(self, carry_out: Callable[[list[Effect]], None]) -> None:
        """Answer until cancelled what may wait long for the writer, beside the others. Raises StoreFailure."""
        while True:
            while self._scrubs:
                await self._answer_one(self._scrubs.popleft(), carry_out)
            self._scrub = anyio.Event()
            await self._scrub.wait()

    async def _answer_one(self, question: Question, carry_out: Callable[[list[Effect]], None]) -> None:
        try:
            effects = await self._answer(question)
        finally:
            self._questions.done(question)
        carry_out(effects)

    async def _wait(self) -> None:
        self._more = anyio.Event()
        if not len(self._questions):
            await self._more.wait()
            return
        # All that wait are of connections that do not read: those without a session any more will not.
        self._questions.discard(lambda address: self._core.sessions.get(address) is None)
        with anyio.move_on_after(_LOOK_SECONDS):
            await self._more.wait()

    async def _answer(self, question: Question) -> list[Effect]:
        try:
            if isinstance(question, Ask) and isinstance(question.query, Scrub):
                return await self._scrubbed(question)
            with anyio.fail_after(self._seconds_max):
                if isinstance(question, FindStart):
                    start_seq = await self._log.seq_before(question.time)
                    return self._core.start_found(question, start_seq, self._moment())
                assert not isinstance(question.query, Workflow)
                value = await self._queries.answer(question, question.query, self._moment().now)
            return [Send(question.address, ok_frame(question.query.request, value))]
        except TimeoutError:
            _log.warning("question_interrupted", op=_op(question), bot_id=question.bot_id)
            text = f"this takes longer than {self._seconds_max:g} s, the maximum; ask for less, or try again later"
            return self._refused(question, Code.BUSY, text)
        except Refusal as error:
            return self._refused(question, error.code, error.message, error.details)
        except (StorageBusy, StorageFull) as error:
            code = Code.BUSY if isinstance(error, StorageBusy) else Code.STORAGE_FULL
            return self._refused(question, code, str(error))
        except StoreFailure:
            raise
        except RecordDamaged as error:
            _log.error("message_damaged", error=str(error))
            return self._refused(question, Code.INTERNAL, str(error))
        except Exception:
            _log.exception("question_failed", op=_op(question))
            return self._refused(question, Code.INTERNAL, "the worker could not answer this; see its log")

    async def _scrubbed(self, ask: Ask) -> list[Effect]:
        assert isinstance(ask.query, Scrub)
        value = await self._queries.answer(ask, ask.query, self._moment().now)
        noted = self._core.note(Note("contents_scrubbed", {"address": ask.address}), self._moment())
        return [*noted, Send(ask.address, ok_frame(ask.query.request, value))]

    def _refused(
        self, question: Question, code: str, message: str, details: dict[str, Any] | None = None
    ) -> list[Effect]:
        request = question.query.request if isinstance(question, Ask) else question.subscribe.request
        error = ErrorFrame(code=code, message=message, request=request, retry=code in RETRY, details=details)
        note = Note("refused", {"address": question.address, "code": code, **denied(details)})
        return [*self._core.note(note, self._moment()), Send(question.address, encode(error))]


def _op(question: Question) -> str:
    return type(question.query if isinstance(question, Ask) else question.subscribe).__name__
