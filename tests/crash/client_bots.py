"""Two bots of the project's own client that know the addresses of all workers: one asks, the other one answers.

Owns their thread, and what each must see: every question answered, each taken first in the order in which it was
asked. They are told nothing of any fault, and find the worker that serves by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio

import bus

__all__ = ["ClientBots"]

_ANSWER_SECONDS = 300.0
_PAUSE_SECONDS = 0.05


class ClientBots:
    """See the module. `answered` counts the questions that were."""

    names = ("asker", "answerer")

    def __init__(self, urls: Sequence[str]) -> None:
        self.answered = 0
        self.taken: list[int] = []
        self._urls = list(urls)
        self._ready = threading.Event()
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="client bots", daemon=True)

    def __repr__(self) -> str:
        return f"<ClientBots answered={self.answered}>"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(_ANSWER_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(_ANSWER_SECONDS)

    def finish(self) -> None:
        """Ask no more. Raises AssertionError if an answer is missing, or a question came out of order."""
        self._ending.set()
        self._thread.join()
        if self._failure is not None:
            raise AssertionError(f"{self} failed") from self._failure
        first = list(dict.fromkeys(self.taken))
        if first != list(range(self.answered)):
            raise AssertionError(f"{self.answered} questions were answered, and these were taken: {first}")

    def _run(self) -> None:
        try:
            anyio.run(self._live)
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _live(self) -> None:
        while not self._ready.is_set():
            with suppress(bus.WorkerUnavailable):  # a program gives up soon if nobody serves when it starts
                await self._talk()

    async def _talk(self) -> None:
        async with (
            bus.connect(self._urls, bot="asker", timeout=None) as asker,
            bus.connect(self._urls, bot="answerer", timeout=None) as answerer,
            anyio.create_task_group() as tasks,
        ):
            self._ready.set()
            tasks.start_soon(self._answer, answerer)
            while not self._ending.is_set():
                reply = await asker.request("answerer", self.answered, timeout=_ANSWER_SECONDS)
                assert reply.body == self.answered, f"{reply.body} answers {self.answered}"
                self.answered += 1
                await anyio.sleep(_PAUSE_SECONDS)
            tasks.cancel_scope.cancel()

    async def _answer(self, bot: bus.Bot) -> None:
        async for message in bot.messages():
            self.taken.append(message.body)
            with suppress(bus.WorkerUnavailable):  # it comes again
                await message.reply(message.body)
                await message.ack(confirm=True)
