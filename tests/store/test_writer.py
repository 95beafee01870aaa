"""The one writer: what is queued becomes one transaction, and nobody pays for a neighbour."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from bus.errors import NotFound, StorageFull, StoreClosed, StoreError, StoreFailed
from bus.model.repository import (
    NewMessage,
    lots_of,
)
from store.budgets import Budgets
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.database import Database, open_database
from store.sqlite.file.lockfile import read_mark
from store.sqlite.file.writer import OPERATIONS_GROUP_MAX, OPERATIONS_QUEUED_MAX, Transaction, Whole, Writer
from store.sqlite.messages.arrivals import Arrivals
from store.sqlite.messages.rows import insertions
from store.taint import Taint

from ..contract.store.samples import added, at, direct
from .conftest import on_both_loops

pytestmark = [pytest.mark.anyio, on_both_loops]

Step = Callable[[Transaction], Awaitable[None]]


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with open_database(path) as database:
        yield database


@pytest.fixture
def writer(database: Database) -> Writer:
    return database.writer


class Gate:
    """An operation that holds its transaction open until it is told to go on."""

    def __init__(self, name: str = "gate") -> None:
        self.name = name
        self.entered = anyio.Event()
        self.open = anyio.Event()

    async def __call__(self, transaction: Transaction) -> None:
        await insert(self.name)(transaction)
        self.entered.set()
        await self.open.wait()


def insert(name: str) -> Step:
    """Make an operation that writes one row."""

    async def operation(transaction: Transaction) -> None:
        await transaction.connection.execute("INSERT INTO bot_channels VALUES (?, '', '')", (name,))

    return operation


def add(*messages: NewMessage) -> Callable[[Transaction], Awaitable[list[int | None]]]:
    """Make an operation that appends to the log and gives the seqs."""

    async def operation(transaction: Transaction) -> list[int | None]:
        arrivals = Arrivals(Taint(present=False), Budgets(noted=False), waiting=False)
        outcomes = await arrivals.add(transaction, lots_of(messages), at(0))
        return [one.seq for one in added(messages, outcomes)]

    return operation


async def stored(database: Database) -> set[str]:
    return {row[0] for row in await database.read.execute_fetchall("SELECT name FROM bot_channels")}


async def test_one_operation_alone_is_committed_at_once(database: Database, writer: Writer) -> None:
    before = writer.transactions
    with anyio.fail_after(30):
        await writer.run(insert("a"))
    assert await stored(database) == {"a"}
    assert (writer.transactions - before, writer.operations) == (1, 1)


async def test_what_is_queued_is_one_transaction(database: Database, writer: Writer) -> None:
    gate = Gate()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.entered.wait()
            for number in range(500):
                tasks.start_soon(writer.run, insert(f"{number}"))
            await anyio.wait_all_tasks_blocked()
            assert await stored(database) == set()
            gate.open.set()
    assert (writer.transactions, writer.operations) == (2, 501)
    assert await stored(database) == {"gate", *(f"{number}" for number in range(500))}


async def test_answers_come_in_the_order_of_the_calls(writer: Writer) -> None:
    seqs: list[int | None] = []

    async def call(number: int) -> None:
        seqs.extend(await writer.run(add(direct(f"{number}", "ann", "bob"))))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(call, number)
    assert seqs == list(range(1, 101))


async def test_a_group_is_bounded(writer: Writer) -> None:
    gate = Gate()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.entered.wait()
            for number in range(OPERATIONS_GROUP_MAX + 1):
                tasks.start_soon(writer.run, insert(f"{number}"))
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
    assert writer.transactions == 3


async def test_callers_beyond_the_queue_wait_for_room(database: Database, writer: Writer) -> None:
    gate = Gate()
    count = OPERATIONS_QUEUED_MAX + 10
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.entered.wait()
            for number in range(count):
                tasks.start_soon(writer.run, insert(f"{number}"))
            await anyio.wait_all_tasks_blocked()
            assert f"queued={OPERATIONS_QUEUED_MAX} " in repr(writer)
            gate.open.set()
    assert len(await stored(database)) == count + 1


# ── One that fails ───────────────────────────────────────────────────────────────────────────────────────


async def test_operation_that_fails_fails_alone(database: Database, writer: Writer) -> None:
    gate = Gate()
    failures: dict[str, Exception] = {}

    async def call(name: str, operation: Step) -> None:
        try:
            await writer.run(operation)
        except (StoreError, sqlite3.Error) as error:
            failures[name] = error

    async def writes_and_refuses(transaction: Transaction) -> None:
        await insert("refused")(transaction)
        raise NotFound("thing", "x")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.entered.wait()
            for name, operation in (
                ("a", insert("a")),
                ("refused", writes_and_refuses),
                ("b", insert("b")),
                ("gate again", insert("gate")),
                ("c", insert("c")),
            ):
                tasks.start_soon(call, name, operation)
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
    assert await stored(database) == {"gate", "a", "b", "c"}
    assert {name: type(error) for name, error in failures.items()} == {
        "refused": NotFound,
        "gate again": sqlite3.IntegrityError,
    }
    await writer.run(insert("d"))
    assert "d" in await stored(database)


async def test_places_of_one_that_fails_are_given_to_the_next(
    path: Path, database: Database, writer: Writer
) -> None:
    gate = Gate()
    seqs: list[int | None] = []

    async def call(*messages: NewMessage) -> None:
        seqs.extend(await writer.run(add(*messages)))

    async def appends_and_refuses(transaction: Transaction) -> None:
        await add(direct("x", "ann", "bob"), direct("y", "ann", "bob"))(transaction)
        raise NotFound("thing", "x")

    async def refused() -> None:
        with pytest.raises(NotFound):
            await writer.run(appends_and_refuses)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.entered.wait()
            tasks.start_soon(call, direct("a", "ann", "bob"))
            tasks.start_soon(refused)
            tasks.start_soon(call, direct("b", "ann", "bob"), direct("c", "ann", "bob"))
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
    assert seqs == [1, 2, 3]
    mark = read_mark(path.with_name(path.name + "-lock"))
    assert mark is not None
    assert (writer.last_seq, mark.last_seq) == (3, 3)


async def test_full_disk_refuses_and_the_writer_goes_on(database: Database, writer: Writer) -> None:
    async def limit_pages(transaction: Transaction) -> None:
        [[pages]] = await transaction.connection.execute_fetchall("PRAGMA page_count")
        await transaction.connection.execute_fetchall(f"PRAGMA max_page_count = {pages}")

    async def lift_limit(transaction: Transaction) -> None:
        await transaction.connection.execute_fetchall("PRAGMA max_page_count = 1000000")

    large = direct("a", "ann", "bob", body=b'"' + b"x" * 1_000_000 + b'"')
    await writer.run(limit_pages)
    with pytest.raises(StorageFull):
        await writer.run(add(large))
    assert writer.last_seq == 0
    await writer.run(lift_limit)
    assert await writer.run(add(large)) == [1]


# ── Cancelling and closing ───────────────────────────────────────────────────────────────────────────────


async def test_cancelling_a_caller_does_not_cancel_its_transaction(database: Database, writer: Writer) -> None:
    gate = Gate()
    answered: list[str] = []

    async def call(operation: Step) -> None:
        await writer.run(operation)
        answered.append("after all")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, gate)
            await gate.entered.wait()
            tasks.start_soon(call, insert("queued"))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert answered == []
        gate.open.set()
        await writer.run(insert("later"))
    assert await stored(database) == {"gate", "queued", "later"}


async def test_cancelling_the_writer_finishes_what_was_begun_and_queued(path: Path) -> None:
    gate = Gate()
    answered: list[str] = []

    async def call(writer: Writer, name: str, operation: Step) -> None:
        await writer.run(operation)
        answered.append(name)

    async def serve(scope: anyio.CancelScope, tasks: TaskGroup, begun: anyio.Event) -> None:
        with scope:
            async with open_database(path) as database:
                tasks.start_soon(call, database.writer, "gate", gate)
                await gate.entered.wait()
                tasks.start_soon(call, database.writer, "queued", insert("queued"))
                await anyio.wait_all_tasks_blocked()
                begun.set()
                await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            scope, begun = anyio.CancelScope(), anyio.Event()
            tasks.start_soon(serve, scope, tasks, begun)
            await begun.wait()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert answered == []
            gate.open.set()
    assert answered == ["gate", "queued"]
    async with open_database(path) as database:
        assert await stored(database) == {"gate", "queued"}


async def test_closing_writes_what_is_queued(path: Path) -> None:
    gate = Gate()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks, open_database(path) as database:
            tasks.start_soon(database.writer.run, gate)
            await gate.entered.wait()
            for number in range(10):
                tasks.start_soon(database.writer.run, insert(f"{number}"))
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
    async with open_database(path) as database:
        assert await stored(database) == {"gate", *(f"{number}" for number in range(10))}


async def test_closed_writer_takes_nothing(path: Path) -> None:
    async with open_database(path) as database:
        writer = database.writer
    with pytest.raises(StoreClosed), anyio.fail_after(30):
        await writer.run(insert("a"))
    async with open_database(path) as database:
        assert await stored(database) == set()


async def test_a_commit_that_cannot_be_noted_is_not_written_again(path: Path) -> None:
    def fail(last_seq: int) -> None:
        raise ValueError("a bug")

    lots = lots_of([direct("a", "ann", "bob")])
    whole = Whole(insertions(lots, 1, at(0)), "answer", 1, 0)

    async def write() -> None:
        async with open_database(path) as database:
            database.writer._committed = fail
            await database.writer.run(never, whole=lambda last_seq: whole)

    with anyio.fail_after(30), pytest.raises(StoreFailed, match="a bug"):
        await write()
    async with open_database(path) as database:
        assert database.writer.last_seq == 1


async def never(transaction: Transaction) -> str:
    raise AssertionError("it was written already")


async def test_an_operation_that_commits_by_its_only_statement_takes_no_further_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def operation(transaction: Transaction) -> None:
        await transaction.execute_last("INSERT INTO bot_channels VALUES (?, '', '')", ("a",))

    async def run(connection: StoreConnection, function: Any) -> None:
        raise AssertionError("a turn of the database's thread for nothing")

    monkeypatch.setattr(StoreConnection, "run", run)
    await database.writer.run(operation)
    assert not database.writer._connection.in_transaction
