"""A bot's requests: one message and the first reply to it, and many of them together."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any

import anyio
import anyio.abc
import msgspec

from ..model.priorities import Priority
from ..wire.limits import AWAITED_MAX
from .draft import Draft
from .ids import chosen_id
from .message import Message
from .replies import Replies

__all__ = ["Gathered", "Gathering", "Inquiry", "Requesting"]

_REPLY_SECONDS = 30.0


class Inquiry(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a bot, or to a channel: the fields are the arguments of `Bot.request`."""

    body: Any = None
    to: str | None = None
    channel: str | None = None
    timeout: float = _REPLY_SECONDS
    message_type: str = "message"
    headers: Mapping[str, str] | None = None
    id: str | None = None
    priority: Priority = "normal"
    hops: int | None = None
    deadline: float | None = None


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a question: its `reply`, already settled, or the `error` that `Bot.request` would have raised.

    `index` is the place of the question among the others.
    """

    index: int
    question: Inquiry
    reply: Message | None = None
    error: Exception | None = None

    def message(self) -> Message:
        """Return the reply. Raise the error if there is none."""
        if self.reply is None:
            assert self.error is not None, "there is a reply or an error"
            raise self.error
        return self.reply


class Requesting:
    """The requests of a bot."""

    _replies: Replies

    async def request(
        self,
        to: str | None = None,
        body: Any = None,
        *,
        channel: str | None = None,
        timeout: float = _REPLY_SECONDS,
        message_type: str = "message",
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        priority: Priority = "normal",
        hops: int | None = None,
        deadline: float | None = None,
    ) -> Message:
        """Send a direct message, or publish on a channel, and return the first reply to it, already settled.

        The reply comes ahead of other waiting messages, and outside the credit: a bot can make requests even if all
        its handlers are busy. Raises ReplyTimeout, which names the state of the message; a reply that comes later,
        or after a restart of this bot, is an ordinary message. A reply that was stored while the connection was
        broken is returned here too, and may also be delivered, as an ordinary message, to another process of this
        bot.

        A request to a `channel` goes to all its subscribers, and in each group to one member, whoever is free; if
        that member vanishes, to another one. The first reply is returned, and others are ordinary messages.

        Requesting again with the same `id`, a UUID, even from a later process of this bot, repeats the same
        request: it is not delivered again, and its first reply is returned, even if that came meanwhile.

        A request begins a thread, whose budget are its `hops`, of which the reply takes one, and its `deadline`.
        """
        question = Inquiry(
            body=body,
            to=to,
            channel=channel,
            timeout=timeout,
            message_type=message_type,
            headers=headers,
            id=id,
            priority=priority,
            hops=hops,
            deadline=deadline,
        )
        return await self._ask(question)

    def gather(self, questions: Sequence[Inquiry]) -> Gathering:
        """Make many requests together, each with its own timeout.

        `await bot.gather(questions)` returns a `Gathered` for each, in the order of the questions; nothing is
        raised for a request without a reply. To have the answers as they come:

            async with bot.gather(questions) as answers:
                async for answer in answers:

        Leaving the block ends those that are left, and a reply that comes later is an ordinary message. At most
        1,000 requests are open at once, and the timeout of a further one begins when it is sent.
        """
        return Gathering(self._ask, questions)

    async def _ask(self, question: Inquiry) -> Message:
        message_id = chosen_id(question.id)
        draft = Draft(
            to=question.to,
            channel=question.channel,
            body=question.body,
            message_type=question.message_type,
            headers=question.headers or {},
            id=message_id,
            priority=question.priority,
            expects_reply=True,
            hops=question.hops,
            deadline=question.deadline,
        )
        return await self._replies.ask(draft, message_id, timeout=question.timeout)


class Gathering:
    """Requests that are made together; see `Requesting.gather`. It can be used once."""

    def __init__(self, ask: Callable[[Inquiry], Awaitable[Message]], questions: Sequence[Inquiry]) -> None:
        self._ask = ask
        self._questions = list(questions)
        self._answered: deque[Gathered] = deque()
        self._left = len(self._questions)
        self._more = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Gathering questions={len(self._questions)} left={self._left}>"

    def __await__(self) -> Generator[Any, Any, list[Gathered]]:
        return self._all().__await__()

    async def _all(self) -> list[Gathered]:
        async with self as answers:
            found = [answer async for answer in answers]
        return sorted(found, key=lambda answer: answer.index)

    async def __aenter__(self) -> Gathering:
        if self._tasks is not None:
            raise RuntimeError("these requests were made: gather them anew")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run, self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None, "the block was entered"
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # an error of the block leaves it as it is, not in a group

    def __aiter__(self) -> Gathering:
        return self

    async def __anext__(self) -> Gathered:
        if self._tasks is None:
            raise RuntimeError("await the requests, or use them as 'async with bot.gather(…) as answers:'")
        while not self._answered:
            if not self._left:
                raise StopAsyncIteration
            self._more = anyio.Event()
            await self._more.wait()
        self._left -= 1
        return self._answered.popleft()

    async def _run(self, tasks: anyio.abc.TaskGroup) -> None:
        room = anyio.Semaphore(AWAITED_MAX)
        for index, question in enumerate(self._questions):
            await room.acquire()
            tasks.start_soon(self._one, index, question, room)

    async def _one(self, index: int, question: Inquiry, room: anyio.Semaphore) -> None:
        answer = Gathered(index=index, question=question)
        try:
            answer = msgspec.structs.replace(answer, reply=await self._ask(question))
        except Exception as error:
            answer = msgspec.structs.replace(answer, error=error)
        finally:
            room.release()
        self._answered.append(answer)
        self._more.set()
