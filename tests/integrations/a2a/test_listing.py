"""Tasks are listed by their owner, in pages: what is read for that, and tasks of versions that kept no list."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

import bus
from bus.client.keyed import KeyedStore, KeyedValue
from bus.testing import Worker

from ..extras import needs

needs("a2a.server.routes")

from a2a.types import ListTasksRequest, Task, TaskState
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict

from bus.integrations.a2a.tasks import TaskRecord, Tasks, set_status

pytestmark = pytest.mark.anyio

KEEP_SECONDS = 3600.0

COMPLETED, WORKING = TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_WORKING


@pytest.fixture
async def tasks(worker: Worker, request: pytest.FixtureRequest) -> AsyncIterator[Tasks]:
    async with worker.connect(bot="listing", max_in_flight=0) as bot:
        yield Tasks(bot, "planner", f"tasks-{uuid.uuid4()}", KEEP_SECONDS)


async def added(tasks: Tasks, owner: str, state: TaskState = WORKING, context: str = "talk") -> str:
    """Store a task, and return its id."""
    record = new(tasks, owner, state, context)
    await tasks.put(record, question=None)
    return record.task.id


def new(tasks: Tasks, owner: str, state: TaskState = WORKING, context: str = "talk") -> TaskRecord:
    task = Task(id=str(uuid.uuid4()), context_id=context)
    set_status(task, state)
    return tasks.new(task, owner)


async def change(tasks: Tasks, id: str, state: TaskState) -> None:
    record = await tasks.get(id)
    assert record is not None
    set_status(record.task, state)
    await tasks.put(record, question=None)


async def pages(tasks: Tasks, owner: str, size: int, **filters: Any) -> list[list[str]]:
    """Return the ids of all pages, each of which says how many tasks there are."""
    found, token, total = list[list[str]](), "", None
    while total is None or token:
        page = await tasks.page(owner, ListTasksRequest(page_size=size, page_token=token, **filters))
        assert total in (None, page.total)
        found.append([record.task.id for record in page.records])
        token, total = page.token, page.total
    assert sum(map(len, found)) == total
    return found


async def test_the_last_changed_is_first(tasks: Tasks) -> None:
    ids = [await added(tasks, "ann") for _ in range(5)]
    assert await pages(tasks, "ann", 2) == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    await change(tasks, ids[1], COMPLETED)
    assert await pages(tasks, "ann", 3) == [[ids[1], ids[4], ids[3]], [ids[2], ids[0]]]
    assert await pages(tasks, "ann", 5) == [[ids[1], ids[4], ids[3], ids[2], ids[0]]]
    assert await pages(tasks, "bob", 5) == [[]]


async def test_tasks_are_chosen_by_context_state_and_time(tasks: Tasks) -> None:
    first = await added(tasks, "ann", context="one")
    second = await added(tasks, "ann", context="two")
    third = await added(tasks, "ann", COMPLETED, context="one")
    assert await pages(tasks, "ann", 1, context_id="one") == [[third], [first]]
    assert await pages(tasks, "ann", 5, status=WORKING) == [[second, first]]
    assert await pages(tasks, "ann", 5, status=WORKING, context_id="one") == [[first]]
    record = await tasks.get(second)
    assert record is not None
    since = record.task.status.timestamp
    assert await pages(tasks, "ann", 5, status_timestamp_after=since) == [[third, second]]


async def test_a_page_goes_on_although_its_last_task_has_changed(tasks: Tasks) -> None:
    ids = [await added(tasks, "ann") for _ in range(4)]
    page = await tasks.page("ann", ListTasksRequest(page_size=2))
    await change(tasks, ids[2], COMPLETED)
    rest = await tasks.page("ann", ListTasksRequest(page_size=2, page_token=page.token))
    assert [record.task.id for record in rest.records] == [ids[1], ids[0]]
    assert (rest.total, rest.token) == (4, "")


@pytest.mark.parametrize("token", ["?", "WzEsMl0=", "é", "WyIuLi90YXNrcyIsM10="])
async def test_a_token_of_nobody_is_refused(tasks: Tasks, token: str) -> None:
    with pytest.raises(InvalidParamsError, match="pageToken"):
        await tasks.page("ann", ListTasksRequest(page_token=token))


async def test_only_the_tasks_of_a_page_are_read(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, count in (("ann", 12), ("bob", 30)):
        for _ in range(count):
            await added(tasks, owner)
    page = await tasks.page("ann", ListTasksRequest(page_size=5))
    read: list[str] = []
    listed, got = KeyedStore.list, KeyedStore.get

    async def counted_list(self: KeyedStore, *args: Any, **options: Any) -> list[KeyedValue]:
        found = await listed(self, *args, **options)
        read.extend(value.key for value in found)
        return found

    async def counted_get(self: KeyedStore, key: str) -> KeyedValue | None:
        read.append(key)
        return await got(self, key)

    monkeypatch.setattr(KeyedStore, "list", counted_list)
    monkeypatch.setattr(KeyedStore, "get", counted_get)
    await tasks.page("ann", ListTasksRequest(page_size=5))
    assert (len([key for key in read if key.startswith("tasks/")]), len(read)) == (5, 5 + 12)
    read.clear()
    await tasks.page("ann", ListTasksRequest(page_size=5, page_token=page.token))
    assert (len([key for key in read if key.startswith("tasks/")]), len(read)) == (5, 5 + 7)


async def keep_as_before(bot: bus.Bot, store: str, record: TaskRecord) -> None:
    """Store a task as versions did that kept no list."""
    value = {"owner": record.owner, "question": None, "approval": None, "task": MessageToDict(record.task)}
    await bot.kv(store).put(record.key, value)


async def test_tasks_of_earlier_versions_are_listed(worker: Worker) -> None:
    async with worker.connect(bot="listing", max_in_flight=0) as bot:
        tasks = Tasks(bot, "planner", "earlier", KEEP_SECONDS)
        records = [new(tasks, "ann", state) for state in (WORKING, COMPLETED) * 15]
        for record in (*records, new(tasks, "bob")):
            await keep_as_before(bot, "earlier", record)
        await change(tasks, records[0].task.id, COMPLETED)  # it is changed before anybody lists
        ids = [record.task.id for record in (records[0], *reversed(records[1:]))]
        assert await pages(tasks, "ann", 100) == [ids]
        assert len((await pages(tasks, "bob", 100))[0]) == 1
        await change(tasks, ids[1], COMPLETED)
        revision = await bot.kv("earlier").revision()
        again = Tasks(bot, "planner", "earlier", KEEP_SECONDS)  # another process finds that it was done
        assert await pages(again, "ann", 100) == [[ids[1], ids[0], *ids[2:]]]
        assert await bot.kv("earlier").revision() == revision


async def test_each_agent_has_its_own_list(worker: Worker) -> None:
    async with worker.connect(bot="listing", max_in_flight=0) as bot:
        planner, writer = (Tasks(bot, name, "shared", KEEP_SECONDS) for name in ("planner", "writer"))
        first, second = await added(planner, "ann"), await added(writer, "ann")
        assert await pages(planner, "ann", 5) == [[first]]
        assert await pages(writer, "ann", 5) == [[second]]
