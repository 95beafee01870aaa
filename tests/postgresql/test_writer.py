"""The one writer on one server: groups, refusals, the fence, and connections that are lost within a transaction."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from bus.errors import Conflict, OwnershipLost, StoreClosed, StoreError, StoreFailed
from store import postgresql
from store.postgresql.server import connecting
from store.postgresql.server.database import Database, open_database
from store.postgresql.server.writer import Transaction

from .cluster import Node
from .writing import adding, channels, happens

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(postgresql_url: str) -> AsyncIterator[Database]:
    async with open_database(postgresql_url) as database:
        yield database


async def test_what_is_written_together_is_one_transaction(database: Database) -> None:
    answers: dict[str, int] = {}

    async def write(name: str) -> None:
        answers[name] = await database.writer.run(adding(name))

    async with anyio.create_task_group() as tasks:
        for name in ("a", "b", "c"):
            tasks.start_soon(write, name)
    assert sorted(answers.values()) == [1, 2, 3]
    assert database.writer.transactions < 3
    assert await channels(database) == ["a", "b", "c"]


async def test_an_operation_that_raises_fails_alone(database: Database) -> None:
    await database.writer.run(adding("a"))
    outcomes: dict[str, int | Exception] = {}

    async def write(name: str) -> None:
        try:
            outcomes[name] = await database.writer.run(adding(name))
        except asyncpg.UniqueViolationError as error:
            outcomes[name] = error

    async with anyio.create_task_group() as tasks:
        for name in ("b", "a", "c"):
            tasks.start_soon(write, name)
    assert (outcomes["b"], outcomes["c"]) == (2, 3)
    assert isinstance(outcomes["a"], asyncpg.UniqueViolationError)
    assert await channels(database) == ["a", "b", "c"]


async def test_writes_of_one_kind_are_carried_out_together(database: Database) -> None:
    seen: list[Sequence[str]] = []

    async def joint(transaction: Transaction, names: Sequence[str]) -> list[str | StoreError]:
        seen.append(names)
        return [Conflict("no") if name == "b" else name for name in names]

    outcomes: dict[str, str | Exception] = {}

    async def write(name: str) -> None:
        try:
            outcomes[name] = await database.writer.join(joint, name)
        except Conflict as error:
            outcomes[name] = error

    async with anyio.create_task_group() as tasks:
        for name in ("a", "b", "c"):
            tasks.start_soon(write, name)
    assert sorted(name for names in seen for name in names) == ["a", "b", "c"]
    assert len(seen) < 3
    assert (outcomes["a"], outcomes["c"]) == ("a", "c")
    assert isinstance(outcomes["b"], Conflict)


async def test_a_savepoint_keeps_what_was_done_before_it(database: Database) -> None:
    refused: list[str] = []

    async def operation(transaction: Transaction) -> None:
        await adding("a")(transaction)
        try:
            async with transaction.savepoint():
                await adding("b")(transaction)
                await adding("a")(transaction)
        except asyncpg.UniqueViolationError:
            refused.append("a")
        await adding("c")(transaction)

    await database.writer.run(operation)
    assert (refused, await channels(database)) == (["a"], ["a", "c"])


async def test_a_transaction_that_stored_nothing_is_not_acknowledged(postgresql_url: str) -> None:
    """COMMIT after an error that was passed over is answered ROLLBACK, without an error."""

    async def operation(transaction: Transaction) -> None:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await transaction.connection.execute("SELECT 1 / 0")

    with pytest.raises(StoreFailed, match="stored nothing"):
        async with open_database(postgresql_url) as database:
            await database.writer.run(operation)


async def test_nothing_is_written_after_the_end(postgresql_url: str) -> None:
    async with open_database(postgresql_url) as database:
        await database.writer.run(adding("a"))
    with pytest.raises(StoreClosed):
        await database.writer.run(adding("b"))


async def test_who_takes_over_fences_the_one_before(postgresql_url: str) -> None:
    begun, taken, ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def serve_first() -> None:
        async with open_database(postgresql_url) as old:
            await old.writer.run(adding("a"))
            begun.set()
            await taken.wait()
            await old.writer.run(adding("b"))

    async def be_first() -> None:
        with pytest.raises(OwnershipLost, match="taken over"):
            await serve_first()
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(be_first)
        await begun.wait()
        async with open_database(postgresql_url) as new:
            taken.set()
            await ended.wait()
            assert await channels(new) == ["a"]
            await new.writer.run(adding("c"))
            assert await channels(new) == ["a", "c"]


async def test_taking_over_waits_for_the_batch_that_runs(postgresql_url: str, postgresql_node: Node) -> None:
    name = postgresql_url.rpartition("/")[2]
    begun, finish = anyio.Event(), anyio.Event()

    async def slow(transaction: Transaction) -> None:
        await adding("a")(transaction)
        begun.set()
        await finish.wait()

    seen: list[list[str]] = []

    async def take_over() -> None:
        async with open_database(postgresql_url) as new:
            seen.append(await channels(new))

    async with open_database(postgresql_url) as old, anyio.create_task_group() as tasks:
        tasks.start_soon(old.writer.run, slow)
        await begun.wait()
        tasks.start_soon(take_over)
        await happens(
            postgresql_node,
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LOCK%' AND wait_event_type = 'Lock'",
            name,
        )
        assert seen == []
        finish.set()
    assert seen == [["a"]]


async def test_a_batch_whose_connection_is_lost_before_its_commit_is_written_once(
    database: Database, postgresql_node: Node
) -> None:
    runs: list[int] = []

    async def operation(transaction: Transaction) -> int:
        count = await adding("a")(transaction)
        runs.append(count)
        if len(runs) == 1:
            pid = await transaction.connection.fetchval("SELECT pg_backend_pid()")
            await anyio.to_thread.run_sync(postgresql_node.query, f"SELECT pg_terminate_backend({pid})")
        return count

    assert await database.writer.run(operation) == 1
    assert (runs, database.writer.doubts) == ([1, 1], 1)
    assert await channels(database) == ["a"]


async def test_a_batch_that_ends_every_connection_is_given_up(postgresql_url: str, postgresql_node: Node) -> None:
    async def operation(transaction: Transaction) -> None:
        pid = await transaction.connection.fetchval("SELECT pg_backend_pid()")
        await anyio.to_thread.run_sync(postgresql_node.query, f"SELECT pg_terminate_backend({pid})")

    with pytest.raises(StoreFailed, match="10 times"):
        async with open_database(postgresql_url) as database:
            await database.writer.run(operation)


async def test_a_question_whose_connection_is_lost_is_asked_again(
    database: Database, postgresql_node: Node
) -> None:
    await database.writer.run(adding("a"))
    [[pid]] = await database.questions.fetch("SELECT pg_backend_pid()")
    postgresql_node.query(f"SELECT pg_terminate_backend({pid})")
    [[other]] = await database.questions.fetch("SELECT pg_backend_pid()")
    assert other != pid


@pytest.mark.parametrize(("module", "name"), [(asyncpg, "connect"), (connecting, "find_primary")])
async def test_a_session_that_ends_as_soon_as_it_is_made_is_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    honest = getattr(module, name)

    async def make(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(module, name, honest)
        made = await honest(*arguments, **options)
        (made[0] if isinstance(made, tuple) else made).terminate()
        return made

    monkeypatch.setattr(module, name, make)
    assert [row[0] for row in await database.questions.fetch("SELECT 1")] == [1]


async def test_a_question_that_is_cancelled_is_interrupted(
    database: Database, postgresql_url: str, postgresql_node: Node
) -> None:
    name = postgresql_url.rpartition("/")[2]
    running = f"FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE '%pg_sleep%' AND state = 'active'"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.questions.fetch, "SELECT pg_sleep(3600)")
        await happens(postgresql_node, f"SELECT 1 {running} AND pid <> pg_backend_pid()")
        tasks.cancel_scope.cancel()
    assert [row[0] for row in await database.questions.fetch("SELECT 1")] == [1]
    await happens(postgresql_node, f"SELECT 1 WHERE NOT EXISTS (SELECT {running} AND pid <> pg_backend_pid())")


async def test_a_doubt_that_another_worker_ends_is_a_take_over(postgresql_url: str, postgresql_node: Node) -> None:
    async def operation(transaction: Transaction) -> None:
        pid = await transaction.connection.fetchval("SELECT pg_backend_pid()")
        await anyio.to_thread.run_sync(postgresql_node.query, f"SELECT pg_terminate_backend({pid})")
        async with open_database(postgresql_url):
            await transaction.connection.fetchval("SELECT 1")

    with pytest.raises(OwnershipLost, match="unknown whether"):
        async with open_database(postgresql_url) as database:
            await database.writer.run(operation)


def test_no_commit_of_messages_takes_the_lock_of_notifications() -> None:
    """A lease that is given up is told so: once in a worker's time as the leader, after its last message."""
    sources = Path(postgresql.__file__).parent.rglob("*.*")
    told = re.compile(rb"\bNOTIFY\b|\bLISTEN\b|add_listener|pg_notify")
    found = {path.name for path in sources if path.suffix in (".py", ".sql") and told.search(path.read_bytes())}
    assert found == {"election.py", "leadership.py"}
