"""Batches of one statement, which is their transaction: what is promised of transactions holds for them, too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from bus.errors import StoreFailed
from bus.model.repository import (
    Added,
    AddMessages,
    MailboxState,
    SaveMailbox,
    UnsettledState,
    WorkflowRules,
    lots_of,
)
from store.postgresql.store import PostgresqlStore, open_postgresql_store

from ..contract.store.samples import add, at, direct, work
from .cluster import Node
from .relay import Hold, relaying
from .test_quorum import Nodes, frozen
from .writing import HAPPENS_SECONDS_MAX, happens, waiting

pytestmark = pytest.mark.anyio

_STATEMENT = "query LIKE '%moved AS%'"


@pytest.fixture
async def store(postgresql_url: str) -> AsyncIterator[PostgresqlStore]:
    async with open_postgresql_store(postgresql_url, WorkflowRules()) as store:
        await add(store.log, direct("a", "ann", "bob"))  # the first one of a pair opens a conversation as well
        yield store


def statements_of(store: PostgresqlStore) -> list[str]:
    """Return a list that gets every statement of the writer from now on."""
    seen: list[str] = []
    store._database.writer._connection.add_query_logger(lambda record: seen.append(record.query))
    return seen


async def test_messages_and_mailboxes_are_one_statement(store: PostgresqlStore) -> None:
    seen = statements_of(store)
    messages = [AddMessages(lots_of([direct(id, "ann", "bob")]), at(1)) for id in ("b", "c")]
    await store.log.apply([messages[0], SaveMailbox(MailboxState("bob", 1)), messages[1]])
    await store.log.apply([SaveMailbox(MailboxState("bob", 3))])
    assert len(seen) == 2
    state = await store.log.load()
    assert (state.last_seq, state.last_timestamp, state.mailboxes) == (3, at(1), [MailboxState("bob", 3)])


async def test_commits_that_follow_each_other_cost_as_many_statements_as_one(store: PostgresqlStore) -> None:
    seen = statements_of(store)
    await store.log.apply([work("one", "bob")])
    statements = len(seen)
    seen.clear()
    works = [work(f"{number}", "bob", number=number) for number in range(9)]
    settling = SaveMailbox(
        MailboxState("bob", 2, (UnsettledState(1, 1, 0), UnsettledState(2, 1, 0))), {3: (1,), 99: (2,)}
    )
    answers = (await store.log.apply([*works[:5], settling, *works[5:]])).answers
    assert len(seen) == statements + 1
    assert [each and each.seqs for each in answers] == [
        *([seq] for seq in range(3, 8)),
        None,
        *([seq] for seq in range(8, 12)),
    ]
    assert [each.seq for each in (await store.log.load()).mailboxes[0].unsettled] == [2]


async def test_an_id_that_is_known_is_looked_up_after_the_statement_failed(store: PostgresqlStore) -> None:
    seen = statements_of(store)
    assert await add(store.log, direct("b", "ann", "bob"), direct("a", "ann", "bob")) == [
        Added(2),
        Added(1, duplicate=True),
    ]
    assert seen.count("BEGIN") == 1
    assert await add(store.log, direct("c", "ann", "bob")) == [Added(3)]


async def test_a_session_that_was_lost_before_the_statement_is_replaced(
    store: PostgresqlStore, postgresql_node: Node
) -> None:
    pid = store._database.writer._connection.get_server_pid()
    postgresql_node.query(f"SELECT pg_terminate_backend({pid}, 60000)")
    assert await add(store.log, direct("b", "ann", "bob")) == [Added(2)]
    assert (await store.log.load()).last_seq == 2


async def test_another_program_that_moves_the_end_is_noticed(postgresql_url: str, postgresql_node: Node) -> None:
    async def write() -> None:
        async with open_postgresql_store(postgresql_url, WorkflowRules()) as store:
            await add(store.log, direct("a", "ann", "bob"))
            postgresql_node.query("UPDATE posthouse.log_end SET last_seq = 7", postgresql_url.rpartition("/")[2])
            await add(store.log, direct("b", "ann", "bob"))

    with pytest.raises(StoreFailed, match="not where this worker left it"):
        await write()


async def test_a_statement_that_arrives_after_its_doubt_was_decided_is_answered_as_stored(
    postgresql_url: str, postgresql_node: Node
) -> None:
    name = postgresql_url.rpartition("/")[2]
    answers: list[Added] = []

    async def write() -> None:
        answers.extend(await add(opened.log, direct("b", "ann", "bob")))

    async with relaying(postgresql_node.port) as relay:
        url = postgresql_url.replace(f":{postgresql_node.port}/", f":{relay.port}/")
        async with open_postgresql_store(url, WorkflowRules()) as opened, anyio.create_task_group() as tasks:
            await add(opened.log, direct("a", "ann", "bob"))
            await add(opened.log, direct("a2", "ann", "bob"))  # prepares the statement
            [writer] = (each for each in relay.connections if b"moved AS" in each.passed)
            late, again = Hold(), Hold(before=b"moved AS")
            writer.hold, relay.hold = late, again
            with anyio.fail_after(HAPPENS_SECONDS_MAX):
                tasks.start_soon(write)
                await late.held.wait()
                await writer.leave()
                await again.held.wait()  # the doubt is decided: it was not stored
                late.released.set()
                await happens(postgresql_node, "SELECT 1 FROM posthouse.bot_messages WHERE id = 'b'", name)
                assert answers == []
                again.released.set()
    assert answers == [Added(3)]


@pytest.mark.parametrize("end", ["pg_terminate_backend", "pg_cancel_backend"])
async def test_a_statement_whose_wait_is_ended_is_answered_once_it_is_safe(
    postgresql_quorum: Nodes, end: str
) -> None:
    """By a lost connection it is in doubt, and visible; by an operator it is answered as done, with a warning."""
    primary, *standbys = postgresql_quorum
    answers: list[Added] = []

    async def write() -> None:
        answers.extend(await add(opened.log, direct("b", "ann", "bob")))

    async with open_postgresql_store(primary.url(), WorkflowRules()) as opened, anyio.create_task_group() as tasks:
        await add(opened.log, direct("a", "ann", "bob"))
        with frozen(*standbys):
            tasks.start_soon(write)
            pid = await waiting(primary)
            assert primary.query(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND {_STATEMENT}") == ["1"]
            primary.query(f"SELECT {end}({pid})")
            assert await happens(primary, "SELECT 1 FROM posthouse.bot_messages WHERE id = 'b'") == "1"
            await happens(
                primary,
                f"SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND NOT {_STATEMENT}",
            )
            assert answers == []
    assert answers == [Added(2)]
