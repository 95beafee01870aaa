"""Answers that many share: asked once, told to all, and asked again when they no longer count."""

from __future__ import annotations

import anyio
import pytest

from bus.errors import WorkerUnavailable
from bus.web.sharing import Shared

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # which the page runs on


class Worker:
    """What is asked: it counts, takes its time by the clock, and answers when it may."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.takes = 0.0
        self.may = anyio.Event()
        self.may.set()
        self.fails = False
        self.shared = Shared(lambda: self.now)

    async def ask(self) -> int:
        self.asked += 1
        await self.may.wait()
        self.now += self.takes
        if self.fails:
            raise WorkerUnavailable("nobody")
        return self.asked

    async def get(self, seconds: float = 2.0, key: str = "bots") -> int:
        return await self.shared.get(key, self.ask, seconds=seconds)


async def test_a_hundred_who_ask_at_once_are_one_question() -> None:
    worker, found = Worker(), list[int]()
    worker.may = anyio.Event()

    async def look() -> None:
        found.append(await worker.get())

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        worker.may.set()
    assert (worker.asked, found) == (1, [1] * 100)
    assert await worker.get(key="channels") == 2


async def test_an_answer_counts_as_long_as_who_asks_allows() -> None:
    worker = Worker()
    assert await worker.get() == 1
    worker.now = 1.0
    assert await worker.get() == 1
    assert await worker.get(seconds=0.5) == 2
    worker.now = 3.5
    assert await worker.get() == 3


async def test_what_is_costly_is_asked_rarely() -> None:
    worker = Worker()
    worker.takes = 1.0
    await worker.get()
    for worker.now in (10.0, 20.0):
        await worker.get()
        assert worker.asked == 1, "twenty times as long as it took have not passed"
    worker.now, worker.takes = 21.0, 100.0
    await worker.get()
    assert (worker.asked, worker.now) == (2, 121.0)
    worker.now = 150.0
    await worker.get()
    assert worker.asked == 2
    worker.now = 151.0
    await worker.get()
    assert worker.asked == 3, "nothing is kept longer"


async def test_an_error_is_shared_as_well() -> None:
    worker = Worker()
    worker.fails, worker.takes = True, 5.0
    for _ in range(3):
        with pytest.raises(WorkerUnavailable):
            await worker.get()
    assert worker.asked == 1
    worker.fails, worker.now = False, 7.0
    assert await worker.get() == 2


async def test_who_leaves_while_asking_takes_nobody_along() -> None:
    worker, found = Worker(), list[int]()
    worker.may = anyio.Event()
    first = anyio.CancelScope()

    async def leaves() -> None:
        with first:
            await worker.get()

    async def stays() -> None:
        found.append(await worker.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leaves)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(stays)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        worker.may.set()
    assert (worker.asked, found) == (2, [2])


async def test_a_question_that_was_cancelled_changes_nothing() -> None:
    worker = Worker()
    assert await worker.get() == 1
    worker.now, worker.may = 1.0, anyio.Event()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.get, 0.5)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert worker.asked == 2
    assert await worker.get() == 1


async def test_after_an_action_nothing_from_before_counts() -> None:
    worker = Worker()
    await worker.get()
    worker.shared.forget()
    assert await worker.get() == 2


async def test_what_nobody_asks_for_is_forgotten() -> None:
    worker = Worker()
    for number in range(1000):
        worker.now = float(number)
        await worker.get(key=f"page {number}")
    assert repr(worker.shared) in {f"<Shared {count}>" for count in range(9, 13)}
